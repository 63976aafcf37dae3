// Loads ahead of their use: what hides the latency of memory, some 0.65 us, behind the steps before.
#pragma once

#include "cuda/access.cuh"

namespace lif::cuda {

// Steps whose loads are in flight: 64 bytes a thread, or 32 of 16 bits. With 512 threads a multiprocessor
// that is 16 to 32 KiB, where 4.8 TB/s * 0.65 us / 132 multiprocessors asks for 24. Narrow accesses take more
// steps.
template <typename T, int W>
constexpr int kAhead = sizeof(T) * W >= 8 ? 4 : 8;

// A series in one direction of time, for W neurons: pointers advance, and nothing is multiplied.
template <typename T, int W>
struct Stream {
  const T* at;
  int64_t stride;
};

// One that may be absent: then what is in flight stays 0, and the stride is 0.
template <typename T, int W>
struct OptionalStream {
  const T* at;
  int64_t stride;
  bool present;
};

template <typename T, int W>
LIF_FN void next(Raw<T, W>& value, Stream<T, W>& from) {
  value = load_raw<W>(from.at);
  from.at += from.stride;
}

template <typename T, int W>
LIF_FN void next(Raw<T, W>& value, OptionalStream<T, W>& from) {
  if (from.present) {
    value = load_raw<W>(from.at);
  }
  from.at += from.stride;
}

// The values of the next steps, on their way.
template <typename T, int W, int kSteps = kAhead<T, W>>
struct InFlight {
  Raw<T, W> at[kSteps];
};

template <typename T, int W, int kSteps, typename From>
LIF_FN void fill(InFlight<T, W, kSteps>& flight, From& from, int steps) {
#pragma unroll
  for (int j = 0; j < kSteps; ++j) {
    flight.at[j] = Raw<T, W>{};
    if (j < steps) {
      next(flight.at[j], from);
    }
  }
}

// Groups of steps after which nothing is to be done.
constexpr int kNever = 0x7fffffff;

// body(value, at_end) for each of `steps` steps, the first of which are in flight. Whole groups of kSteps
// come without tests; at_end is a type that says whether the step may be among the last. A register is loaded
// anew once its value has been used: the other way round the compiler copies it first, an instruction a
// neuron-step. After `due` groups, and before the step that follows, due = between() is called: a loop of its
// own around the groups, since a test in each costs 2 instructions a neuron-step.
template <typename T, int W, int kSteps, typename From, typename Between, typename Body>
LIF_FN void with_loads_ahead(InFlight<T, W, kSteps>& flight, From& from, int steps, int due,
                             const Between& between, const Body& body) {
  int groups = steps >= 2 * kSteps ? steps / kSteps - 1 : 0;
  int left = steps - groups * kSteps;
#pragma unroll 1
  while (groups > 0) {
    due = due == 0 ? between() : due;
    int run = groups < due ? groups : due;
    groups -= run;
    due -= run;
#pragma unroll 1
    for (; run > 0; --run) {
#pragma unroll
      for (int j = 0; j < kSteps; ++j) {
        body(flight.at[j], std::false_type());
        next(flight.at[j], from);
      }
    }
  }
#pragma unroll 1
  for (; left > 0; left -= kSteps) {
    due = due == 0 ? between() : due;
    --due;
#pragma unroll
    for (int j = 0; j < kSteps; ++j) {
      if (j >= left) {
        break;
      }
      body(flight.at[j], std::true_type());
      if (left - j > kSteps) {
        next(flight.at[j], from);
      }
    }
  }
}

template <typename T, int W, int kSteps, typename From, typename Body>
LIF_FN void with_loads_ahead(InFlight<T, W, kSteps>& flight, From& from, int steps, const Body& body) {
  with_loads_ahead(flight, from, steps, kNever, [] { return kNever; }, body);
}

}  // namespace lif::cuda
