// The CPU kernels without torch, for the sanitizers: forward and backward of drawn neurons, on raw memory.
//
// Each buffer is a piece of memory of its own and of exactly the right size, so that an access beside it is
// seen: by the address sanitizer, or, in a build without one, by a page without permissions that touches the
// buffer's end (`driver end`) or its beginning (`driver begin`). Compiled with a sanitizer, the kernels are
// not vectorised, and streaming stores are checked by none; the pages see what was really built.
//
// Every case runs twice, in one thread and in several as the operators do it, onto outputs filled with
// two different bytes. The results must be the same bits, so an element that is left out shows, and one that
// depends on the cut into tasks. What the kernels must leave alone must still hold those bytes.
//
// One line a case goes to stdout, with a hash of its results: the same for every build and SIMD level.
#include <algorithm>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "buffers.h"
#include "cpu/dispatch.h"
#include "products.h"

namespace {

using namespace lif;

// Cases.

// What kind of neuron, beside its reset.
struct Kind {
  const char* name;
  bool detach = false;
  bool delayed = false;
  bool synapse = false;
  bool adaptive = false;
  int64_t refractory = 0;
  double rest = 0;
  bool floored = false;
};

constexpr Kind kKinds[] = {
    {"plain"},
    {"detached", true},
    {"delayed", true, true},
    {"synapse", false, false, true},
    {"delayed synapse", true, true, true},
    {"adaptive", false, false, false, true},
    {"refractory", false, false, false, false, 2},
    {"rest", false, false, false, false, 0, 0.125},
    {"floor", false, false, false, false, 0, 0, true},
    {"delayed floor", true, true, false, false, 0, 0, true},
    {"everything", false, false, true, true, 1, -0.25, true},
};
constexpr const char* kResetNames[] = {"subtract", "zero", "none"};
constexpr int64_t kSizes[] = {1, 17, 513, 1000};
constexpr int64_t kManySteps[] = {0, 1, 5, 50};

struct Case {
  uint64_t seed;
  Kind kind;
  Reset reset;
  Extent extent;
  bool large = false;  // so that outputs are streamed past the caches
};

// Ranges of tasks on so many threads, as run_tasks in csrc/ops/lif_cpu.cpp gives them to parallel_for.
template <typename Args, typename Kernel>
void run_tasks(const Args& args, int64_t most, int64_t threads, Kernel kernel) {
  const cpu::Tiling tiling = cpu::tile(args.extent, most, threads, cpu::together(args));
  if (threads == 1) {
    kernel(args, tiling, 0, tiling.tasks);
    return;
  }
  const int64_t share = (tiling.tasks + threads - 1) / threads;
  std::vector<std::thread> workers;
  for (int64_t begin = 0; begin < tiling.tasks; begin += share) {
    const int64_t end = std::min(begin + share, tiling.tasks);
    workers.emplace_back([&args, &tiling, kernel, begin, end] { kernel(args, tiling, begin, end); });
  }
  for (std::thread& worker : workers) {
    worker.join();
  }
}

// A number, or values per neuron, per feature, for all together, or per channel.
template <typename S>
Parameter<S> draw_parameter(Draw& draw, Inputs& inputs, const Extent& extent, double low, double high) {
  Parameter<S> parameter;
  parameter.value = static_cast<S>(draw.between(low, high));
  switch (draw.below(5)) {
    case 0:
      return parameter;
    case 1:
      parameter.period = neurons(extent);
      break;
    case 2:
      parameter.period = extent.inner;
      break;
    case 3:
      break;
    default: {
      int64_t divisor = 2;  // the least, of an inner size above 1
      while (divisor < extent.inner && extent.inner % divisor != 0) {
        ++divisor;
      }
      divisor = std::min(divisor, extent.inner);
      parameter.period = draw.in(1, 2) ? divisor : extent.inner / divisor;
      parameter.repeat = extent.inner / parameter.period;
      break;
    }
  }
  parameter.values = inputs.values<S>(parameter.period, low, high);
  return parameter;
}

constexpr const char* kParameterNames[] = {"beta",  "threshold", "v_reset", "gain",
                                           "alpha", "kappa",     "rho",     "v_min"};
constexpr std::pair<double, double> kParameterRanges[] = {{0.5, 1.0},  {0.3, 1.0}, {-0.2, 0.1}, {0.5, 1.5},
                                                          {0.3, 0.95}, {0.0, 0.3}, {0.5, 0.95}, {-0.2, 0.2}};

template <typename T>
void run_case(const Case& c, const char* type) {
  using S = StateOf<T>;
  const cpu::Kernels<T> kernels = cpu::active_kernels<T>();
  const Extent& extent = c.extent;
  const int64_t n = neurons(extent);
  Draw draw(c.seed);
  Inputs inputs(c.seed + (uint64_t{1} << 32));
  const int64_t threads = 2 + draw.below(3);
  const std::string name = std::string(type) + " " + kResetNames[static_cast<int>(c.reset)] + " " +
                           c.kind.name + " [" + std::to_string(extent.outer) + ", " +
                           std::to_string(extent.steps) + ", " + std::to_string(extent.inner) + "] seed " +
                           std::to_string(c.seed);

  constexpr Layout kTimed[] = {Layout::time_first, Layout::batch_first, Layout::padded};
  constexpr Layout kAny[] = {Layout::time_first, Layout::batch_first, Layout::padded,
                             Layout::constant,   Layout::uniform,     Layout::single};
  constexpr Layout kUntimed[] = {Layout::constant, Layout::single};
  const bool wild = draw.in(1, 12);
  const bool constant = !c.large && draw.in(1, 6);

  Forward<T> forward;
  forward.extent = extent;
  forward.x = inputs.series<T>(constant                     ? Layout::constant
                               : !c.large && draw.in(1, 12) ? draw.one_of({Layout::uniform, Layout::single})
                                                            : draw.one_of(kTimed),
                               extent, -0.5, 1.5, wild);
  forward.neuron.reset = c.reset;
  forward.neuron.strict = draw.in(1, 2);
  forward.neuron.delayed = c.kind.delayed;
  forward.neuron.detach_reset = c.kind.detach;
  forward.neuron.synapse = c.kind.synapse;
  forward.neuron.adaptive = c.kind.adaptive;
  forward.neuron.refractory = c.kind.refractory;
  forward.neuron.rest = static_cast<S>(c.kind.rest);
  forward.neuron.floored = c.kind.floored;
  const Neuron<S>& neuron = forward.neuron;
  for (int state = 0; state < kStates; ++state) {
    if (has_state(neuron, state) && draw.in(2, 3)) {
      forward.state[state] = inputs.values<S>(n, state == kMembrane ? -0.5 : 0.0, 1.0);
    }
  }
  for (int name = 0; name < kParameters; ++name) {
    forward.parameter[name] =
        draw_parameter<S>(draw, inputs, extent, kParameterRanges[name].first, kParameterRanges[name].second);
  }
  if (draw.in(1, 2)) {  // a gain of 1 takes a way of its own
    forward.parameter[kGain] = {nullptr, 1, 1, S(1)};
  }
  const int64_t every = draw.in(2, 3) ? draw.one_of({7, 25}) : 0;
  const int64_t chunks = every > 0 ? (extent.steps + every - 1) / every : 0;
  const bool few = draw.in(1, 4);  // the spikes and little else, as most calls want it
  const bool before_reset = c.large ? c.kind.delayed : !few && draw.in(1, 3);
  const auto wanted = [&] { return few ? draw.in(1, 8) : draw.in(3, 4); };
  const Layout out = draw.one_of(kTimed);
  const bool spikes = wanted() || few || c.large;
  const bool packed = draw.in(1, 4);
  const bool trace = wanted();
  const bool count = wanted();
  const bool rate = wanted();
  const bool first = wanted();
  const bool total = wanted();
  const bool largest = extent.steps > 0 && !few && wanted();
  const bool mean = !few && wanted();
  const bool last_state = wanted();
  const auto run_forward = [&](Outputs& outputs, int64_t of_threads) {
    Forward<T> args = forward;
    args.spikes = spikes && !packed ? outputs.series<T>(out, extent, "spikes") : Series<T>{};
    if (spikes && packed) {
      // A row of spikes is a time step, or a part of it.
      args.packed_neurons = extent.inner % 27 == 0 ? extent.inner / 27 : extent.inner;
      const int64_t words = extent.inner / args.packed_neurons * ((args.packed_neurons + 63) / 64);
      args.packed.data = outputs.values<uint64_t>(extent.outer * extent.steps * words, "packed");
      args.packed.outer_stride = words;
      args.packed.time_stride = extent.outer * words;
    }
    args.trace = trace ? outputs.series<T>(out, extent, "trace") : Series<T>{};
    args.trace_before = before_reset ? outputs.series<T>(out, extent, "trace_before") : Series<T>{};
    args.count = count ? outputs.values<S>(n, "count") : nullptr;
    args.rate = rate ? outputs.values<S>(n, "rate") : nullptr;
    args.first = first ? outputs.values<S>(n, "first_spike") : nullptr;
    if (total) {
      args.total = outputs.values<int64_t>(1, "total");
      *args.total = 0;
    }
    args.trace_max = largest ? outputs.values<S>(n, "trace_max") : nullptr;
    args.peak = largest ? outputs.values<S>(n, "peak") : nullptr;
    args.trace_mean = mean ? outputs.values<S>(n, "trace_mean") : nullptr;
    for (int state = 0; state < kStates; ++state) {
      if (last_state && has_state(neuron, state)) {
        args.final_state[state] = outputs.values<S>(n, "final state");
      }
    }
    args.checkpoint_every = every;
    if (chunks > 1) {
      args.checkpoints = outputs.values<S>((chunks - 1) * states_of(neuron) * n, "checkpoints");
    }
    run_tasks(args, kernels.forward_neurons(args), of_threads, kernels.forward);
    return args;
  };

  Outputs outputs(0xa5);
  const Forward<T> done = run_forward(outputs, 1);
  {
    Outputs others(0xff);
    run_forward(others, threads);
    if (const std::string found = outputs.difference(others); !found.empty()) {
      fail(name + ": " + found);
    }
  }

  Backward<T> backward;
  backward.extent = extent;
  backward.x = forward.x;
  std::copy(std::begin(forward.state), std::end(forward.state), backward.state);
  std::copy(std::begin(forward.parameter), std::end(forward.parameter), backward.parameter);
  backward.neuron = neuron;
  backward.surrogate.shape = static_cast<Shape>(draw.below(kShapes));
  backward.surrogate.slope = S(2);
  backward.surrogate.scale = S(1);
  if (backward.surrogate.shape == Shape::table) {
    backward.surrogate.points = draw.one_of({2, 3, 33});
    backward.surrogate.table = inputs.values<S>(backward.surrogate.points, 0.0, 1.0);
  }
  backward.chunk = std::max<int64_t>(extent.steps, 1);
  if (chunks > 1) {
    backward.chunk = every;
    backward.checkpoints = done.checkpoints;
  }
  backward.first = done.first;
  backward.peak = done.peak;
  if (spikes) {
    backward.grad_spikes = inputs.series<T>(draw.one_of(kAny), extent, -1.0, 1.0);
  }
  if (trace) {
    backward.grad_trace = inputs.series<T>(draw.one_of(kAny), extent, -1.0, 1.0);
  }
  if (before_reset) {
    backward.grad_trace_before = inputs.series<T>(draw.one_of(kAny), extent, -1.0, 1.0);
  }
  if (count) {
    backward.grad_count = inputs.series<S>(draw.one_of(kUntimed), extent, -1.0, 1.0);
  }
  if (rate) {
    backward.grad_rate = inputs.series<S>(draw.one_of(kUntimed), extent, -1.0, 1.0);
  }
  if (first) {
    backward.grad_first = inputs.series<S>(draw.one_of(kUntimed), extent, -0.1, 0.1);
  }
  if (largest) {
    backward.grad_trace_max = inputs.series<S>(draw.one_of(kUntimed), extent, -1.0, 1.0);
  }
  if (mean) {
    backward.grad_trace_mean = inputs.series<S>(draw.one_of(kUntimed), extent, -1.0, 1.0);
  }
  for (int state = 0; state < kSmoothStates; ++state) {
    if (last_state && has_state(neuron, state)) {
      backward.grad_final[state] = inputs.values<S>(n, -1.0, 1.0);
    }
  }
  const bool grad_x = draw.in(7, 8) || c.large;
  const bool grad_state = wanted();
  bool grad_parameter[kLearnable];
  for (int name = 0; name < kLearnable; ++name) {
    grad_parameter[name] = forward.parameter[name].values != nullptr && wanted();
  }
  const auto run_backward = [&](Outputs& outputs, int64_t of_threads) {
    Backward<T> args = backward;
    if (grad_x && constant) {
      args.grad_x_sum = outputs.values<T>(n, "grad_x");
    } else if (grad_x) {
      args.grad_x = outputs.series<T>(out, extent, "grad_x");
    }
    for (int state = 0; state < kSmoothStates; ++state) {
      if (grad_state && has_state(neuron, state)) {
        args.grad_state[state] = outputs.values<S>(n, "grad_state");
      }
    }
    for (int name = 0; name < kLearnable; ++name) {
      if (grad_parameter[name]) {
        args.grad_parameter[name] = outputs.values<S>(n, kParameterNames[name]);
      }
    }
    run_tasks(args, kernels.backward_neurons(args), of_threads, kernels.backward);
    for (int name = 0; name < kLearnable; ++name) {
      const auto& [values, period, repeat, value] = args.parameter[name];
      if (grad_parameter[name] && period != n) {
        kernels.sum_partials(args.grad_parameter[name], n / (period * repeat), period, repeat,
                             outputs.values<S>(period, "sum of partial gradients"));
      }
    }
  };
  Outputs gradients(0xa5);
  run_backward(gradients, 1);
  {
    Outputs others(0xff);
    run_backward(others, threads);
    if (const std::string found = gradients.difference(others); !found.empty()) {
      fail(name + ": " + found);
    }
  }
  std::printf("%s: %016" PRIx64 "\n", name.c_str(), gradients.hash(outputs.hash(0xcbf29ce484222325u)));
  std::fflush(stdout);
}

template <typename T>
void run_type(const char* type, uint64_t seed, bool small) {
  for (const Kind& kind : kKinds) {
    for (Reset reset : {Reset::subtract, Reset::zero, Reset::none}) {
      for (int64_t steps : kManySteps) {
        // Shapes in turn and not drawn, so that each kind meets all of them.
        const int64_t outer = seed % 3 == 0 ? 3 : 1;
        const int64_t inner = kSizes[(seed + seed / 4) % 4];
        run_case<T>({seed++, kind, reset, {outer, steps, inner}}, type);
      }
    }
  }
  if (small) {
    return;
  }
  // Just above 64 MiB, in rows that begin anywhere in a cache line: a neuron that streams what it computes in
  // one pass, and one that streams it afterwards.
  constexpr int64_t kOuter = 3;
  constexpr int64_t kSteps = 5;
  const int64_t inner = ((int64_t{64} << 20) / (kOuter * kSteps * static_cast<int64_t>(sizeof(T))) + 1) | 1;
  const bool synapse = std::is_same_v<T, double> || std::is_same_v<T, BFloat16>;
  for (const Kind& kind : {kKinds[0], kKinds[synapse ? 3 : 2]}) {
    run_case<T>({seed++, kind, Reset::subtract, {kOuter, kSteps, inner}, true}, type);
  }
}

}  // namespace

int main(int arguments, char** argument) {
  const std::string asked = arguments > 1 ? argument[1] : "heap";
  if (asked != "heap" && asked != "end" && asked != "begin") {
    fail("usage: driver [heap | end | begin [small]]");
  }
  placement = asked == "heap" ? Placement::heap : asked == "end" ? Placement::end : Placement::begin;
  const bool small = arguments > 2 && std::strcmp(argument[2], "small") == 0;
  std::printf("%s\n", simd_name(active_simd()));
  run_type<float>("float", 1000, small);
  run_type<double>("double", 2000, small);
  run_type<Half>("half", 3000, small);
  run_type<BFloat16>("bfloat16", 4000, small);
  run_products<float>("float", 5000);
  run_products<double>("double", 6000);
  run_products<Half>("half", 7000);
  run_products<BFloat16>("bfloat16", 8000);
  return 0;
}
