"""The options of a layer: set on it, they take effect or raise; and what a layer keeps of its arguments."""

from __future__ import annotations

import copy
import inspect
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from family import series
from torch import Tensor, nn

from lif_cuda import IF, LIF, AdaptiveLIF, CurrentLIF, NeuronState, ReferenceLIF, functional, reference
from lif_cuda import surrogate as shapes
from lif_cuda._module import LIFModule
from lif_cuda._options import CallOptions, LayerChoices, LayerOptions
from lif_cuda._parameters import Parameters

CLASSES = [LIF, ReferenceLIF]


def results(layer: LIFModule) -> list[Tensor]:
    """What a layer gives, and the gradient of x."""
    x = series(6, 2, 7).requires_grad_()
    out = layer(x)
    out = out[0] if isinstance(out, tuple) else out
    (grad,) = torch.autograd.grad((out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum(), x)
    return [out, grad]


SETTINGS: dict[str, Any] = {
    "surrogate": shapes.ATan(3.0),
    "output": "count",
    "reset": "zero",
    "detach_reset": True,
    "strict": True,
    "decay_input": True,
    "rest": 0.2,
    "refractory": 2,
    "time_dim": 1,
    "return_state": False,
    "channel_dim": 2,
    "beta": 0.4,
    "threshold": 0.3,
    "gain": 0.7,
    "v_min": -0.2,
}


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_set_takes_effect(cls: type[LIFModule], name: str) -> None:
    """As if the layer had been made with it; also after the layer has been called, and copied."""
    value = SETTINGS[name]
    made = cls(**{name: value})
    layer = cls(v_min=-1.0) if name == "v_min" else cls()
    layer(series(6, 2, 7))
    layer = copy.deepcopy(layer)
    setattr(layer, name, value)
    assert getattr(layer, name) == value
    for mine, expected in zip(results(layer), results(made), strict=True):
        assert torch.equal(mine, expected)
    assert repr(layer) == repr(made)


def test_annealing_a_surrogate() -> None:
    layer = LIF(7, learn_beta=True)
    for k in (1.0, 5.0, 25.0):
        layer.surrogate = shapes.FastSigmoid(k)
        made = LIF(7, learn_beta=True, surrogate=shapes.FastSigmoid(k))
        assert torch.equal(results(layer)[1], results(made)[1])


@pytest.mark.parametrize("cls", CLASSES)
def test_steps_and_delay_are_set(cls: type[LIFModule]) -> None:
    layer = cls(detach_reset=True)
    layer.delay_reset = True
    x = series(2, 7)
    layer.steps = 4
    assert torch.equal(layer(x)[0], cls(detach_reset=True, delay_reset=True, steps=4)(x)[0])
    layer.steps = None
    assert layer(series(3, 2, 7))[0].shape == (3, 2, 7)


def test_stateful_is_set() -> None:
    layer, made = LIF(7, return_state=False), LIF(7, stateful=True, return_state=False)
    x = series(4, 2, 7)
    for _ in range(2):
        layer.stateful = True  # also where it is
        assert torch.equal(layer(x), made(x))
    layer.refractory = made.refractory = 2  # goes on from the membrane, and from no silence
    assert torch.equal(layer(x), made(x)) and isinstance(layer.state, NeuronState)
    layer.refractory = 0
    layer(x)
    assert isinstance(layer.state, Tensor)
    layer.stateful = False
    assert layer.state is None and torch.equal(layer(x), LIF(7, return_state=False)(x))


WRONG: list[tuple[str, dict[str, Any], str, Any, type[Exception], str]] = [
    ("reset", {}, "reset", "hard", ValueError, "reset must be one of"),
    (
        "reset of v_reset",
        {"reset": "zero", "v_reset": 0.1},
        "reset",
        "subtract",
        ValueError,
        "v_reset is used by",
    ),
    (
        "learned v_reset",
        {"reset": "zero", "learn_v_reset": True},
        "reset",
        "none",
        ValueError,
        "v_reset is used by",
    ),
    ("output", {}, "output", ["count"], TypeError, r"tuple of names.*write \('count',\)"),
    ("surrogate", {}, "surrogate", 10.0, TypeError, "surrogate must be an object of lif_cuda.surrogate"),
    ("steps", {}, "steps", 2.0, TypeError, "steps must be an int or None"),
    ("delay", {}, "delay_reset", True, ValueError, "detach_reset=True"),
    ("save", {}, "save", "bits", ValueError, "Rectangle"),
    (
        "save of learned",
        {"learn_beta": True, "surrogate": shapes.Rectangle()},
        "save",
        "bits",
        ValueError,
        "learn_beta",
    ),
    ("flag", {}, "strict", 1, TypeError, "strict must be True or False"),
    ("stateful", {}, "stateful", None, TypeError, "stateful must be True or False"),
    ("options", {}, "options", CallOptions(), AttributeError, "options"),
    (
        "neurons",
        {},
        "num_neurons",
        3,
        AttributeError,
        "num_neurons cannot be set.*make a layer with num_neurons=3",
    ),
    ("bound", {}, "bound", "clamp", AttributeError, "bound cannot be set"),
    ("learn", {}, "learn_beta", True, AttributeError, "learn_beta cannot be set.*learn_beta=True"),
    ("tau", {}, "tau", 2.0, AttributeError, "tau cannot be set"),
    ("dtype", {}, "dtype", torch.float64, AttributeError, r"dtype cannot be set.*call \.to\(\)"),
    ("beta", {}, "beta", 1.5, ValueError, r"beta must be a finite number in \[0, 1\]"),
    ("beta tensor", {}, "beta", torch.tensor(0.5), TypeError, "beta is a number of this layer, got a tensor"),
    ("learned", {"learn_beta": True}, "beta", 0.5, AttributeError, "in place.*beta_logit"),
    (
        "learned log",
        {"learn_threshold": True, "threshold_bound": "exp"},
        "threshold",
        0.5,
        AttributeError,
        "_log",
    ),
    ("buffer", {"threshold": torch.ones(7)}, "threshold", 0.5, AttributeError, "threshold_values"),
    ("no alpha", {}, "alpha", 0.5, AttributeError, "alpha cannot be set: the neuron has none"),
    ("gain", {"decay_input": True}, "gain", 0.5, ValueError, "gain must stay 1"),
]


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    ("options", "name", "value", "error", "message"), [c[1:] for c in WRONG], ids=[c[0] for c in WRONG]
)
def test_what_cannot_be_set_raises(
    cls: type[LIFModule], options: dict[str, Any], name: str, value: Any, error: type[Exception], message: str
) -> None:
    layer, made = cls(7, **options), cls(7, **options)
    with pytest.raises(error, match=message):
        setattr(layer, name, value)
    assert repr(layer) == repr(made)
    for mine, expected in zip(results(layer), results(made), strict=True):
        assert torch.equal(mine, expected)


