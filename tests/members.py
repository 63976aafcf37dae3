"""The members of the family that have kernels of their own (csrc/neuron/member.h), as options of a call."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from family import STATE_OF, Case
from torch import Tensor

from lif_cuda.surrogate import FastSigmoid, Surrogate


class Member(NamedTuple):
    """A member: its options, the parameters that it has beside beta and the threshold, and its states."""

    options: dict[str, Any]
    parameters: tuple[str, ...] = ()
    states: tuple[str, ...] = ("membrane",)

    @property
    def plain(self) -> bool:
        """Whether it has a membrane and nothing else."""
        return self.states == ("membrane",) and not self.options.get("delay_reset")

    def __str__(self) -> str:
        words = [str(self.options["reset"])]
        words += ["detached"] if self.options.get("detach_reset") else []
        words += ["delayed"] if self.options.get("delay_reset") else []
        words += ["refractory"] if "refractory" in self.options else []
        return "-".join([*words, *self.parameters])


def _members() -> list[Member]:
    members = [Member({"reset": "none"})]
    for reset in ("subtract", "zero"):
        members.append(Member({"reset": reset, "delay_reset": True, "detach_reset": True}))
        for detach in (False, True):
            options = {"reset": reset, "detach_reset": detach}
            members += [
                Member(options),
                Member(options, ("alpha",), ("membrane", "current")),
                Member(options, ("kappa", "rho"), ("membrane", "adaptation")),
                Member(options | {"refractory": 2}, (), ("membrane", "silence")),
            ]
    return members


MEMBERS = _members()
PLAIN = [member for member in MEMBERS if member.plain]
STEEP = FastSigmoid(7.0, scale=0.7)
LOW_AND_HIGH = {
    "beta": (0.5, 0.99),
    "threshold": (0.6, 1.4),
    "alpha": (0.2, 0.9),
    "kappa": (0.1, 0.5),
    "rho": (0.5, 0.9),
}


def call_of(
    member: Member,
    steps: int,
    features: tuple[int, ...],
    dtype: torch.dtype,
    *,
    learn: bool = True,
    constant: bool = False,
    output: str | tuple[str, ...] = "spikes",
    surrogate: Surrogate = STEEP,
    strict: bool = False,
    gain: float = 0.75,
    seed: int = 0,
    loud: float = 1.0,
) -> Case:
    """A call of a member at which about one neuron in ten fires; its parameters are numbers, or learn."""
    generator = torch.Generator().manual_seed(seed)
    state_dtype = STATE_OF[dtype]

    def uniform(low: float, high: float) -> Tensor:
        drawn = torch.rand(features, generator=generator, dtype=torch.float64)
        return (low + (high - low) * drawn).to(state_dtype)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator, dtype=torch.float64)

    parameters: dict[str, float | Tensor] = {}
    for name in ("beta", "threshold", *member.parameters):
        low, high = LOW_AND_HIGH[name]
        parameters[name] = uniform(low, high) if learn else (low + 2 * high) / 3
    parameters["gain"] = gain
    if member.options["reset"] == "zero":
        parameters["v_reset"] = -0.2
    states = {name: normal(*features).to(state_dtype) for name in member.states}
    if "silence" in states:
        states["silence"] = states["silence"].abs().round().clamp(max=2)
    x = (0.5 * normal(*(features if constant else (steps, *features))) + 0.2) * loud
    options = member.options | {"surrogate": surrogate, "strict": strict, "output": output, "time_dim": 0}
    if constant:
        options["steps"] = steps
    outputs = (output,) if isinstance(output, str) else output
    return Case(x.to(dtype), parameters, states, member.states, options, outputs, seed=seed)
