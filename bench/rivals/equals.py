"""Neurons of other libraries, and the layers of lif_cuda that give the same spikes and gradients.

``EQUALS`` is the one table of them: the tests hold each row against the real library, ``docs/migrating.md``
prints it, and the benchmarks time the two sides of a row beside each other.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from torch import nn

import lif_cuda

# The libraries, by the name of each as a package; and what the expressions of the tables use of it.
PACKAGES = {"snnTorch": "snntorch", "SpikingJelly": "spikingjelly", "Norse": "norse", "sinabs": "sinabs"}
_NAMES = {
    "snnTorch": {"snn": "snntorch", "surrogate": "snntorch.surrogate"},
    "SpikingJelly": {
        "neuron": "spikingjelly.activation_based.neuron",
        "surrogate": "spikingjelly.activation_based.surrogate",
    },
    "Norse": {
        "norse": "norse.torch",
        "reset": "norse.torch.functional.reset",
        "threshold": "norse.torch.functional.threshold",
    },
    "sinabs": {"layers": "sinabs.layers", "activation": "sinabs.activation"},
}


@dataclass(frozen=True)
class Equal:
    """A neuron of a library, and the layer of lif_cuda that equals it.

    Attributes:
        library: a key of ``PACKAGES``.
        theirs: the expression that makes it there.
        ours: the expression that makes it here.
        scale: what an input of ``drawn`` is multiplied by, so that a tenth of the neurons or so fire.
        exact: both round alike, so that all spikes are the same; else one may differ where the membrane lies
            at the threshold.
        learned: parameters that the neuron learns: its name there, its name here, and by what the gradient
            here is multiplied to give the gradient there.
    """

    library: str
    theirs: str
    ours: str
    scale: float = 1.0
    exact: bool = False
    learned: Mapping[str, tuple[str, float]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.library} {self.theirs}"

    def their_neuron(self) -> nn.Module:
        """The neuron of the library.

        Raises:
            ImportError: the library, or one that it needs, is not installed.
        """
        made: nn.Module = evaluated(self.library, self.theirs)
        return made

    def our_layer(self, **options: Any) -> lif_cuda.LIF:
        """The layer of lif_cuda; ``options`` are added to those of the row."""
        layers = {
            layer.__name__: functools.partial(layer, **options)
            for layer in (lif_cuda.LIF, lif_cuda.IF, lif_cuda.CurrentLIF, lif_cuda.LI)
        }
        made: lif_cuda.LIF = eval(self.ours, {**layers, "surrogate": lif_cuda.surrogate})
        return made


@dataclass(frozen=True)
class Unequal:
    """A neuron of a library that no layer equals.

    Attributes:
        nearest: the expression of the layer that comes nearest.
        why: what differs.
        scale: of an input for which the spikes differ.
    """

    library: str
    theirs: str
    nearest: str
    why: str
    scale: float = 1.0

    def __str__(self) -> str:
        return f"{self.library} {self.theirs}"


def evaluated(library: str, expression: str) -> Any:
    """What an expression of the table makes in its library.

    Raises:
        ImportError: the library, or one that it needs, is not installed.
    """
    names = {"torch": "torch", **_NAMES[library]}
    return eval(expression, {name: importlib.import_module(module) for name, module in names.items()})


# What all neurons of snnTorch have by default, but for their resets.
_SNN = "strict=True, delay_reset=True, detach_reset=True, surrogate=surrogate.ATan()"
# What snnTorch calls alpha and beta, learned: clamped to [0, 1], with gradients of their own.
_CLAMPED = 'bound="clamp", learn_threshold=True'
_JELLY = 'tau=2.0, dt=1.0, decay="euler", decay_input=True, reset="zero", surrogate=surrogate.Sigmoid(4.0)'
_NORSE = 'decay_input=True, reset="zero", strict=True, surrogate=surrogate.SuperSpike(1.0)'
_SINABS = "surrogate=surrogate.PiecewiseExp(2.0, scale=2.0)"
_TAU_10 = 'tau=10.0, dt=1.0, decay="exp"'


def _logit_of_tau(tau: float) -> float:
    """The derivative of the logit of ``exp(-1 / tau)`` by tau."""
    return 1 / (tau**2 * -math.expm1(-1 / tau))


EQUALS = (
    Equal("snnTorch", "snn.Leaky(beta=0.9)", f"LIF(beta=0.9, {_SNN})", exact=True),
    Equal(
        "snnTorch",
        'snn.Leaky(beta=0.9, reset_mechanism="zero")',
        f'LIF(beta=0.9, reset="zero", {_SNN})',
        exact=True,
    ),
    Equal(
        "snnTorch",
        'snn.Leaky(beta=0.9, reset_mechanism="none")',
        'LIF(beta=0.9, reset="none", strict=True, surrogate=surrogate.ATan())',
        scale=0.7,
        exact=True,
    ),
    Equal(
        "snnTorch",
        "snn.Leaky(beta=0.9, learn_beta=True, learn_threshold=True)",
        f"LIF(beta=0.9, learn_beta=True, {_CLAMPED}, {_SNN})",
        exact=True,
        learned={"beta": ("beta_values", 1.0), "threshold": ("threshold_values", 1.0)},
    ),
    Equal(
        "snnTorch",
        "snn.Leaky(beta=0.9, spike_grad=surrogate.fast_sigmoid(10))",
        "LIF(beta=0.9, strict=True, delay_reset=True, detach_reset=True, "
        "surrogate=surrogate.FastSigmoid(10.0))",
        exact=True,
    ),
    Equal(
        "snnTorch",
        "snn.Synaptic(alpha=0.8, beta=0.9)",
        f"CurrentLIF(alpha=0.8, beta=0.9, {_SNN})",
        scale=0.5,
        exact=True,
    ),
    Equal(
        "snnTorch",
        "snn.Synaptic(alpha=0.8, beta=0.9, learn_alpha=True, learn_beta=True, learn_threshold=True)",
        f"CurrentLIF(alpha=0.8, beta=0.9, learn_alpha=True, learn_beta=True, {_CLAMPED}, {_SNN})",
        scale=0.5,
        exact=True,
        learned={
            "alpha": ("alpha_values", 1.0),
            "beta": ("beta_values", 1.0),
            "threshold": ("threshold_values", 1.0),
        },
    ),
    Equal(
        "snnTorch",
        "snn.Leaky(beta=0.9, reset_delay=False)",
        "LIF(beta=0.9, strict=True, surrogate=surrogate.ATan())",
        scale=0.4,
        exact=True,
    ),
    Equal(
        "snnTorch",
        'snn.Leaky(beta=0.9, reset_mechanism="zero", reset_delay=False)',
        'LIF(beta=0.9, reset="zero", strict=True, surrogate=surrogate.ATan())',
        scale=0.4,
        exact=True,
    ),
    # Its decay is 1 - 1 / (R * C), not beta: with R = 1 its C is -1 / log(beta).
    Equal(
        "snnTorch",
        "snn.Lapicque(beta=0.9)",
        f'LIF(tau={-1 / math.log(0.9)}, dt=1.0, decay="euler", decay_input=True, {_SNN})',
        scale=10.0,
    ),
    Equal(
        "snnTorch",
        "snn.Lapicque(R=2.0, C=4.0)",
        f'LIF(tau=8.0, dt=1.0, decay="euler", gain=0.25, {_SNN})',
        scale=4.0,
        exact=True,
    ),
    Equal("SpikingJelly", "neuron.LIFNode()", f"LIF({_JELLY})", scale=3.0),
    Equal("SpikingJelly", 'neuron.LIFNode(step_mode="m")', f"LIF({_JELLY})", scale=3.0),
    Equal(
        "SpikingJelly",
        "neuron.IFNode()",
        'IF(reset="zero", surrogate=surrogate.Sigmoid(4.0))',
        exact=True,
    ),
    Equal(
        "SpikingJelly",
        'neuron.IFNode(step_mode="m")',
        'IF(reset="zero", surrogate=surrogate.Sigmoid(4.0))',
        exact=True,
    ),
    Equal(
        "SpikingJelly",
        "neuron.ParametricLIFNode()",
        f"LIF({_JELLY}, learn_beta=True)",
        scale=3.0,
        learned={"w": ("beta_logit", -1.0)},
    ),
    Equal(
        "SpikingJelly",
        'neuron.ParametricLIFNode(step_mode="m")',
        f"LIF({_JELLY}, learn_beta=True)",
        scale=3.0,
        learned={"w": ("beta_logit", -1.0)},
    ),
    Equal(
        "SpikingJelly",
        "neuron.LIFNode(v_reset=None, detach_reset=True, surrogate_function=surrogate.ATan())",
        'LIF(tau=2.0, dt=1.0, decay="euler", decay_input=True, detach_reset=True, '
        "surrogate=surrogate.ATan())",
        scale=3.0,
    ),
    Equal(
        "SpikingJelly",
        "neuron.LIFNode(tau=10.0, decay_input=False, v_reset=None, "
        'surrogate_function=surrogate.SoftSign(20.0), step_mode="m")',
        'LIF(tau=10.0, dt=1.0, decay="euler", surrogate=surrogate.SoftSign(20.0))',
    ),
    Equal("Norse", "norse.LIFBoxCell()", f"LIF(beta=0.9, {_NORSE})", scale=10.0),
    Equal("Norse", "norse.LIFCell()", f"CurrentLIF(alpha=0.8, beta=0.9, {_NORSE})", scale=4.0),
    Equal("Norse", "norse.LIF()", f"CurrentLIF(alpha=0.8, beta=0.9, {_NORSE})", scale=4.0),
    Equal(
        "Norse",
        "norse.LIFBoxCell(norse.LIFBoxParameters(tau_mem_inv=500.0))",
        f"LIF(beta=0.5, {_NORSE})",
        scale=3.0,
    ),
    Equal(
        "Norse",
        "norse.LIF(norse.LIFParameters(tau_syn_inv=250.0, tau_mem_inv=500.0))",
        f"CurrentLIF(alpha=0.75, beta=0.5, {_NORSE})",
        scale=1.5,
    ),
    Equal(
        "Norse",
        "norse.LIFBoxCell(norse.LIFBoxParameters(reset_method=reset.reset_subtract))",
        "LIF(beta=0.9, decay_input=True, strict=True, surrogate=surrogate.SuperSpike(1.0))",
        scale=10.0,
    ),
    Equal("Norse", "norse.LI()", "LI(alpha=0.8, beta=0.9, decay_input=True)"),
    Equal("Norse", "norse.LICell()", "LI(alpha=0.8, beta=0.9, decay_input=True)"),
    Equal(
        "sinabs",
        "layers.LIF(tau_mem=10.0)",
        f"LIF({_TAU_10}, learn_beta=True, decay_input=True, {_SINABS})",
        scale=4.5,
        learned={"tau_mem": ("beta_logit", _logit_of_tau(10.0))},
    ),
    Equal(
        "sinabs",
        "layers.LIF(tau_mem=10.0, train_alphas=True)",
        f'LIF({_TAU_10}, learn_beta=True, bound="clamp", decay_input=True, {_SINABS})',
        scale=4.5,
        learned={"alpha_mem": ("beta_values", 1.0)},
    ),
    Equal(
        "sinabs",
        "layers.LIF(tau_mem=10.0, norm_input=False, spike_fn=activation.SingleSpike)",
        f"LIF({_TAU_10}, learn_beta=True, {_SINABS})",
        learned={"tau_mem": ("beta_logit", _logit_of_tau(10.0))},
    ),
    Equal(
        "sinabs",
        "layers.LIF(tau_mem=10.0, min_v_mem=-0.2, norm_input=False, spike_fn=activation.SingleSpike)",
        f"LIF({_TAU_10}, v_min=-0.2, learn_beta=True, {_SINABS})",
        learned={"tau_mem": ("beta_logit", _logit_of_tau(10.0))},
    ),
    Equal(
        "sinabs",
        "layers.IAF(min_v_mem=-0.25, spike_fn=activation.SingleSpike)",
        f"IF(v_min=-0.25, {_SINABS})",
        scale=0.4,
    ),
    Equal("sinabs", "layers.IAF()", f"IF({_SINABS})", scale=0.4, exact=True),
    Equal(
        "sinabs",
        "layers.IAF(spike_fn=activation.SingleSpike, reset_fn=activation.MembraneReset())",
        f'IF(reset="zero", detach_reset=True, {_SINABS})',
        exact=True,
    ),
    Equal(
        "sinabs",
        "layers.ExpLeak(tau_mem=10.0)",
        f"LI({_TAU_10}, learn_beta=True)",
        learned={"tau_mem": ("beta_logit", _logit_of_tau(10.0))},
    ),
)


def by_name(theirs: str) -> Equal:
    """The row of this expression of a library."""
    return next(equal for equal in EQUALS if equal.theirs == theirs)


def version(library: str) -> str | None:
    """The installed version of a library; None where there is none."""
    try:
        return metadata.version(PACKAGES[library])
    except metadata.PackageNotFoundError:
        return None


# Neurons that no layer equals, the nearest layer, and why.
UNEQUALS = (
    Unequal(
        "snnTorch",
        'snn.Synaptic(alpha=0.8, beta=0.9, reset_mechanism="zero")',
        f'CurrentLIF(alpha=0.8, beta=0.9, reset="zero", {_SNN})',
        "the step after a spike loses its input: the membrane is 0 after it has been added",
        scale=0.5,
    ),
    Unequal(
        "snnTorch",
        'snn.Lapicque(beta=0.9, reset_mechanism="zero")',
        f'LIF(tau={-1 / math.log(0.9)}, dt=1.0, decay="euler", decay_input=True, reset="zero", {_SNN})',
        "the step after a spike loses its input: the membrane is 0 after it has been added",
        scale=10.0,
    ),
    Unequal(
        "snnTorch",
        "snn.Leaky(beta=0.9, reset_delay=False)",
        "LIF(beta=0.9, strict=True, surrogate=surrogate.ATan())",
        "a membrane above twice its threshold is reset once more at the next step; equal below that",
        scale=3.0,
    ),
    Unequal(
        "sinabs",
        "layers.LIF(tau_mem=10.0)",
        f"LIF({_TAU_10}, learn_beta=True, decay_input=True, {_SINABS})",
        "MultiSpike, its default, fires as often in a step as the threshold fits into the membrane; equal "
        "below twice the threshold, and always with spike_fn=SingleSpike",
        scale=30.0,
    ),
)
