"""The layers as any other module of PyTorch: saved, moved, hooked, shared, run in threads and in workers."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from family import flat, series
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from lif_cuda import LIF, AdaptiveLIF, NeuronState, ReferenceLIF, functional, reference
from lif_cuda._module import LIFModule
from lif_cuda.surrogate import Custom

CLASSES = [LIF, ReferenceLIF]


def assert_equal(actual: Any, expected: Any) -> None:
    for mine, theirs in zip(flat(actual), flat(expected), strict=True):
        assert torch.equal(mine, theirs)


def learn(module: nn.Module, x: Tensor) -> list[Tensor]:
    """What a module gives, and the gradients of x and of its parameters."""
    x = x.detach().requires_grad_()
    out = flat(module(x))
    loss = sum((t.float() * torch.linspace(-1, 1, t.shape[-1])).sum() for t in out if t.requires_grad)
    return [*out, *torch.autograd.grad(loss, [x, *module.parameters()])]


# Copies and files.

SAVED: dict[str, Callable[[type[LIFModule]], LIFModule]] = {
    "learned": lambda cls: cls(7, learn_beta=True, learn_threshold=True),
    "clamped": lambda cls: cls(7, 0.9, learn_beta=True, bound="clamp", reset="zero", learn_v_reset=True),
    "all states": lambda cls: cls(7, alpha=0.7, kappa=0.2, rho=0.8, learn_rho=True, refractory=1),
    "buffers": lambda cls: cls(beta=torch.linspace(0.1, 0.9, 7), threshold=torch.linspace(0.5, 1, 7)),
    "stateful": lambda cls: cls(7, learn_beta=True, alpha=0.7, stateful=True, save_state=True),
    "table": lambda cls: cls(7, learn_gain=True, surrogate=Custom(lambda z: torch.exp(-4 * z * z))),
    "several outputs": lambda cls: cls(7, learn_beta=True, output=("rate", "trace"), return_state=False),
}


def through_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def through_a_file(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS = [copy.deepcopy, through_pickle, through_a_file]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SAVED)
def test_a_copy_goes_on_as_the_original(name: str, way: Callable[[Any], Any]) -> None:
    layer = SAVED[name](LIF)
    layer(series(5, 2, 7))  # into a state, if it keeps one
    other = way(layer)
    assert repr(other) == repr(layer)
    assert_equal(learn(other, series(9, 2, 7)), learn(layer, series(9, 2, 7)))
    # What one learns, the other does not.
    for parameter in layer.parameters():
        parameter.data.add_(1)
    for mine, theirs in zip(other.parameters(), layer.parameters(), strict=True):
        assert not torch.equal(mine, theirs)


@pytest.mark.parametrize("name", SAVED)
def test_fused_and_reference_read_each_others_state_dict(name: str) -> None:
    x = series(9, 2, 7)
    for source, target in (CLASSES, CLASSES[::-1]):
        first = SAVED[name](source)
        for parameter in first.parameters():
            parameter.data.mul_(0.9)
        first(series(5, 2, 7, seed=1))
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        file.seek(0)
        second = SAVED[name](target)
        assert not second.load_state_dict(torch.load(file, weights_only=True)).missing_keys
        assert_equal(second(x), first(x))


def test_built_without_memory_and_filled_from_a_file() -> None:
    layer = SAVED["stateful"](LIF)
    layer(series(5, 2, 7))
    with torch.device("meta"):
        empty = SAVED["stateful"](LIF)
    empty.load_state_dict(layer.state_dict(), assign=True)
    assert_equal(learn(empty, series(9, 2, 7)), learn(layer, series(9, 2, 7)))


def test_a_loaded_state_begins_anew() -> None:
    """Calls before it are none that a recomputation could go back to."""
    x = series(6, 2, 7).requires_grad_()
    layer, plain = (LIF(stateful=True, save_state=True, return_state=False) for _ in range(2))
    layer(x)
    saved = {name: value.clone() for name, value in layer.state_dict().items()}
    layer(x)
    for one in (layer, plain):
        one.load_state_dict(saved)
    (mine,) = torch.autograd.grad(checkpoint(layer, x, use_reentrant=False).square().sum(), x)
    (expected,) = torch.autograd.grad(plain(x).square().sum(), x)
    assert torch.equal(mine, expected)
    assert torch.equal(layer.state, plain.state)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("names", [("rate", "trace"), ("trace", "rate"), ("total",)])
@pytest.mark.parametrize("call", [functional.lif, reference.lif], ids=["fused", "reference"])
def test_results_can_be_stored(
    call: Callable[..., Any], names: tuple[str, ...], way: Callable[[Any], Any]
) -> None:
    out, state = call(series(9, 2, 7), 0.9, alpha=0.5, output=names)
    copied, copied_state = way((out, state))
    assert copied._fields == names and type(copied) is type(out)
    assert isinstance(copied_state, NeuronState) and copied_state.adaptation is None
    assert_equal((copied, copied_state), (out, state))


def test_averaged_models() -> None:
    model = nn.Sequential(nn.Linear(7, 7), LIF(7, learn_beta=True, return_state=False))
    averaged = torch.optim.swa_utils.AveragedModel(model)
    averaged.update_parameters(model)
    assert_equal(averaged(series(5, 2, 7)), model(series(5, 2, 7)))


# Types and memory formats.


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_a_network_in_use_changes_its_type(dtype: torch.dtype) -> None:
    """With the state that it keeps; and back."""
    layers = [cls(7, learn_beta=True, stateful=True, return_state=False) for cls in CLASSES]
    for layer in layers:
        layer(series(5, 2, 7))
        layer.to(dtype)
        assert layer.beta_logit.dtype == dtype
    x = series(9, 2, 7).to(dtype)
    first, second = (learn(layer, x) for layer in layers)
    assert first[0].dtype == first[1].dtype == dtype
    assert_equal(first[:2], second[:2])
    torch.testing.assert_close(first[2], second[2])
    assert_equal(*(layer.float()(series(3, 2, 7)) for layer in layers))


def test_a_convolutional_network_in_channels_last() -> None:
    class Net(nn.Module):
        def __init__(self, cls: type[LIFModule]) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 4, 3)
            self.lif = cls(4, channel_dim=2, learn_beta=True, learn_threshold=True, return_state=False)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.lif(self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
            return out

    x = series(5, 2, 3, 8, 8)
    images = x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (5, 2))
    fused, expected = (learn(Net(cls).to(memory_format=torch.channels_last), images) for cls in CLASSES)
    assert fused[0].flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert_equal(fused[:2], expected[:2])
    torch.testing.assert_close(fused[2:], expected[2:])


def test_parameters_and_states_in_channels_last() -> None:
    """Those with four axes move to the format with the layer."""
    layers = [cls((2, 3, 4), learn_beta=True, learn_gain=True, stateful=True) for cls in CLASSES]
    for layer in layers:
        layer.beta_logit.data.copy_(series(2, 3, 4))
        layer(series(5, 8, 2, 3, 4))
        layer.to(memory_format=torch.channels_last)
        assert not layer.state.is_contiguous()
    fused, expected = (learn(layer, series(9, 8, 2, 3, 4)) for layer in layers)
    assert_equal(fused[:3], expected[:3])
    torch.testing.assert_close(fused[3:], expected[3:])


# Hooks and parametrizations.


class Halved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 2


def test_a_parametrized_parameter() -> None:
    layers = [cls(7, threshold=2.0, learn_beta=True, learn_threshold=True) for cls in CLASSES]
    for layer in layers:
        parametrize.register_parametrization(layer, "threshold_values", Halved())
    fused, expected = (learn(layer, series(9, 2, 7)) for layer in layers)
    assert_equal(fused[0], learn(LIF(7, learn_beta=True, learn_threshold=True), series(9, 2, 7))[0])
    assert_equal(fused[:3], expected[:3])
    torch.testing.assert_close(fused[3:], expected[3:])
    parametrize.remove_parametrizations(layers[0], "threshold_values")
    assert_equal(layers[0](series(9, 2, 7)), fused[:2])


@pytest.mark.parametrize("cls", CLASSES)
def test_hooks_of_modules(cls: type[LIFModule]) -> None:
    layer = cls(7, learn_beta=True, output=("rate", "trace"), return_state=False)
    plain = learn(layer, series(9, 2, 7) * 2)
    seen: dict[str, Any] = {}
    handles = [
        layer.register_forward_pre_hook(lambda module, args: (args[0] * 2,)),
        layer.register_forward_hook(lambda module, args, out: seen.update(out=out)),
        layer.register_full_backward_pre_hook(lambda module, grad: seen.update(incoming=grad)),
        layer.register_full_backward_hook(lambda module, grad_in, grad_out: (grad_in[0] * 3,)),
    ]
    hooked = learn(layer, series(9, 2, 7))
    assert type(seen["out"]).__name__ == "Outputs" and len(seen["incoming"]) == 2
    assert_equal(hooked[:2], plain[:2])
    # Twice x from the first hook, three times its gradient from the last.
    assert torch.equal(hooked[2], plain[2] * 3 * 2)
    for handle in handles:
        handle.remove()
    assert_equal(learn(layer, series(9, 2, 7) * 2), plain)


def test_functional_call_with_gradients() -> None:
    layer = AdaptiveLIF(7, learn_beta=True, learn_kappa=True, return_state=False)
    own = learn(layer, series(9, 2, 7))
    given = {name: value.detach().clone().requires_grad_() for name, value in layer.named_parameters()}
    x = series(9, 2, 7).requires_grad_()
    out = torch.func.functional_call(layer, given, (x,))
    loss = (out * torch.linspace(-1, 1, 7)).sum()
    assert_equal([out, *torch.autograd.grad(loss, [x, *given.values()])], own)


# Workers, processes and threads. Each script has a time limit: what it could do wrong is to wait for ever.

SCRIPT = '''
"""Run in a process of its own, and by its own workers."""
import multiprocessing
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import torch
from torch.utils.data import DataLoader

from lif_cuda import LIF


def series(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 0.3


class Encoded(torch.utils.data.Dataset):
    def __init__(self):
        self.layer = LIF(beta=torch.linspace(0.5, 0.9, 5), output=("spikes", "rate"), return_state=False)

    def __len__(self):
        return 8

    def __getitem__(self, at):
        return self.layer(series(at, 9, 5))


def batch(samples):
    return LIF(1, return_state=True)(torch.stack([sample.spikes for sample in samples], 1)), samples


def flat(value):
    return [value] if isinstance(value, torch.Tensor) else [t for part in value for t in flat(part)]


def train(layer, x):
    x = x.clone().requires_grad_()
    out, state = layer(x)
    return [out, state, *torch.autograd.grad(out.square().sum() + state.sum(), [x, *layer.parameters()])]


def child(queue):
    # As PyTorch's own workers do: the threads of its OpenMP do not survive a fork, and any of its operators
    # would wait for them.
    torch.set_num_threads(1)
    queue.put([t.detach().tolist() for t in train(LIF(learn_beta=True), series(0, 25, 40, 50))])


def load(how):
    made = DataLoader(
        Encoded(), batch_size=2, num_workers=2, multiprocessing_context=how, collate_fn=batch, timeout=100
    )
    for mine, expected in zip(made, DataLoader(Encoded(), batch_size=2, collate_fn=batch), strict=True):
        assert all(map(torch.equal, flat(mine), flat(expected)))


def fork():
    torch.set_num_threads(2)
    # Enough for both threads, and as the child does it.
    expected = [t.detach().tolist() for t in train(LIF(learn_beta=True), series(0, 25, 40, 50))]
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    started = context.Process(target=child, args=(queue,), daemon=True)
    started.start()
    assert queue.get() == expected
    started.join(60)
    assert started.exitcode == 0


def first_calls(count):
    # Nothing has been called, cached or planned before.
    layers = [LIF(50, learn_beta=True, learn_threshold=True, threshold=1.0 + i % 2) for i in range(count)]
    start = threading.Barrier(len(layers))

    def run(at):
        start.wait()
        return train(layers[at], series(at, 25, 40, 50))

    with ThreadPoolExecutor(len(layers)) as pool:
        found = list(pool.map(run, range(len(layers))))
    for at, mine in enumerate(found):
        assert all(map(torch.equal, mine, train(layers[at], series(at, 25, 40, 50))))


if __name__ == "__main__":
    how, stored = sys.argv[1:]
    if how == "fork":
        assert torch.load(stored, weights_only=False)[0]._fields == ("rate", "trace")
        first_calls(8)
        fork()
    load(how)
    print("as expected")
'''


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_in_processes_and_threads_of_their_own(how: str, tmp_path: Path) -> None:
    script, stored = tmp_path / "script.py", tmp_path / "results"
    script.write_text(SCRIPT)
    torch.save(functional.lif(series(9, 2, 7), 0.9, output=("rate", "trace")), stored)
    done = subprocess.run(
        [sys.executable, script, how, stored], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout == "as expected\n", done.stdout + done.stderr


def test_one_layer_in_many_threads() -> None:
    layer = LIF(70, learn_beta=True, learn_threshold=True, surrogate=Custom(lambda z: torch.exp(-4 * z * z)))
    inputs = [series(25, 1 + seed % 3, 70, seed=seed) for seed in range(64)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda x: learn(layer, x), inputs))
    for x, mine in zip(inputs, found, strict=True):
        assert_equal(mine, learn(layer, x))


# The same bits each time.


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (25, 64, 1000)),
        ({"num_neurons": 1000}, (25, 64, 1000)),
        ({"num_neurons": 6, "channel_dim": 2}, (25, 16, 6, 14, 14)),
        ({"num_neurons": (8, 1)}, (25, 4, 8, 1000)),
    ],
    ids=["scalar", "per neuron", "per channel", "per row"],
)
def test_the_same_bits_each_time(options: dict[str, Any], shape: tuple[int, ...]) -> None:
    layer = LIF(**options, learn_beta=True, learn_threshold=True, learn_gain=True)
    before = torch.get_num_threads()
    found = []
    try:
        for threads, strictly in ((1, False), (2, False), (2, False), (3, False), (2, True), (1, True)):
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(strictly)
            found.append(learn(layer, series(*shape)))
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(False)
    for other in found[1:]:
        assert_equal(other, found[0])


def test_anomaly_detection() -> None:
    layer = LIF(7, learn_beta=True)
    plain = learn(layer, series(9, 2, 7))
    with torch.autograd.set_detect_anomaly(True):
        assert_equal(learn(layer, series(9, 2, 7)), plain)
        x = series(9, 2, 7).requires_grad_()
        spikes, _ = layer(x)
        with pytest.raises(RuntimeError, match="FusedLIF.*' returned nan"), pytest.warns(UserWarning):
            spikes.backward(torch.full_like(spikes, torch.nan))


@pytest.mark.parametrize("reentrant", [False, True], ids=["", "reentrant"])
def test_activation_checkpointing(reentrant: bool) -> None:
    torch.manual_seed(0)
    block = nn.Sequential(
        nn.Linear(7, 7), LIF(7, learn_beta=True, return_state=False), nn.Linear(7, 5), LIF(5)
    )

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: Tensor) -> Any:
            return checkpoint(self.block, x, use_reentrant=reentrant)

    found = []
    for module in (block, Checkpointed()):
        x = series(60, 2, 7).requires_grad_()
        module.zero_grad()
        spikes, state = module(x)
        (spikes.sum() + state.square().sum()).backward()
        found.append([spikes, state, x.grad, *(parameter.grad for parameter in module.parameters())])
    assert_equal(*found)


# Autograd.


def test_a_retained_graph_gives_its_gradients_again() -> None:
    layer = LIF(7, learn_beta=True, output=("spikes", "first_spike", "trace"))
    x = series(60, 2, 7).requires_grad_()
    out, state = layer(x)
    leaves = [x, layer.beta_logit]
    losses = [out.spikes.square().sum(), out.first_spike.sum(), (out.trace * state).sum()]
    once = [torch.autograd.grad(loss, leaves, retain_graph=True) for loss in losses]
    for loss, expected in zip(losses, once, strict=True):
        assert_equal(torch.autograd.grad(loss, leaves, retain_graph=True), expected)
    # A part of the outputs, and each on its own, against calls that ask for nothing else.
    for name, expected in (("spikes", once[0]), ("first_spike", once[1])):
        alone = functional.lif(x, layer.beta, output=name, return_state=False)
        loss = alone.square().sum() if name == "spikes" else alone.sum()
        assert_equal(torch.autograd.grad(loss, leaves), expected)
    sum(losses).backward()
    with pytest.raises(RuntimeError, match="second time"):
        losses[0].backward()


def test_gradients_add_up() -> None:
    layer = LIF(7, learn_beta=True, return_state=False)
    batches = [series(9, 2, 7, seed=seed) for seed in range(3)]
    for batch in batches:
        layer(batch).square().sum().backward()
    alone = [torch.autograd.grad(layer(batch).square().sum(), layer.beta_logit)[0] for batch in batches]
    assert torch.equal(layer.beta_logit.grad, alone[0] + alone[1] + alone[2])


def test_hooks_of_tensors() -> None:
    x = series(9, 2, 7).requires_grad_()
    (plain,) = torch.autograd.grad(functional.lif(x, 0.9)[0].sum(), x)
    seen = []
    out, _ = functional.lif(x, 0.9)
    out.register_hook(lambda grad: grad * 2)
    x.register_hook(seen.append)
    out.sum().backward()
    expected = torch.autograd.grad(reference.lif(x, 0.9)[0].sum() * 2, x)[0]
    assert torch.equal(x.grad, expected) and torch.equal(seen[0], expected)
    assert not torch.equal(expected, plain)
    with torch.autograd.graph.save_on_cpu():
        out, _ = functional.lif(x, 0.9)
    assert torch.equal(torch.autograd.grad(out.sum(), x)[0], plain)


@pytest.mark.parametrize("what", ["x", "beta", "first_spike"])
def test_what_backward_needs_must_not_change(what: str) -> None:
    x, beta = series(9, 2, 7), torch.full((7,), 0.9)
    weight = torch.ones((), requires_grad=True)
    x, beta = x * weight, beta * weight
    out, _ = functional.lif(x, beta, output=("spikes", "first_spike"))
    changed = {"x": x, "beta": beta, "first_spike": out.first_spike}[what]
    loss = (out.spikes + out.first_spike).sum()
    with torch.no_grad():
        changed.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_results_may_be_changed_in_place() -> None:
    """Backward needs none of the series, nor the state."""
    x = series(9, 2, 7).requires_grad_()
    grads = []
    for call in (functional.lif, reference.lif):
        out, state = call(x, 0.9)
        loss = (out * 3).sum() + state.clamp(0).sum()
        with torch.no_grad():
            out.mul_(0)
        grads.append(torch.autograd.grad(loss, x, retain_graph=True)[0])
    assert torch.equal(*grads)
    grads = []
    for call in (functional.lif, reference.lif):
        out, state = call(x, 0.9)
        out.mul_(2)
        state.add_(1)
        grads.append(torch.autograd.grad(out.sum() + state.square().sum(), x)[0])
    assert torch.equal(*grads)


def test_without_gradients() -> None:
    layer = LIF(7, learn_beta=True)
    x = series(9, 2, 7).requires_grad_()
    expected = layer(x)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = layer(x)
        assert not any(tensor.requires_grad for tensor in found)
        assert found[0].is_inference() is (mode is torch.inference_mode)
        assert_equal(found, expected)
    # As any function that saves its input for backward.
    with torch.inference_mode():
        inferred = x * 1
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        layer(inferred)


@pytest.mark.parametrize("options", [{}, {"alpha": 0.5, "refractory": 1}], ids=["plain", "several states"])
@pytest.mark.parametrize("cls", CLASSES)
def test_a_state_of_an_inference_is_trained_from(cls: type[LIFModule], options: dict[str, Any]) -> None:
    layer, plain = (cls(7, learn_beta=True, stateful=True, **options) for _ in range(2))
    with torch.inference_mode():
        layer(series(5, 2, 7))
        layer(series(5, 2, 7))
    with torch.no_grad():
        plain(series(5, 2, 7))
        plain(series(5, 2, 7))
    assert_equal(learn(layer, series(9, 2, 7)), learn(plain, series(9, 2, 7)))


# Second derivatives are refused in whatever they are taken.


@pytest.mark.parametrize("of", ["x", "beta", "behind", "all"])
def test_a_gradient_penalty_raises(of: str) -> None:
    """Also where what it is differentiated in only acts on the gradient that comes into the layer."""
    x, beta = series(9, 2, 7).requires_grad_(), torch.full((7,), 0.9, requires_grad=True)
    behind = torch.ones(7, requires_grad=True)
    out, _ = functional.lif(x, beta)
    (grad,) = torch.autograd.grad((out * behind).square().sum(), x, create_graph=True)
    loss = (x.sum() + beta.sum() + behind.sum()) + grad.square().sum()
    with pytest.raises(NotImplementedError, match="no second derivative"):
        if of == "all":
            loss.backward()
        else:
            torch.autograd.grad(loss, {"x": x, "beta": beta, "behind": behind}[of])


def test_a_recorded_gradient_may_be_changed_in_place() -> None:
    x, beta = series(9, 2, 7).requires_grad_(), torch.full((7,), 0.9, requires_grad=True)
    found = []
    for record in (False, True):
        grads = torch.autograd.grad(functional.lif(x, beta)[0].sum(), [x, beta], create_graph=record)
        found.append([grad.mul_(2) for grad in grads])
    assert_equal(found[1], found[0])


# Mixed precision.


def test_training_under_autocast_with_a_scaler() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(9, 32), LIF(32, learn_beta=True, output="trace", return_state=False), nn.Linear(32, 3)
    )
    stateful = nn.Sequential(nn.Linear(9, 7), LIF(7, stateful=True, return_state=False))
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    x, target = series(12, 16, 9), torch.arange(16) % 3
    start = [parameter.detach().clone() for parameter in model.parameters()]
    losses = []
    for _ in range(30):
        with torch.autocast("cpu", torch.bfloat16):
            out = model(x)
            assert out.dtype == torch.bfloat16
            stateful(x)
            loss = nn.functional.cross_entropy(out.sum(0).float(), target)
        optimiser.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        losses.append(loss.item())
    assert stateful[1].state.dtype == torch.float32
    assert losses[-1] < losses[0] / 2
    for parameter, first in zip(model.parameters(), start, strict=True):
        assert parameter.dtype == torch.float32 and not torch.equal(parameter, first)
    # A scaled loss that overflows leaves the step out.
    kept = [parameter.detach().clone() for parameter in model.parameters()]
    optimiser.zero_grad()
    scaler.scale(model(x).sum() * torch.inf).backward()
    scaler.step(optimiser)
    assert_equal(list(model.parameters()), kept)
