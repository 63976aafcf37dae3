// What the operators take and return, for either of torch's C++ interfaces: the stable one of the operators
// and the whole one of the autograd node.
//
//   x               [outer..., T, inner...], the time axis at time_dim, or [outer..., inner...] where
//                   steps >= 0: a constant input. float32, float64, float16 or bfloat16. The inner axes are
//                   dense; the outer ones have one stride.
//   given           the other tensors that there are, in the order of Slot:
//     state         membrane, synaptic current, adaptation, steps of silence left: [outer..., inner...],
//                   contiguous, in the state's dtype (float32 for 16-bit x, else x's); absent: zeros
//     parameter     beta, threshold, v_reset, gain, alpha, kappa, rho, v_min; absent: the number at its place
//                   in `floats`; otherwise contiguous values in the state's dtype, of a shape that broadcasts
//                   from the right over [outer..., inner...] and is 1 only at its ends
//     lengths       of the samples of a padded batch, in time steps: int64, and else like a parameter. The
//                   CPU's kernels take one length for all inner neurons, and each in [0, T]
//     table         of a tabulated surrogate, in the state's dtype
//     checkpoints   [(T - 1) // checkpoint_every, states, outer..., inner...]: the states before steps
//                   K, 2K, ...
//     bits          [ceil(T / 16), outer..., inner...], int32: what stands in for x in backward (params.h),
//                   which then gives a shape only; no gradient of beta, gain or alpha can be had from them
//     first_spike   the output of that name; needed for its gradient
//     peak          what lif_forward returned of that name, the step of the largest membrane; needed for the
//                   gradient of that
//     grad          of the outputs, in the order of Incoming, those with a time axis like x: any strides in
//                   outer and time, dense in the inner axes or one value for all of them
//   ints            in the order of Int:
//     present       the sum of 1 << Slot of the tensors in `given`
//     asked         the sum of Output flags: the tensors that lif_forward returns, in that order; of Wanted
//                   flags: the gradients that lif_backward does
//     time_first    whether outputs with a time axis are [T, outer..., inner...] or like x
//     reset, traits Reset, and the sum of Trait flags
//     refractory    steps of silence after a spike
//   steps           -1: x has a time axis; otherwise T
//   floats          in the order of Float: the parameters that are numbers, the membrane at rest, and the
//                   slope and scale of the surrogate, for the bits that forward writes too
#pragma once

#include <cstddef>
#include <cstdint>

#include "neuron/params.h"

namespace lif::ops {

// Options travel in lists: on the way to an operator without anything to do, fourteen arguments of their own
// took 15 us, a list of SymInt 12, and this takes 10; one tensor takes 3. There is no `str` among them, whose
// conversion leaks in the stable ABI. The checks that a user meets are in Python, where they can name the
// argument and the remedy.
constexpr const char* kForwardSchema =
    "lif_forward(Tensor x, Tensor[] given, int[] ints, SymInt steps, SymInt checkpoint_every, "
    "float[] floats) -> Tensor[]";
constexpr const char* kBackwardSchema =
    "lif_backward(Tensor x, Tensor[] given, int[] ints, SymInt steps, SymInt checkpoint_every, "
    "float[] floats) -> Tensor[]";
// The two under autograd in one, for a program that is exported or compiled: lif_forward as a node of a graph
// that has a derivative, which lif_cuda/_autograd.py registers. What is kept for backward is found out when
// it runs: bits in place of x where `asked` has kBits, which it never returns. Its tensors lie in any way.
constexpr const char* kDifferentiableSchema =
    "lif(Tensor x, Tensor[] given, int[] ints, SymInt steps, float[] floats) -> Tensor[]";

// Products with spikes, which lie in words of 64 bits along their last axis, int64 to torch (cpu/events.h).
//
//   spikes      [..., K], zeros and ones
//   words       [..., ceil(K / 64)]
//   like        [..., K]: a shape and a dtype
//   weight      [N, K], bias [N], grad_y [..., N]
//
// spike_pack gives the words, and raises where a spike is neither 0 nor 1; spike_linear y [..., N] and how
// many spikes there were, int64; spike_gradient the weight's gradient. `like` is where the derivative of the
// spikes goes: lif_cuda/_events.py and _packed.py register the derivatives.
constexpr const char* kPackSchema = "spike_pack(Tensor spikes) -> Tensor";
constexpr const char* kUnpackSchema = "spike_unpack(Tensor words, Tensor like) -> Tensor";
constexpr const char* kSpikeLinearSchema =
    "spike_linear(Tensor words, Tensor like, Tensor weight, Tensor? bias) -> Tensor[]";
constexpr const char* kSpikeGradientSchema =
    "spike_gradient(Tensor words, Tensor like, Tensor grad_y) -> Tensor";

enum Trait : int64_t {
  kStrict = 1,
  kDelayed = 2,
  kDetachReset = 4,
  kSynapse = 8,
  kAdaptive = 16,
  kDecayInput = 32,  // the gain is 1 - beta; for a beta that is a number, as the state's dtype rounds it
  kFloored = 64      // there is a v_min
};
enum Output : int64_t {
  kSpikes = 1,
  kCount = 2,
  kRate = 4,
  kFirstSpike = 8,
  kTrace = 16,
  kTraceBefore = 32,
  kTotal = 64,
  kTraceMax = 128,
  kTraceMean = 256,
  kFinalState = 512,  // times 2 for each further state
  kPeak = 8192,
  kCheckpoints = 16384,
  kBits = 32768,
  kPacked = 65536  // beside kSpikes, on the CPU: words, behind spikes that are a shape without memory
};
enum Incoming : size_t {
  kOfSpikes,
  kOfCount,
  kOfRate,
  kOfFirstSpike,
  kOfTrace,
  kOfTraceBefore,
  kOfTraceMax,
  kOfTraceMean,
  kOfState,
  kIncoming = kOfState + kSmoothStates
};
enum Wanted : int64_t { kGradX = 1, kGradState = 2, kGradParameter = 16 };

struct Slot {
  enum : size_t {
    state,
    parameter = state + kStates,
    lengths = parameter + kParameters,
    table,
    checkpoints,
    bits,
    first_spike,
    peak,
    grad,
    count = grad + kIncoming
  };
};
struct Int {
  enum : size_t { present, asked, time_dim, time_first, reset, traits, refractory, surrogate, count };
};
struct Float {
  enum : size_t { number, rest = number + kParameters, slope, scale, count };
};

}  // namespace lif::ops
