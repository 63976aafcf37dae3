"""What a state_dict has of a layer: a checkpoint of another neuron never fires otherwise in silence."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from family import flat, series
from torch import Tensor, nn

from lif_cuda import IF, LIF, AdaptiveLIF, CurrentLIF, ReferenceLIF, _saved
from lif_cuda._module import LIFModule
from lif_cuda.models import SNNClassifier
from lif_cuda.surrogate import ATan

CLASSES = [LIF, ReferenceLIF]
NEURONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "numbers": {"beta": 0.3, "threshold": 0.7, "gain": 1.5, "rest": 0.1},
    "zero": {"beta": 1 / 3, "reset": "zero", "v_reset": -0.2, "decay_input": True, "strict": True},
    "delayed": {"delay_reset": True, "detach_reset": True, "strict": True},
    "relatives": {"alpha": 0.7, "kappa": 0.3, "rho": 0.9, "refractory": 3},
    "floor": {"v_min": -0.4},
    "floors": {"v_min": torch.linspace(-0.5, 0.1, 7)},
    "tensors": {"beta": torch.full((7,), 0.6), "threshold": 0.4, "learn_threshold": True},
}


def through_a_file(saved: dict[str, Any]) -> dict[str, Any]:
    """As ``torch.load`` gives it back, with ``weights_only``."""
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def other_numbers(options: dict[str, Any]) -> dict[str, Any]:
    """The same kind of neuron with other numbers."""
    others = {"beta": 0.5, "threshold": 2.0, "alpha": 0.1, "kappa": 0.9, "rho": 0.2, "v_min": 0.3}
    changed = {name: others[name] for name in others if isinstance(options.get(name), float)}
    return options | changed | {"rest": 0.0} | ({"refractory": 1} if "refractory" in options else {})


@pytest.mark.parametrize("target", CLASSES)
@pytest.mark.parametrize("source", CLASSES)
@pytest.mark.parametrize("options", NEURONS.values(), ids=NEURONS)
def test_loading_takes_the_numbers_over(
    source: type[LIFModule], target: type[LIFModule], options: dict[str, Any]
) -> None:
    layer = source(7, **options)
    other = target(7, **other_numbers(options))
    x = series(9, 2, 7) * 2
    other(x)
    saved = through_a_file(nn.Sequential(layer).state_dict())
    assert nn.Sequential(other).load_state_dict(saved).missing_keys == []
    for mine, expected in zip(flat(other(x)), flat(layer(x)), strict=True):
        assert torch.equal(mine, expected)
    assert repr(other).removeprefix("Reference") == repr(layer).removeprefix("Reference")
    assert list(other.state_dict()) == list(layer.state_dict())


@pytest.mark.parametrize("cls", CLASSES)
def test_the_numbers_are_one_tensor_that_equals_itself(cls: type[LIFModule]) -> None:
    """So that a tool that compares, copies or averages tensors finds nothing else."""
    saved = cls(7, beta=1 / 3, learn_threshold=True, alpha=0.25).state_dict()
    numbers = saved["_extra_state"]
    assert numbers.dtype == torch.float64 and numbers.device.type == "cpu"
    expected = [1 / 3, math.inf, 0.0, 1.0, 0.25, *(math.inf,) * 3, *(0.0,) * 6]
    assert numbers.tolist() == expected and len(_saved.FIELDS) == len(expected)
    assert torch.equal(numbers, cls(7, beta=1 / 3, learn_threshold=True, alpha=0.25).get_extra_state())
    with torch.device("meta"):
        assert cls(7).state_dict()["_extra_state"].device.type == "cpu"


@pytest.mark.parametrize("cls", CLASSES)
def test_checkpoints_without_numbers_still_load(cls: type[LIFModule]) -> None:
    net = nn.Sequential(nn.Linear(7, 7), cls(7, beta=0.4), cls(7, learn_beta=True))
    old = {name: value for name, value in net.state_dict().items() if "_extra_state" not in name}
    result = net.load_state_dict(old)
    assert not result.missing_keys and not result.unexpected_keys
    assert net[1].beta == 0.4
    assert set(cls(7).state_dict()) == {"_extra_state"}
    cls(7).load_state_dict({})


MISMATCHES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    (
        "reset",
        {"reset": "zero"},
        {},
        "saved by a neuron with reset='zero', and this one has reset='subtract'",
    ),
    (
        "strict",
        {},
        {"strict": True},
        "strict=False, and this one has strict=True; make the layer with strict=False",
    ),
    ("delay", {"delay_reset": True, "detach_reset": True}, {}, "delay_reset=True"),
    ("decay_input", {"decay_input": True}, {}, "decay_input=True"),
    (
        "alpha here",
        {},
        {"alpha": 0.5},
        "saved by a neuron without a number for alpha, and this one has alpha=0.5",
    ),
    ("alpha there", {"alpha": 0.5}, {}, "saved by a neuron with alpha=0.5, and this one has none"),
    ("kappa there", {"kappa": 0.5, "rho": 0.1}, {}, "kappa=0.5"),
    ("floor here", {}, {"v_min": -1.0}, "without a number for v_min, and this one has v_min=-1"),
    ("floor there", {"v_min": -1.0}, {}, "saved by a neuron with v_min=-1, and this one has none"),
]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    ("theirs", "mine", "message"), [c[1:] for c in MISMATCHES], ids=[c[0] for c in MISMATCHES]
)
def test_another_kind_of_neuron_is_refused(
    cls: type[LIFModule], theirs: dict[str, Any], mine: dict[str, Any], message: str, strict: bool
) -> None:
    net, other = nn.Sequential(cls(7, beta=0.2, **theirs)), nn.Sequential(cls(7, **mine))
    before = repr(other)
    with pytest.raises(RuntimeError, match=f"0: .*{message}"):
        other.load_state_dict(net.state_dict(), strict=strict)
    assert repr(other) == before


def test_parameters_that_are_tensors_on_one_side_only() -> None:
    """Have keys of their own, which load_state_dict reports."""
    number, learned = LIF(7, beta=0.3), LIF(7, learn_beta=True)
    with pytest.raises(RuntimeError, match=r"Missing key.*beta_logit"):
        learned.load_state_dict(number.state_dict())
    with pytest.raises(RuntimeError, match=r"Unexpected key.*beta_logit"):
        number.load_state_dict(learned.state_dict())
    assert number.beta == 0.3


@pytest.mark.parametrize(
    "wrong", [torch.zeros(3), [0.9], None, torch.full((14,), math.nan), torch.full((14,), -1.0)], ids=str
)
def test_what_is_no_set_of_numbers(wrong: Any) -> None:
    layer = LIF(7)
    with pytest.raises(RuntimeError, match="LIF: "):
        layer.load_state_dict({"_extra_state": wrong})
    assert layer.beta == 0.9


def test_options_that_do_not_fire_are_left_alone() -> None:
    """A surrogate, a readout, a time axis are of the run that loads."""
    saved = LIF(7, beta=0.3, surrogate=ATan(), output="count").state_dict()
    layer = LIF(7, time_dim=1, detach_reset=True)
    layer.load_state_dict(saved)
    assert layer.beta == 0.3 and layer.output == "spikes" and layer.detach_reset and layer.time_dim == 1


def test_the_numbers_go_with_a_network() -> None:
    model, other = SNNClassifier(6, 5, 4, threshold=0.5), SNNClassifier(6, 5, 4)
    other.load_state_dict(through_a_file(model.state_dict()))
    x = series(3, 6)
    assert other.lif1.threshold == 0.5 and torch.equal(model(x), other(x))
    assert torch.equal(torch.func.functional_call(other, model.state_dict(), (x,)), model(x))
    averaged = torch.optim.swa_utils.AveragedModel(model)
    averaged.load_state_dict(torch.optim.swa_utils.AveragedModel(other).state_dict())
    for cls in (IF, CurrentLIF, AdaptiveLIF):
        twin = cls(7)
        twin.load_state_dict(cls(7, threshold=0.25).state_dict())
        assert twin.threshold == 0.25 and isinstance(twin(series(4, 2, 7))[0], Tensor)
