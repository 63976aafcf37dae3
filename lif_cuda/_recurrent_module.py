"""What the fused and the reference layer of recurrent neurons share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Unpack

from torch import Tensor, nn

from . import _check
from ._module import LIFModule
from ._options import CallOptions, RecurrentOptions
from ._parameters import Parameters
from ._recurrent import NUMBERS, check_recurrent
from ._settled import Settled
from ._state import RecurrentState

_STATES = RecurrentState._fields


class RecurrentModule(LIFModule):
    """Base of :class:`lif_cuda.RecurrentLIF` (fused) and :class:`lif_cuda.ReferenceRecurrentLIF`.

    Each neuron hears, one step later, of the spikes of all of them: see
    :func:`lif_cuda.functional.recurrent_lif` for the equations. The weights are those of ``recurrent``, an
    ``nn.Linear(num_neurons, num_neurons)``, so that the state_dict has the keys of snnTorch's ``RLeaky``.

    Args:
        num_neurons: neurons of the layer, the last axis of x.
        beta, threshold: as for :class:`lif_cuda.LIF`; one value, or one for each neuron.
        bias: whether ``recurrent`` has one.
        options: of the options of :class:`lif_cuda.LIF`, by keyword, ``time_dim``, ``output`` (``"spikes"``,
            ``"count"``, ``"rate"``, ``"trace"``), ``reset`` (``"subtract"``, ``"zero"``), ``v_reset``,
            ``detach_reset``, ``strict``, ``gain``, ``surrogate``, ``return_state``, ``learn_beta``,
            ``learn_threshold``, ``tau``, ``dt``, ``decay``, ``bound``, ``threshold_bound``, ``stateful``,
            ``detach_state``, ``save_state``, ``device`` and ``dtype``.

    Raises:
        TypeError, ValueError: an option is not what is described above; the message names it.
    """

    _run_recurrent: ClassVar[Callable[..., Any]]
    _state_type = RecurrentState

    def __init__(
        self,
        num_neurons: int,
        beta: float | Tensor | None = None,
        threshold: float | Tensor = 1.0,
        *,
        bias: bool = True,
        **options: Unpack[RecurrentOptions],
    ) -> None:
        neurons = _check.check_int("num_neurons", num_neurons, 1)
        _check.check_flag("bias", bias)
        super().__init__(neurons, beta, threshold, **options)
        for name in self.learned:
            if name not in ("beta", "threshold"):
                raise ValueError(f"learn_{name} must be False for recurrent neurons, got True; leave it out")
        self.recurrent = nn.Linear(
            neurons, neurons, bias, device=options.get("device"), dtype=options.get("dtype")
        )

    def _settle(self, options: CallOptions, numbers: Parameters | None = None) -> None:
        check_recurrent(options, self._numbers_or_stand_ins() if numbers is None else numbers)
        for name in NUMBERS:
            if Parameters._fields.index(name) in self._tensors:
                raise TypeError(f"{name} must be a number for recurrent neurons, got a tensor")
        super()._settle(options, numbers)

    def _states(self) -> tuple[str, ...]:
        return _STATES

    def _lif(
        self,
        x: Tensor,
        parameters: Parameters,
        state: Any,
        options: CallOptions,
        settled: Settled,
        lengths: None,
    ) -> Any:
        """T time steps, with the weights as they are now; no call of this layer gives lengths."""
        weight, bias = self.recurrent.weight, self.recurrent.bias
        return type(self)._run_recurrent(x, weight, bias, parameters, state, options, settled)

    def forward(self, x: Tensor, state: RecurrentState | None = None) -> Any:  # type: ignore[override]
        """Run T time steps.

        Args:
            x: input current, [T, batch..., num_neurons] with its time axis at ``time_dim``.
            state: before the first step, as a call returns it; None: zeros. A stateful layer takes none.

        Returns:
            ``(out, state)``, the state ready for the next call; ``out`` alone if ``return_state`` is False.

        Raises:
            TypeError, ValueError: an argument has the wrong type, dtype, device or shape.
        """
        return self._run(x, state, self._settled, None)  # type: ignore[arg-type]

    def step(  # type: ignore[override]
        self, current: Tensor, state: RecurrentState | None = None
    ) -> tuple[Tensor, RecurrentState]:
        """Run one time step, for loops that own the time axis.

        Args:
            current: input of this step, [batch..., num_neurons].
            state: before the step; None: zeros. A stateful layer takes none.

        Returns:
            ``(spikes, state)``; the spikes are of the shape of ``current``.

        Raises:
            TypeError, ValueError: as for :meth:`forward`.
        """
        if not isinstance(current, Tensor):
            raise TypeError(f"current must be a torch.Tensor, got {_check.type_name(current)}")
        one = self._settled.but(time_dim=0, output="spikes", return_state=True)
        spikes, after = self._run(current.unsqueeze(0), state, one, None)  # type: ignore[arg-type]
        return spikes.squeeze(0), after
