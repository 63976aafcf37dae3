// Forward, of any neuron of the family: step() of neuron/step.h on vectors.
//
// A tile is a few time steps of a strip of neurons. A group of vectors walks through the steps of a tile with
// its states in registers. What a neuron has is known when the kernels are compiled, for the members on the
// list of neuron/member.h, or at run time (AnyMember). What is written is asked at run time, once for a group
// at a step.
#pragma once

#include "cpu/level/packed_rows.inl"
#include "cpu/level/readout.inl"
#include "cpu/level/wide_rows.inl"
#include "neuron/readout.h"

namespace lif::cpu::LIF_SIMD {
namespace {

template <typename T, typename S = StateOf<T>>
struct WideForwardTile {
  int64_t t = 0;  // the first step
  int64_t steps = 0;
  Rows<const T> x;
  Rows<T> spikes, trace, trace_before;
  Rows<S> u, before[kStates];  // where backward computes again: the membrane, and the states before each step
  bool counting = false;
  bool timed = false;
  bool in_bits = false;
  bool peaked = false;
  bool averaged = false;
  bool streamed = false;
  S window = S(0);
};

// Integers as wide as S.
template <typename S>
using Mask = decltype(Vector<S>{} > Vector<S>{});

// `bit` joins the words of a vector's neurons where the mask says so.
template <typename S>
[[gnu::always_inline]] inline void join_bits(uint32_t* words, Mask<S> where, uint32_t bit) {
  for (int64_t lane = 0; lane < kLanes<S>; ++lane) {
    words[lane] |= where[lane] != 0 ? bit : 0u;
  }
}

// What the steps of a tile write: spikes alone, what backward keeps where it computes a chunk again, or
// whatever is asked for. A question asked at each step of each group costs half as much as its arithmetic.
enum class WideWrites { spikes, kept, any };

template <typename Kind, WideWrites kWrites, typename T, typename S = StateOf<T>>
[[gnu::noinline]] void wide_forward_groups(const Neuron<S>& neuron, const WideForwardTile<T>& given,
                                           const WideRows<S>& given_rows, int64_t n) {
  constexpr bool kSpikes = kWrites == WideWrites::spikes;
  constexpr bool kKept = kWrites == WideWrites::kept;
  constexpr bool kAny = kWrites == WideWrites::any;
  constexpr bool kOverTime = kAny && std::is_same_v<Kind, AnyMember>;
  // Copies, which the compiler knows that no store can change.
  const WideForwardTile<T> tile(given);
  const WideRows<S> rows(given_rows);
  const Kind kind = wide_kind<Kind>(neuron);
  const auto each = [](const auto& run) {
    for (int64_t k = 0; k < kWideVectors; ++k) {
      run(k, k * kLanes<S>);
    }
  };
  for (int64_t i = 0; i < n; i += kWideGroup<S>) {
    Values<Vector<S>> own[kWideVectors];
    States<Vector<S>> state[kWideVectors];
    Step<Vector<S>> now[kWideVectors];
    Vector<S> count[kWideVectors] = {};
    each([&](int64_t k, int64_t lane) {
      own[k] = load_values(kind, neuron, rows, i + lane);
      for (int name = 0; name < kStates; ++name) {
        state[k].of[name] = has_state(kind, name) ? load(rows.state[name] + i + lane) : Vector<S>{};
      }
      if (kAny && tile.counting) {
        count[k] = load(rows.count + i + lane);
      }
    });
    for (int64_t j = 0; j < tile.steps; ++j) {
      for (int name = 0; name < kStates; ++name) {
        if (kKept && has_state(kind, name) && tile.before[name].data != nullptr) {
          each([&](int64_t k, int64_t lane) { store(tile.before[name].at(j, i + lane), state[k].of[name]); });
        }
      }
      each([&](int64_t k, int64_t lane) {
        now[k] = step(kind, own[k], state[k], load(tile.x.at(j, i + lane)));
      });
      if (kKept) {
        each([&](int64_t k, int64_t lane) { store(tile.u.at(j, i + lane), now[k].u); });
      }
      if (kSpikes || (kAny && tile.spikes.data != nullptr)) {
        each([&](int64_t k, int64_t lane) {
          store_as<true>(tile.spikes.at(j, i + lane), now[k].s, tile.streamed);
        });
      }
      if (kAny && tile.trace_before.data != nullptr) {
        each([&](int64_t k, int64_t lane) { store_as(tile.trace_before.at(j, i + lane), now[k].u); });
      }
      if (kAny && tile.trace.data != nullptr) {
        each([&](int64_t k, int64_t lane) { store_as(tile.trace.at(j, i + lane), state[k].of[kMembrane]); });
      }
      if (kAny && tile.counting) {
        each([&](int64_t k, int64_t) { count[k] = add(count[k], now[k].s); });
      }
      if (kAny && tile.timed) {
        each([&](int64_t k, int64_t lane) {
          const auto alive = mul(load(rows.alive + i + lane), sub(number<Vector<S>>(1), now[k].s));
          store(rows.alive + i + lane, alive);
          store(rows.first + i + lane, add(load(rows.first + i + lane), alive));
        });
      }
      if (kOverTime && tile.averaged) {
        each([&](int64_t k, int64_t lane) {
          store(rows.sum_v + i + lane, add(load(rows.sum_v + i + lane), state[k].of[kMembrane]));
        });
      }
      if (kOverTime && tile.peaked) {
        each([&](int64_t k, int64_t lane) {
          Peak<Vector<S>> peak{load(rows.highest + i + lane), load(rows.peak + i + lane)};
          climb(peak, state[k].of[kMembrane], splat(static_cast<S>(tile.t + j)));
          store(rows.highest + i + lane, peak.value);
          store(rows.peak + i + lane, peak.step);
        });
      }
      if (kAny && tile.in_bits) {
        each([&](int64_t k, int64_t lane) {
          uint32_t* words = rows.words + i + lane;
          join_bits<S>(words, now[k].s != number<Vector<S>>(0), fired_bit(tile.t + j));
          join_bits<S>(words, inside_window(sub(now[k].u, own[k].theta), splat(tile.window)),
                       inside_bit(tile.t + j));
        });
      }
    }
    each([&](int64_t k, int64_t lane) {
      for (int name = 0; name < kStates; ++name) {
        if (has_state(kind, name)) {
          store(rows.state[name] + i + lane, state[k].of[name]);
        }
      }
      if (kAny && tile.counting) {
        store(rows.count + i + lane, count[k]);
      }
    });
  }
}

template <typename T, typename S = StateOf<T>>
using WideForwardGroups = void (*)(const Neuron<S>&, const WideForwardTile<T>&, const WideRows<S>&, int64_t);

template <WideWrites kWrites, typename T, typename S = StateOf<T>>
WideForwardGroups<T> wide_forward_groups_of(const Neuron<S>& neuron) {
  return with_member(OwnKernels<S>(), neuron, [](auto tag) -> WideForwardGroups<T> {
    return &wide_forward_groups<typename Forwards<typename decltype(tag)::type>::type, kWrites, T>;
  });
}

// The states before the first step, or before a chunk.
template <typename T, typename S = StateOf<T>>
void load_states(const WideRows<S>& rows, const Neuron<S>& neuron, const S* const* from, const Block& block) {
  for (int state = 0; state < kStates; ++state) {
    if (has_state(neuron, state)) {
      load_or_zero(rows.state[state], from[state] == nullptr ? nullptr : from[state] + block.neuron,
                   block.size);
    }
  }
}

template <typename T>
WideForwardGroups<InTile<T>> wide_forward_groups_of(const Forward<T>& args) {
  // Seldom asked for: a member of its own would not be worth a question at each of its steps.
  if (args.trace_max != nullptr || args.trace_mean != nullptr) {
    return &wide_forward_groups<AnyMember, WideWrites::any, InTile<T>>;
  }
  const bool further = is_counted(args) || args.trace.data != nullptr || args.trace_before.data != nullptr ||
                       args.first != nullptr || args.bits != nullptr;
  return !has_spikes(args) || further ? wide_forward_groups_of<WideWrites::any, InTile<T>>(args.neuron)
                                      : wide_forward_groups_of<WideWrites::spikes, InTile<T>>(args.neuron);
}

template <typename T>
WideNeeds needs_of(const Forward<T>& args) {
  WideNeeds needs;
  needs.counting = is_counted(args);
  needs.timed = args.first != nullptr;
  needs.in_bits = args.bits != nullptr;
  needs.peaked = args.trace_max != nullptr;
  needs.averaged = args.trace_mean != nullptr;
  return needs;
}

template <typename T, typename S = StateOf<T>>
bool wide_streams(const Forward<T>& args, const Block& block, const WideRows<S>& rows) {
  constexpr uintptr_t kLine = 64;
  if (!std::is_same_v<T, S> || args.spikes.data == nullptr || !is_streamed(args.extent, sizeof(T))) {
    return false;
  }
  for (int64_t to = 0; to < kTileSteps; ++to) {
    const T* spikes = row_of(args.spikes, block, to);
    bool collide = reinterpret_cast<uintptr_t>(spikes) % kLine != 0;
    for (int64_t from = 0; from < kTileSteps; ++from) {
      collide = collide || collides(spikes, row_of(args.x, block, from));
    }
    for (const S* row : rows.state) {
      collide = collide || collides(spikes, row);
    }
    for (const S* row : rows.parameter) {
      collide = collide || collides(spikes, row);
    }
    if (collide) {
      return false;
    }
  }
  return true;
}

template <typename T, typename S = StateOf<T>>
void wide_forward_task(const Forward<T>& args, const Block& block, const WideRows<S>& rows,
                       const PackedRows<T>& packed, WideForwardGroups<InTile<T>> groups) {
  const int64_t n = block.size;
  const int64_t steps = block.steps;
  rows.load(args.neuron, args.parameter, block);
  load_states<T>(rows, args.neuron, args.state, block);
  WideForwardTile<InTile<T>> tile;
  const WideNeeds needs = needs_of(args);
  tile.counting = needs.counting;
  tile.timed = needs.timed;
  tile.in_bits = needs.in_bits;
  tile.peaked = needs.peaked;
  tile.averaged = needs.averaged;
  tile.window = args.window;
  tile.streamed = wide_streams(args, block, rows);
  if (tile.counting) {
    fill_row(rows.count, S(0), n);
  }
  if (tile.timed) {
    fill_row(rows.alive, S(1), n);
    fill_row(rows.first, S(0), n);
  }
  if (tile.peaked) {
    fill_row(rows.highest, Peak<S>{}.value, n);
    fill_row(rows.peak, Peak<S>{}.step, n);
  }
  if (tile.averaged) {
    fill_row(rows.sum_v, S(0), n);
  }
  Inlet<T> x;
  Outlet<T> spikes, trace, trace_before;
  S* checkpoint = args.checkpoints;
  int64_t until_checkpoint = checkpoint == nullptr ? steps : args.checkpoint_every;
  for (int64_t t = 0; t < steps; t += tile.steps) {
    if (until_checkpoint == 0) {
      for (int state = 0; state < kStates; ++state) {
        if (has_state(args.neuron, state)) {
          copy_row(checkpoint + block.neuron, rows.state[state], n);
          checkpoint += neurons(args.extent);
        }
      }
      until_checkpoint = args.checkpoint_every;
    }
    tile.t = t;
    tile.steps = smaller(kTileSteps, smaller(steps - t, until_checkpoint));
    if (tile.in_bits) {
      tile.steps = smaller(tile.steps, kStepsOfWord - t % kStepsOfWord);
      if (t % kStepsOfWord == 0) {
        fill_row(rows.words, 0u, n);
      }
    }
    const auto x_rows = rows_of(args.x, block, t);
    const auto spikes_rows = packed.wanted() ? packed.rows() : rows_of(args.spikes, block, t);
    const auto trace_rows = rows_of(args.trace, block, t);
    const auto before_rows = rows_of(args.trace_before, block, t);
    for (int64_t i = 0, size; i < n; i += size) {
      size = strip_of<S>(i, n);
      tile.x = x.rows(x_rows, tile.steps, i, size);
      tile.spikes = spikes.rows(spikes_rows, i, size);
      tile.trace = trace.rows(trace_rows, i, size);
      tile.trace_before = trace_before.rows(before_rows, i, size);
      groups(args.neuron, tile, rows.from(i), size);
      spikes.finish(tile.steps, size);
      trace.finish(tile.steps, size);
      trace_before.finish(tile.steps, size);
    }
    packed.write(block, t, tile.steps);
    until_checkpoint -= tile.steps;
    const int64_t end = t + tile.steps;
    if (tile.in_bits && (end % kStepsOfWord == 0 || end == steps)) {
      copy_row(args.bits + t / kStepsOfWord * neurons(args.extent) + block.neuron, rows.words, n);
    }
  }
  for (const Series<T>& series : {args.spikes, args.trace, args.trace_before}) {
    zero_rest(series, args.extent, block);
  }
  packed.zero_rest(args.extent, block);
  if (tile.timed) {
    copy_row(args.first + block.neuron, rows.first, n);
  }
  if (tile.counting) {
    write_counts(args, block, rows.count);
  }
  if (tile.peaked) {
    copy_row(args.trace_max + block.neuron, rows.highest, n);
  }
  if (args.peak != nullptr) {
    copy_row(args.peak + block.neuron, rows.peak, n);
  }
  if (tile.averaged) {
    divide_row(args.trace_mean + block.neuron, rows.sum_v, rate_divisor<S>(block), n);
  }
  for (int state = 0; state < kStates; ++state) {
    if (args.final_state[state] != nullptr) {
      copy_row(args.final_state[state] + block.neuron, rows.state[state], n);
    }
  }
}

}  // namespace
}  // namespace lif::cpu::LIF_SIMD
