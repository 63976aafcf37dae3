// How the axes of a tensor lie in memory; for the sizes and strides of either of torch's C++ interfaces.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lif::ops {

// The stride with which the axes [begin, end) can be walked as one, or -1.
template <typename Sizes, typename Strides>
int64_t joint_stride(const Sizes& sizes, const Strides& strides, size_t begin, size_t end) {
  int64_t joint = -1;
  int64_t next = 0;
  for (size_t i = end; i-- > begin;) {
    if (sizes[i] == 1) {
      continue;
    }
    if (joint >= 0 && strides[i] != next) {
      return -1;
    }
    joint = joint < 0 ? strides[i] : joint;
    next = strides[i] * sizes[i];
  }
  return joint < 0 ? 1 : joint;
}

}  // namespace lif::ops
