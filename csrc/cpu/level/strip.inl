// A strip of neurons at the steps of a tile, which the wide kernels work on at a time.
#pragma once

#include "cpu/level/access.inl"
#include "cpu/level/own_kernels.inl"
#include "cpu/level/vector.inl"

namespace lif::cpu::LIF_SIMD {
namespace {

// Vectors that are computed side by side.
constexpr int64_t kWideVectors = 2;

template <typename S>
constexpr int64_t kWideGroup = kWideVectors * kLanes<S>;

// Neurons that go through the steps of a tile together. What a strip needs beside what lies in tensors, such
// as the surrogate derivatives, stays in the first-level cache.
template <typename S>
constexpr int64_t kWideStrip = 2048 / sizeof(S);

// The neurons of the strip that begins at neuron i: whole groups, as long as there are some, which can be
// computed where they lie.
template <typename S>
int64_t strip_of(int64_t i, int64_t n) {
  const int64_t left = smaller(kWideStrip<S>, n - i);
  const int64_t whole = left / kWideGroup<S> * kWideGroup<S>;
  return whole > 0 ? whole : left;
}

// A strip of a tensor's rows at the steps of a tile: where they lie, or, of another type, of one value for
// all neurons and of the last neurons of a block, copies with room for whole groups.
template <typename T, typename S = StateOf<T>>
class Inlet {
 public:
  Rows<const InTile<T>> rows(const Rows<const T>& from, int64_t steps, int64_t i, int64_t n) {
    if (from.data == nullptr) {
      return {};
    }
    if constexpr (std::is_same_v<T, InTile<T>>) {
      if (!from.uniform && n % kWideGroup<S> == 0) {
        return beyond(from, i);
      }
    }
    const int64_t rows = from.stride == 0 ? 1 : steps;
    for (int64_t j = 0; j < rows; ++j) {
      InTile<T>* to = data_ + j * kWideStrip<S>;
      if constexpr (std::is_same_v<T, InTile<T>>) {
        from.uniform ? fill_row(to, *from.at(j, 0), n) : copy_row(to, from.at(j, i), n);
      } else {
        from.uniform ? fill_row(to, widen(*from.at(j, 0)), n) : widen_row(to, from.at(j, i), n);
      }
    }
    return {data_, from.stride == 0 ? 0 : kWideStrip<S>, false};
  }

 private:
  alignas(64) InTile<T> data_[kTileSteps * kWideStrip<S>];
};

// And as they are written; finish() copies what did not go where it belongs.
template <typename T, typename S = StateOf<T>>
class Outlet {
 public:
  Rows<InTile<T>> rows(const Rows<T>& to, int64_t i, int64_t n) {
    to_ = beyond(to, i);
    direct_ = to.data == nullptr;
    if constexpr (std::is_same_v<T, InTile<T>>) {
      if (direct_ || n % kWideGroup<S> == 0) {
        direct_ = true;
        return to_;
      }
    }
    return direct_ ? Rows<InTile<T>>{} : Rows<InTile<T>>{data_, kWideStrip<S>, false};
  }

  void finish(int64_t steps, int64_t n) const {
    for (int64_t j = 0; !direct_ && j < steps; ++j) {
      if constexpr (std::is_same_v<T, InTile<T>>) {
        copy_row(to_.at(j, 0), data_ + j * kWideStrip<S>, n);
      } else {
        narrow_row(to_.at(j, 0), data_ + j * kWideStrip<S>, n);
      }
    }
  }

 private:
  Rows<T> to_;
  bool direct_ = true;
  alignas(64) InTile<T> data_[kTileSteps * kWideStrip<S>];
};

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
