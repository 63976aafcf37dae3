"""What the main loops of the CUDA kernels may cost: instructions a neuron-step in the machine code of sm_90.

At 4 TB/s an H200 gives a multiprocessor 16 bytes a cycle: an fp32 backward pass, 12 bytes, has time for 95
instructions of a lane a neuron-step, one of 16 bits for 47. Half of that is the aim.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from _sass import short_names
from _sass_budget import Step

# A type: its bytes, those of its state.
TYPES = {"float": (4, 4), "double": (8, 8), "Half": (2, 4), "BFloat16": (2, 4)}
# By their numbers: Has of csrc/neuron/member.h, Slopes of csrc/cuda/column.cuh, Flow of wide_forward.cuh.
HAS = {1: "detached", 2: "delayed", 4: "synapse", 8: "adaptive", 16: "refractory"}
SLOPES = ("pass", "fast_sigmoid", "atan")
FLOWS = ("series", "any")

_KERNEL = re.compile(
    r"(?P<tier>\w+?)_(?P<way>forward|backward)_kernel<(?P<type>\w+)"
    r"(?:, (?P<reset>subtract|zero|none)(?P<has>(?: \w+)*))?(?P<rest>(?:, \w+)*)>"
)

_WORDS = re.compile(r"(?P<way>pack|unpack)_kernel<(?P<type>\w+), (?P<neurons>\d)>")


def kernel_names(mangled: Iterable[str]) -> dict[str, str]:
    """Each kernel as a reader would name it: `wide_forward_kernel<float, zero adaptive, 4, series>`."""
    return {name: _readable(short) for name, short in short_names(mangled).items()}


def _readable(short: str) -> str:
    def member(match: re.Match[str]) -> str:
        has = [word for bit, word in HAS.items() if int(match[2]) & bit]
        return " ".join([match[1], *has])

    name = re.sub(r"Member<(\w+), (\d+)u, void>", member, short)
    name = re.sub(r"Slopes (\d)", lambda match: SLOPES[int(match[1])], name)
    return re.sub(r"Flow (\d)", lambda match: FLOWS[int(match[1])], name)


@dataclass(frozen=True)
class Kernel:
    """What the name of a kernel says of it."""

    tier: str
    way: str
    type: str
    reset: str = ""
    has: tuple[str, ...] = ()
    neurons: int = 1  # of a thread
    learn: bool = False
    slopes: str = "pass"
    flow: str = "series"

    @property
    def relative(self) -> bool:
        """Whether it has more than a membrane, or resets on the way into the next step."""
        return bool({*self.has} - {"detached"})

    @property
    def step(self) -> Step:
        """What a thread stores for a time step (Kept of csrc/cuda/column.cuh says the rows)."""
        bytes_of_x, of_state = TYPES[self.type]
        ahead = 4 if self.neurons * bytes_of_x >= 8 or ("refractory" in self.has and self.learn) else 8
        return Step(self.neurons, bytes_of_x, self.rows, of_state, ahead)

    @property
    def rows(self) -> int:
        """Rows that recomputing keeps of a step: u, and the states that the way back reads."""
        current = "synapse" in self.has and self.learn
        return 1 + current + ("adaptive" in self.has) + ("refractory" in self.has)


def kernel_of(name: str) -> Kernel:
    """The kernel of this short name (kernel_names)."""
    if name.startswith("sum_kernel<"):  # of no neuron: partial gradients, in double
        return Kernel("sum", "backward", "double", "", ())
    if words := _WORDS.fullmatch(name):
        way = "forward" if words["way"] == "pack" else "backward"
        return Kernel("words", way, words["type"], neurons=int(words["neurons"]))
    match = _KERNEL.fullmatch(name)
    assert match, f"{name} is no kernel that this test knows; teach it the new template arguments"
    rest = match["rest"].split(", ")[1:]
    has = tuple((match["has"] or "").split())
    found = vars(Kernel(match["tier"], match["way"], match["type"], match["reset"] or "", has)).copy()
    back = match["way"] == "backward"
    if match["tier"] == "recurrent":
        del rest[:2]  # the type of the weight, and whether it lies in shared memory
    if match["tier"] in ("wide", "bits"):
        found["neurons"] = int(rest.pop(0))
    if match["tier"] in ("wide", "long") and back:
        found["learn"] = rest.pop(0) == "true"
    if match["tier"] == "wide":
        found["slopes"] = rest.pop(0) if back else "pass"
        found["flow"] = rest.pop(0)
    assert not rest, name
    return Kernel(**found)


def is_counted(kernel: Kernel) -> bool:
    """Whether its loops stand in the report: the wide tier, in the types that networks train in."""
    return kernel.tier in ("wide", "bits") and kernel.neurons > 1 and kernel.type != "double"


def budget_of(name: str) -> dict[str, float]:
    """Of the parts of a kernel (_sass_budget.PARTS), the most that they may take.

    Of the common neuron the lean kernels, with a surrogate of no exponential: what each issue was to reach.
    The relatives twice that. A surrogate with an exponential has the polynomial of exponential.h.
    """
    kernel = kernel_of(name)
    narrow = kernel.type in ("Half", "BFloat16")
    if kernel.tier == "bits":
        return {}
    if kernel.way == "forward":
        lean = 11 if narrow else 10
        return {"forward": 2 * lean if kernel.relative or kernel.flow != "series" else lean}
    way_back = 46 if kernel.learn else 38 if narrow else 36
    if kernel.relative or kernel.flow != "series":
        return {"recompute": 18, "way back": 2 * way_back, "plain": 45, "division": 60, "table": 30}
    budget: dict[str, float] = {"recompute": 9, "way back": way_back}
    return budget | ({"plain": 40, "division": 55, "table": 28} if kernel.slopes == "pass" else {})