def test_every_word_of_the_constructor_is_looked_after() -> None:
    """None reads back as set and does nothing."""
    words = set(inspect.signature(LIF).parameters)
    assert words == {"num_neurons", *Parameters._fields, *CallOptions._fields, *LayerChoices._fields}
    for word in words:
        with pytest.raises((AttributeError, TypeError, ValueError)):
            setattr(LIF(7), word, object())


def test_the_lists_of_options_are_one() -> None:
    """Keywords as type checkers know them, and the groups that hold them, with the same types."""
    keywords = get_type_hints(LayerOptions)
    held = get_type_hints(CallOptions) | get_type_hints(Parameters) | get_type_hints(LayerChoices)
    for place in ("beta", "threshold"):
        del held[place]
    assert keywords == held
    for function in (functional.lif, reference.lif):
        spelled = inspect.signature(function).parameters
        assert set(spelled) == {"x", "membrane", "lengths", *Parameters._fields, *CallOptions._fields}
    for cls in (LIF, ReferenceLIF, IF, CurrentLIF, AdaptiveLIF):
        own = {"num_neurons", *Parameters._fields, *CallOptions._fields, *LayerChoices._fields}
        assert set(inspect.signature(cls).parameters) == own - ({"beta"} if cls is IF else set()), cls


@pytest.mark.parametrize("function", [functional.lif, reference.lif])
def test_unknown_words(function: Any) -> None:
    with pytest.raises(TypeError, match=r"lif\(\) got an unexpected keyword argument 'thresold'"):
        function(series(5, 7), 0.9, thresold=1.0)
    with pytest.raises(TypeError, match=r"'surogate'; did you mean 'surrogate'\?"):
        function(series(5, 7), 0.9, surogate=None)
    with pytest.raises(
        TypeError, match=r"LIF\(\) got an unexpected keyword argument 'stateful_'.*'stateful'"
    ):
        LIF(7, stateful_=True)  # type: ignore[call-arg]


# num_neurons.

