// The operators of a backend as plain functions, for a caller within this build that the dispatcher has
// nothing to tell: node.cpp. On the way through the dispatcher each entry of a list becomes a value of its
// own and back again, 13,000 of the 23,000 instructions of a small call.
//
// A library of operators exports one such table, under the name kDirect.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <vector>

namespace lif::ops {

struct Direct {
  // The arguments are those of the schemas in interface.h.
  using Operator = std::vector<torch::stable::Tensor> (*)(const torch::stable::Tensor& x,
                                                          const std::vector<torch::stable::Tensor>& given,
                                                          const std::vector<int64_t>& ints, int64_t steps,
                                                          int64_t checkpoint_every,
                                                          const std::vector<double>& floats);
  Operator forward;
  Operator backward;
};

constexpr const char* kDirect = "lif_cuda_direct";

}  // namespace lif::ops

extern "C" __attribute__((visibility("default"))) const lif::ops::Direct lif_cuda_direct;
