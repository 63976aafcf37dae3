// Recurrent layers, compiled once for each SIMD level as forward.inl is.
#include "cpu/level/recurrent_backward.inl"
#include "cpu/level/recurrent_forward.inl"
#include "cpu/level/recurrent_weights.inl"
#include "cpu/level/sums.inl"

namespace lif::cpu::LIF_SIMD {
namespace {

// As many numbers as either way needs.
template <typename S>
int64_t packed_size(int64_t neurons) {
  const int64_t rows = sum_columns_of<S>(neurons);
  const int64_t panels = panels_of<S>(neurons) * kPanel<S>;
  return neurons * (rows > panels ? rows : panels);
}

}  // namespace

template <typename T>
RecurrentKernels<T> recurrent_kernels() {
  using S = StateOf<T>;
  return {&packed_size<S>,       &transpose_weight<S>,   &panels_of_weight<S>,
          &recurrent_forward<T>, &recurrent_backward<T>, &sum_partials<S>};
}

template <typename S>
RecurrentWeightKernels<S> recurrent_weight_kernels() {
  return {&recurrent_weight_tasks<S>, &recurrent_weights<S>};
}

template RecurrentKernels<float> recurrent_kernels<float>();
template RecurrentKernels<double> recurrent_kernels<double>();
template RecurrentKernels<Half> recurrent_kernels<Half>();
template RecurrentKernels<BFloat16> recurrent_kernels<BFloat16>();
template RecurrentWeightKernels<float> recurrent_weight_kernels<float>();
template RecurrentWeightKernels<double> recurrent_weight_kernels<double>();

}  // namespace lif::cpu::LIF_SIMD