COUNTED: list[tuple[Any, dict[str, Any], tuple[int, ...], str | None]] = [
    (256, {}, (4, 2, 100), r"num_neurons of the layer, 256, got \(2, 100\)"),
    (16, {"channel_dim": 2}, (4, 2, 8, 3, 3), r"num_neurons = 16 channels .*got 8"),
    (16, {"channel_dim": 1, "time_dim": 1}, (4, 16, 3), "another axis than time_dim"),
    ((3, 5), {}, (4, 2, 5, 3), r"\(3, 5\), got \(2, 5, 3\)"),
    ((3, 5), {}, (4, 5), r"\(3, 5\), got \(5,\)"),
    (5, {"steps": 3}, (2, 6), r"5, got \(2, 6\)"),
    (100, {}, (4, 2, 100), None),
    (8, {"channel_dim": 2}, (4, 2, 8, 3, 3), None),
    (8, {"channel_dim": -3}, (4, 2, 8, 3, 3), None),
    ((3, 5), {}, (4, 2, 3, 5), None),
    ((3, 1), {}, (4, 2, 3, 5), None),
    (1, {}, (4, 2, 7), None),
    (None, {}, (4, 2, 7), None),
]


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("learn", [False, True], ids=["numbers", "learned"])
@pytest.mark.parametrize(("neurons", "options", "shape", "message"), COUNTED, ids=str)
def test_num_neurons_is_always_checked(
    cls: type[LIFModule],
    learn: bool,
    neurons: Any,
    options: dict[str, Any],
    shape: tuple[int, ...],
    message: str | None,
) -> None:
    layer = cls(neurons, learn_beta=learn, **options)
    if message is None:
        layer(series(*shape))
    else:
        with pytest.raises(ValueError, match=message):
            layer(series(*shape))


@pytest.mark.parametrize("cls", CLASSES)
def test_num_neurons_is_checked_for_a_step(cls: type[LIFModule]) -> None:
    layer = cls(7)
    layer.step(series(2, 7))
    with pytest.raises(ValueError, match=r"7, got \(2, 6\)"):
        layer.step(series(2, 6))


@pytest.mark.parametrize("cls", CLASSES)
def test_a_loop_that_passes_one_step_and_a_state_is_sent_to_step(cls: type[LIFModule]) -> None:
    """As snnTorch's loops do: ``spk, mem = lif(x_t, mem)``."""
    layer, x_t, mem = cls(), series(4, 7), torch.zeros(4, 7)
    with pytest.raises(ValueError, match=r"membrane must have the shape.*call layer\.step\(x, membrane\)"):
        layer(x_t, mem)
    layer.step(x_t, mem)


# Values that are given.

GRADED: list[tuple[str, dict[str, Any]]] = [
    ("beta", {}),
    ("threshold", {}),
    ("gain", {}),
    ("v_reset", {"reset": "zero"}),
    ("alpha", {}),
]


@pytest.mark.parametrize("cls", CLASSES)
def test_a_floor_that_learns_elsewhere_is_refused(cls: type[LIFModule]) -> None:
    with pytest.raises(ValueError, match=r"Pass v_min\.detach\(\): it is not learned"):
        cls(7, v_min=nn.Parameter(torch.zeros(7)))


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("learn", [False, True], ids=["constant", "learned"])
@pytest.mark.parametrize(("name", "options"), GRADED, ids=[c[0] for c in GRADED])
def test_a_tensor_that_learns_elsewhere_is_refused(
    cls: type[LIFModule], learn: bool, name: str, options: dict[str, Any]
) -> None:
    values = nn.Parameter(torch.full((7,), 0.5))
    options = options | {f"learn_{name}": learn}
    with pytest.raises(ValueError, match=rf"Pass {name}\.detach\(\), with learn_{name}=True"):
        cls(7, **options, **{name: values})
    assert cls(7, **options, **{name: values.detach()})(series(4, 2, 7))[0].shape == (4, 2, 7)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["beta", "alpha"])
def test_a_learned_decay_of_16_bits_is_not_rounded_to_1(
    cls: type[LIFModule], dtype: torch.dtype, name: str
) -> None:
    """0.999 has a logit in 16 bits, and no value in bfloat16."""
    options: dict[str, Any] = {f"learn_{name}": True, name: 0.999}
    for layer in (cls(7, **options, dtype=dtype), cls(7, **options).to(dtype)):
        decay = getattr(layer, name)
        assert decay.dtype == torch.float32 and (decay < 0.9993).all() and (decay > 0.9985).all()
        x = series(400, 7).to(dtype)
        out, _ = layer(x)
        expected = LIF(7, **{name: decay.detach()})(x)[0]
        assert torch.equal(out, expected)
        out.float().sum().backward()
        logit = getattr(layer, f"{name}_logit")
        assert logit.dtype == dtype and logit.grad.abs().sum() > 0


