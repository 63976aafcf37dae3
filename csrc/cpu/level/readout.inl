// What has no time axis: counts, rates and totals; and the gradient that all steps share.
#pragma once

#include "cpu/level/access.inl"

namespace lif::cpu::LIF_SIMD {
namespace {

template <typename T>
bool is_counted(const Forward<T>& args) {
  return args.count != nullptr || args.rate != nullptr || args.total != nullptr;
}

// What counts are divided by.
template <typename S>
S rate_divisor(const Block& block) {
  return static_cast<S>(block.steps > 0 ? block.steps : 1);
}

// What the spikes of a task add up to: its counts, its rates, and its share of the total.
template <typename T, typename S = StateOf<T>>
void write_counts(const Forward<T>& args, const Block& block, const S* count) {
  if (args.count != nullptr) {
    copy_row(args.count + block.neuron, count, block.size);
  }
  if (args.rate != nullptr) {
    divide_row(args.rate + block.neuron, count, rate_divisor<S>(block), block.size);
  }
  if (args.total != nullptr) {
    int64_t total = 0;
    for (int64_t i = 0; i < block.size; ++i) {
      total += static_cast<int64_t>(count[i]);
    }
    // Integers: their sum does not depend on the order.
    __atomic_fetch_add(args.total, total, __ATOMIC_RELAXED);
  }
}

// The gradient that all steps of a series share: of its rate, of its count, and `steady`, one of the spikes
// that is the same at each step. Null where there is none of them.
template <typename T, typename S = StateOf<T>>
const S* constant_gradient(const Backward<T>& args, const Series<const T>& steady, const Block& block, S* sum,
                           S* widened) {
  const int64_t n = block.size;
  bool any = false;
  const auto plus = [&](const S* term) {
    any ? add_row(sum, term, n) : copy_row(sum, term, n);
    any = true;
  };
  if (args.grad_rate.data != nullptr) {
    divide_row(sum, read_row(args.grad_rate, block, 0, widened), rate_divisor<S>(block), n);
    any = true;
  }
  if (args.grad_count.data != nullptr) {
    plus(read_row(args.grad_count, block, 0, widened));
  }
  if (steady.data != nullptr) {
    plus(read_row(steady, block, 0, widened));
  }
  return any ? sum : nullptr;
}

// Whether the gradient of the spikes is the same at each of several steps, as that of their mean or their sum
// is: it is then a part of the constant one.
template <typename T>
bool is_steady(const Backward<T>& args) {
  return args.grad_spikes.data != nullptr && args.grad_spikes.time_stride == 0 && args.extent.steps > 1;
}

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
