// Which neuron of the family: what step() and step_back() ask of a `kind`.
//
// A Member answers when the kernels are compiled, so that the compiler leaves out what it has not; AnyMember
// answers at run time. Both are spelled alike: kind.reset, kind.delayed and so on.
#pragma once

#include "neuron/params.h"
#include "neuron/step.h"

namespace lif {

// What a member has beside its membrane, and whether its reset is detached.
struct Has {
  enum : unsigned { nothing = 0, detached = 1, delayed = 2, synapse = 4, adaptive = 8, refractory = 16 };
};

template <Reset kReset, unsigned kHas>
struct Fixed {
  static constexpr Reset reset = kReset;
  static constexpr bool delayed = kHas & Has::delayed;
  static constexpr bool synapse = kHas & Has::synapse;
  static constexpr bool adaptive = kHas & Has::adaptive;
  static constexpr bool refractory = kHas & Has::refractory;
  static constexpr bool rested = false;
  static constexpr bool floored = false;
  static constexpr bool plain = (kHas & ~unsigned{Has::detached}) == 0;
};

// A strict comparison is one with the next number above the threshold (Values::level), and costs nothing.
template <Reset kReset, unsigned kHas = Has::nothing, typename = void>
struct Member : Fixed<kReset, kHas> {
  static constexpr bool detached = kHas & Has::detached;
  static constexpr bool strict = false;
};

// Where more than a membrane moves, one choice a step between a reset that is detached and one that is not is
// not worth a kernel of its own; nor is, where the threshold moves, one between two comparisons.
template <Reset kReset, unsigned kHas>
struct Member<kReset, kHas, std::enable_if_t<(kHas & (Has::synapse | Has::refractory)) != 0>>
    : Fixed<kReset, kHas> {
  static constexpr bool strict = false;
  bool detached;
};

template <Reset kReset, unsigned kHas>
struct Member<kReset, kHas, std::enable_if_t<(kHas & Has::adaptive) != 0>> : Fixed<kReset, kHas> {
  bool detached, strict;
};

// Any neuron of the family.
struct AnyMember {
  Reset reset;
  bool delayed, synapse, adaptive, refractory, rested, floored, detached, strict;
};

template <typename Kind, typename S>
LIF_FN Kind kind_of(const Neuron<S>& neuron) {
  if constexpr (std::is_same_v<Kind, AnyMember>) {
    return {neuron.reset,        neuron.delayed, neuron.synapse,      neuron.adaptive, neuron.refractory > 0,
            neuron.rest != S(0), neuron.floored, neuron.detach_reset, neuron.strict};
  } else if constexpr (Kind::adaptive) {
    return {{}, neuron.detach_reset, neuron.strict};
  } else if constexpr (Kind::synapse || Kind::refractory) {
    return {{}, neuron.detach_reset};
  } else {
    return {};
  }
}

template <typename... Kinds>
struct Members {};

// The members that have kernels of their own: this list, for both backends. Any other neuron of the family
// runs in a general kernel, as right and slower.
using PlainMembers = Members<Member<Reset::subtract>, Member<Reset::subtract, Has::detached>,
                             Member<Reset::zero>, Member<Reset::zero, Has::detached>, Member<Reset::none>>;
using RelativeMembers =
    Members<Member<Reset::subtract, Has::delayed>, Member<Reset::zero, Has::delayed>,
            Member<Reset::subtract, Has::synapse>, Member<Reset::zero, Has::synapse>,
            Member<Reset::subtract, Has::adaptive>, Member<Reset::zero, Has::adaptive>,
            Member<Reset::subtract, Has::refractory>, Member<Reset::zero, Has::refractory>>;

template <typename First, typename Second>
struct Joined;
template <typename... First, typename... Second>
struct Joined<Members<First...>, Members<Second...>> {
  using type = Members<First..., Second...>;
};
using CompiledMembers = Joined<PlainMembers, RelativeMembers>::type;

template <typename Kind, typename S>
bool is(const Neuron<S>& neuron) {
  bool same = Kind::reset == neuron.reset && Kind::delayed == neuron.delayed &&
              Kind::synapse == neuron.synapse && Kind::adaptive == neuron.adaptive &&
              Kind::refractory == (neuron.refractory > 0) && neuron.rest == S(0) && !neuron.floored;
  if constexpr (Kind::plain && Kind::reset != Reset::none) {
    same = same && Kind::detached == neuron.detach_reset;
  }
  return same;
}

// What a function is called with to say which kind.
template <typename Kind>
struct KindTag {
  using type = Kind;
};

// run(KindTag<Kind>()) with the first of the members that the neuron is, else with AnyMember.
template <typename S, typename Run>
auto with_member(Members<>, const Neuron<S>&, const Run& run) {
  return run(KindTag<AnyMember>());
}

template <typename Kind, typename... Others, typename S, typename Run>
auto with_member(Members<Kind, Others...>, const Neuron<S>& neuron, const Run& run) {
  return is<Kind>(neuron) ? run(KindTag<Kind>()) : with_member(Members<Others...>(), neuron, run);
}

// The member as forward knows it, where it is all the same whether the reset is detached.
template <typename Kind>
struct Forwards {
  using type = Kind;
};
template <Reset kReset, unsigned kHas>
struct Forwards<Member<kReset, kHas>> {
  using type = Member<kReset, kHas & ~unsigned{Has::detached}>;
};

}  // namespace lif