def test_a_clamp_is_taken_in_the_dtype_of_the_state() -> None:
    layer = LIF(7, beta=0.5, learn_beta=True, bound="clamp", dtype=torch.bfloat16)
    assert layer.beta.dtype == torch.float32
    assert LIF(7, beta=0.999, learn_beta=True, bound="clamp", dtype=torch.bfloat16).beta[0] == 1.0


@pytest.mark.parametrize("cls", CLASSES)
def test_a_learned_threshold_stays_above_zero(cls: type[LIFModule]) -> None:
    """Where nothing bounds it, the pull to fire more drives it below, and the neuron fires for ever."""
    x = series(20, 4, 7)
    fired = {}
    for bound in (None, "exp"):
        layer = cls(7, learn_threshold=True, threshold_bound=bound, return_state=False)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
        for _ in range(100):
            optimizer.zero_grad()
            (-layer(x).sum()).backward()
            optimizer.step()
        fired[bound] = (layer.threshold.min().item(), layer(torch.zeros_like(x)).mean().item())
    assert fired[None][0] < 0 and fired[None][1] == 1.0
    assert fired["exp"][0] > 0 and fired["exp"][1] == 0.0


def test_a_bounded_threshold_starts_where_it_was_set() -> None:
    for start in (1.0, 0.25):
        bounded = LIF(7, threshold=start, learn_threshold=True, threshold_bound="exp")
        free = LIF(7, threshold=start, learn_threshold=True)
        assert torch.equal(bounded.threshold, torch.full((7,), start))
        assert torch.equal(results(bounded)[1], results(free)[1])
    with pytest.raises(ValueError, match="threshold must be above 0 with threshold_bound='exp'"):
        LIF(7, threshold=0.0, learn_threshold=True, threshold_bound="exp")
    with pytest.raises(ValueError, match="threshold_bound must be one of 'exp'"):
        LIF(7, learn_threshold=True, threshold_bound="relu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="threshold_bound needs learn_threshold=True"):
        LIF(7, threshold_bound="exp")


SCALARS = [np.float64, np.float32, np.float16]


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("scalar", SCALARS)
def test_numpy_scalars_are_numbers(cls: type[LIFModule], scalar: Any) -> None:
    layer = cls(
        np.int64(7), beta=scalar(0.5), threshold=scalar(1.0), rest=scalar(0.25), refractory=np.int32(1)
    )
    assert type(layer.beta) is type(layer.threshold) is type(layer.rest) is float
    assert type(layer.refractory) is int and layer.num_neurons == (7,)
    made = cls(7, beta=0.5, rest=0.25, refractory=1)
    assert torch.equal(results(layer)[0], results(made)[0])
    learned = cls(7, beta=scalar(0.5), learn_beta=True)
    assert torch.equal(learned.beta, torch.full((7,), 0.5))
    tau = cls(tau=scalar(2.0), dt=np.int64(1), decay="euler")
    assert tau.beta == 0.5
    x = series(2, 7)
    function = functional.lif if cls is LIF else reference.lif
    for _ in range(2):  # planned, and known
        out, _ = function(x, scalar(0.5), scalar(1.0), steps=np.int64(3), time_dim=np.int8(0))
        assert torch.equal(out, function(x, 0.5, 1.0, steps=3)[0])
    assert torch.equal(cls()(x, steps=np.int64(3))[0], cls()(x, steps=3)[0])


@pytest.mark.parametrize("value", [np.zeros(3), np.array(0.5), np.bool_(True), "0.5", 1j])
def test_what_is_no_number(value: Any) -> None:
    with pytest.raises(TypeError, match="beta must be a number or a tensor, got "):
        LIF(7, beta=value)


def test_the_words_of_messages() -> None:
    with pytest.raises(TypeError, match=r"IF has no leak, and so no beta: its beta is 1; .* use LIF"):
        IF(4, beta=0.5)
    with pytest.raises(TypeError, match=r"IF has no leak, and so no tau"):
        IF(4, tau=2.0, dt=1.0, decay="exp")
    with pytest.raises(TypeError, match=r"output must be a name or a tuple.*write \('count', 'spikes'\)"):
        LIF(output=["count", "spikes"])  # type: ignore[arg-type]
    nested = torch.nested.nested_tensor([torch.zeros(3, 5), torch.zeros(2, 5)])
    jagged = torch.nested.nested_tensor([torch.zeros(3, 5), torch.zeros(2, 5)], layout=torch.jagged)
    for x in (nested, jagged):
        for call in (LIF(), ReferenceLIF(), lambda x: functional.lif(x, 0.9)):
            with pytest.raises(TypeError, match=r"x must be a dense tensor, got a nested tensor; pad it"):
                call(x)
