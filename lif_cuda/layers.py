"""The fused layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, Unpack, cast

from torch import Tensor

from . import _recurrent_run, functional
from ._module import LIFModule
from ._options import (
    FIRING,
    INTEGRATOR_LAYER,
    AdaptiveOptions,
    CurrentOptions,
    IntegratorLayerOptions,
    LayerOptions,
    check_integrator,
)
from ._outputs import Readout, check_readout
from ._recurrent_module import RecurrentModule
from ._signature import integrator_constructor, layer_constructor


def _refuse_script(layer: object) -> NoReturn:
    raise NotImplementedError(
        f"torch.jit.script reads Python, and not that of {type(layer).__name__}; use torch.export.export, "
        "or torch.jit.trace"
    )


class LIF(LIFModule):
    __doc__ = (LIFModule.__doc__ or "").replace(
        "Base of :class:`lif_cuda.LIF` (fused) and :class:`lif_cuda.ReferenceLIF` (plain PyTorch).",
        "Leaky integrate-and-fire neurons: all T time steps in one launch forward and one backward.",
    )

    _lif = staticmethod(functional.run_neuron)

    def __prepare_scriptable__(self) -> NoReturn:
        _refuse_script(self)


class LI(LIF):
    """Leaky integrators, which never fire: the readout that most networks end in.

    ``v[t] = beta * v[t-1] + gain * x[t]``, and of v over time what ``output`` says, in one launch. It is
    :class:`LIF` with ``reset="none"``, the output ``trace``, ``trace_last``, ``trace_max`` or ``trace_mean``,
    and the same state_dict.

    Args:
        num_neurons, beta: as for :class:`LIF`.
        output: ``"trace"``, ``"last"``, ``"max"`` or ``"mean"``: see :func:`lif_cuda.functional.li`.
        options: ``steps``, ``time_dim``, ``channel_dim``, ``gain``, ``decay_input``, ``rest``, ``alpha``,
            ``v_min``, ``return_state``, ``learn_beta``, ``learn_gain``, ``learn_alpha``, ``tau``, ``dt``,
            ``decay``, ``bound``, ``stateful``, ``detach_state``, ``save_state``, ``device`` and ``dtype`` of
            :class:`LIF`, by keyword.
    """

    _of_step = "trace"
    _given = FIRING

    @integrator_constructor
    def __init__(
        self,
        num_neurons: int | Sequence[int] | None = None,
        beta: float | Tensor | None = None,
        *,
        output: Readout = "trace",
        **options: Unpack[IntegratorLayerOptions],
    ) -> None:
        check_readout("output", output)
        check_integrator("LI", options, INTEGRATOR_LAYER)
        asked: Any = {"output": functional.READOUTS[output], "reset": "none", "surrogate": functional.SILENT}
        super().__init__(num_neurons, beta, 1.0, **options, **asked)

    @property
    def output(self) -> Readout:
        """What of v over time the layer returns."""
        (name,) = (name for name, of in functional.READOUTS.items() if of == self.options.output)
        return cast(Readout, name)

    def _set_option(self, name: str, value: Any) -> None:
        if name == "output":
            value = functional.READOUTS[check_readout(name, value)]
        super()._set_option(name, value)


class IF(LIF):
    """Integrate-and-fire neurons, without a leak: :class:`LIF` with ``beta=1``.

    Args:
        num_neurons, threshold: as for :class:`LIF`.
        options: the other options of :class:`LIF`, by keyword.
    """

    @layer_constructor
    def __init__(
        self,
        num_neurons: int | Sequence[int] | None = None,
        threshold: float | Tensor = 1.0,
        **options: Unpack[LayerOptions],
    ) -> None:
        for name in ("beta", "tau"):
            if name in options:
                raise TypeError(
                    f"IF has no leak, and so no {name}: its beta is 1; for one with a leak use LIF"
                )
        super().__init__(num_neurons, 1.0, threshold, **options)


class CurrentLIF(LIF):
    """Current-based neurons: a decaying synaptic current comes before the membrane.

    ``i[t] = alpha * i[t-1] + x[t]`` takes the place of ``x[t]``. snnTorch's Synaptic and the LIF of Norse are
    of this kind, with the options that ``docs/migrating.md`` gives. The state is a
    :class:`lif_cuda.NeuronState` with ``membrane`` and ``current``.

    Args:
        num_neurons, beta, threshold: as for :class:`LIF`.
        alpha: decay of the current a step, in [0, 1]; ``learn_alpha`` makes it a parameter.
        options: the other options of :class:`LIF`, by keyword.
    """

    @layer_constructor
    def __init__(
        self,
        num_neurons: int | Sequence[int] | None = None,
        alpha: float | Tensor = 0.8,
        beta: float | Tensor | None = None,
        threshold: float | Tensor = 1.0,
        **options: Unpack[CurrentOptions],
    ) -> None:
        super().__init__(num_neurons, beta, threshold, alpha=alpha, **options)


class AdaptiveLIF(LIF):
    """Neurons whose threshold rises with each spike and decays again.

    ``threshold + kappa * b[t-1]`` takes the place of the threshold, with ``b[t] = rho * b[t-1] + s[t]``
    (Bellec et al., "Long short-term memory and learning-to-learn in networks of spiking neurons", NeurIPS
    2018). The state is a :class:`lif_cuda.NeuronState` with ``membrane`` and ``adaptation``.

    Args:
        num_neurons, beta, threshold: as for :class:`LIF`.
        kappa: what a spike adds to the threshold. rho: decay of that a step, in [0, 1]. ``learn_kappa`` and
            ``learn_rho`` make them parameters.
        options: the other options of :class:`LIF`, by keyword.
    """

    @layer_constructor
    def __init__(
        self,
        num_neurons: int | Sequence[int] | None = None,
        beta: float | Tensor | None = None,
        threshold: float | Tensor = 1.0,
        kappa: float | Tensor = 0.2,
        rho: float | Tensor = 0.95,
        **options: Unpack[AdaptiveOptions],
    ) -> None:
        super().__init__(num_neurons, beta, threshold, kappa=kappa, rho=rho, **options)


class RecurrentLIF(RecurrentModule):
    __doc__ = (RecurrentModule.__doc__ or "").replace(
        "Base of :class:`lif_cuda.RecurrentLIF` (fused) and :class:`lif_cuda.ReferenceRecurrentLIF`.",
        "Neurons whose spikes feed back into all of them: all T time steps in one launch.",
    )

    _run_recurrent = staticmethod(_recurrent_run.run_recurrent)

    def __prepare_scriptable__(self) -> NoReturn:
        _refuse_script(self)
