"""Which options and parameters go together: what needs another, and what excludes it."""

from __future__ import annotations

from torch import Tensor

from ._options import CallOptions, check_each
from ._parameters import Parameters, check_together
from .surrogate import Rectangle


def check_options(options: CallOptions) -> CallOptions:
    """The options as they are kept, or raise unless each is of the right kind and they go together."""
    checked = check_each(options)
    if checked.save == "bits":
        _check_bits(checked)
    if checked.delay_reset:
        if checked.reset == "none":
            raise ValueError("delay_reset needs a reset to delay: reset must be 'subtract' or 'zero'")
        if not checked.detach_reset:
            raise ValueError(
                "delay_reset passes no gradient through the reset, as in snnTorch: say so with "
                "detach_reset=True"
            )
        if checked.refractory:
            raise ValueError(f"refractory must be 0 with delay_reset, got {checked.refractory}")
    return checked


def _check_bits(options: CallOptions) -> None:
    """Raise unless two bits a step hold all that backward has to know."""
    keeps = (
        "save='bits' keeps whether a neuron fired and whether its membrane was inside the surrogate's window"
    )
    if options.surrogate.code != Rectangle.code:
        raise ValueError(
            f"{keeps}: surrogate must be a Rectangle or a StraightThrough, got {options.surrogate!r}; use "
            "save='input'"
        )
    if options.reset == "zero" and not options.detach_reset:
        raise ValueError(
            f"{keeps}: reset='zero' needs the membrane itself in backward; set detach_reset=True, or use "
            "save='input'"
        )
    if options.delay_reset:
        raise ValueError(f"{keeps}: delay_reset must be False, got True; use save='input'")
    if options.refractory:
        raise ValueError(f"{keeps}: refractory must be 0, got {options.refractory}; use save='input'")


def check_with_parameters(options: CallOptions, parameters: Parameters) -> None:
    """Raise unless options and parameters that need each other, or exclude each other, agree."""
    check_together(parameters)
    if parameters.v_reset is None:
        raise TypeError(
            "v_reset must be a number or a tensor, got None; what that is in SpikingJelly is "
            "reset='subtract', the default, without v_reset"
        )
    if options.delay_reset and parameters.kappa is not None:
        raise ValueError("kappa must be None with delay_reset: an adaptive threshold resets at once")
    if options.save == "bits":
        if parameters.v_min is not None:
            raise ValueError(
                "v_min must be None with save='bits', which does not keep where the floor held; use "
                "save='input'"
            )
        for name in ("alpha", "kappa"):
            if getattr(parameters, name) is not None:
                raise ValueError(
                    f"{name} must be None with save='bits', which keeps nothing of a neuron's further state; "
                    "use save='input'"
                )
    if options.reset != "zero" and not _is_number(parameters.v_reset, 0.0):
        raise ValueError(f"v_reset is used by reset='zero' only, and reset is {options.reset!r}")
    if options.decay_input and not _is_number(parameters.gain, 1.0):
        raise ValueError("gain must stay 1 with decay_input, which makes it 1 - beta")


def _is_number(value: object, number: float) -> bool:
    return not isinstance(value, Tensor) and value == number


def check_learned(options: CallOptions, learned: tuple[str, ...]) -> None:
    """Raise where a layer is to learn what these options leave nothing to learn from."""
    if "v_reset" in learned and options.reset != "zero":
        raise ValueError(f"learn_v_reset needs reset='zero', and reset is {options.reset!r}")
    for name in ("beta", "gain"):
        if name in learned and options.save == "bits":
            raise ValueError(
                f"learn_{name} must be False with save='bits', which keeps neither x nor the membrane; use "
                "save='input'"
            )
    if "gain" in learned and options.decay_input:
        raise ValueError("learn_gain must be False with decay_input, which makes the gain 1 - beta")


def check_unlearned(options: CallOptions, parameters: Parameters) -> None:
    """Raise where a floor is to learn, or another parameter from what ``save="bits"`` does not keep."""
    floor = parameters.v_min
    if isinstance(floor, Tensor) and floor.requires_grad:
        raise ValueError(
            "v_min must not require a gradient, because a floor is not learned; pass v_min.detach()"
        )
    for name in ("beta", "gain"):
        value = getattr(parameters, name)
        if options.save == "bits" and isinstance(value, Tensor) and value.requires_grad:
            raise ValueError(
                f"{name} must not require a gradient with save='bits', which keeps neither x nor the "
                "membrane; detach it, or use save='input'"
            )
