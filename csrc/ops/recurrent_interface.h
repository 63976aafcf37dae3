// What the operators of recurrent layers take and return.
//
//   x            [T, samples, neurons], dense in its last axis
//   weight       [neurons, neurons] as nn.Linear has it, contiguous: in the dtype of the state, or on CUDA in
//                x's
//   given        the other tensors that there are, in the order of RecurrentSlot:
//     bias         [neurons]
//     membrane     [samples, neurons] before the first step; absent: zeros
//     fired        [samples, neurons]: the spikes of the step before it; absent: none
//     beta, threshold   1 or `neurons` values; absent: the number at its place in `floats`
//     table        of a tabulated surrogate
//     grad         of spikes and trace, like x; of the spikes, the same at each step, and of the final
//                  membrane and spikes, [samples, neurons]
//   ints         in the order of RecurrentInt; `asked` is a sum of flags, of RecurrentOutput or of
//                RecurrentWanted: the tensors that are returned, in that order
//   floats       in the order of RecurrentFloat
//   u            [T, samples, row], what forward keeps: the membranes before their reset
//   fired_before [T, samples, words], int64: a bit for each spike of the step before
//
// recurrent_backward returns the gradient of x, in the state's dtype, in rows like those of u, and then what
// is asked for; recurrent_weights makes of it those of the weight and the bias. A row of the CPU's u has
// whole vectors, one of CUDA's `neurons` elements.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lif::ops {

constexpr const char* kRecurrentForwardSchema =
    "recurrent_forward(Tensor x, Tensor weight, Tensor[] given, int[] ints, float[] floats) -> Tensor[]";
// The same under autograd, for a program that is exported: a node of a graph that has a derivative, which
// lif_cuda/_recurrent_autograd.py registers. Its tensors lie in any way.
constexpr const char* kRecurrentSchema =
    "recurrent(Tensor x, Tensor weight, Tensor[] given, int[] ints, float[] floats) -> Tensor[]";
constexpr const char* kRecurrentBackwardSchema =
    "recurrent_backward(Tensor u, Tensor weight, Tensor[] given, int[] ints, float[] floats) -> Tensor[]";
constexpr const char* kRecurrentWeightsSchema =
    "recurrent_weights(Tensor grad_input, Tensor fired_before, SymInt neurons, int asked) -> Tensor[]";

struct RecurrentSlot {
  enum : size_t {
    bias,
    membrane,
    fired,
    beta,
    threshold,
    table,
    grad_spikes,
    grad_trace,
    grad_steady,
    grad_final_membrane,
    grad_final_spikes,
    count
  };
};
struct RecurrentInt {
  enum : size_t { present, asked, reset, strict, detach_reset, surrogate, count };
};
struct RecurrentFloat {
  enum : size_t { beta, threshold, v_reset, gain, slope, scale, count };
};
enum RecurrentOutput : int64_t {
  kRecurrentSpikes = 1,
  kRecurrentCount = 2,
  kRecurrentRate = 4,
  kRecurrentTrace = 8,
  kRecurrentMembrane = 16,
  kRecurrentFired = 32,
  kRecurrentKept = 64,
  kRecurrentFiredBefore = 128
};
enum RecurrentWanted : int64_t { kGradMembrane = 1, kGradFired = 2, kGradBeta = 4, kGradThreshold = 8 };
enum RecurrentWeightWanted : int64_t { kGradWeight = 1, kGradBias = 2 };

}  // namespace lif::ops
