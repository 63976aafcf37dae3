"""Networks of other libraries whose neurons become layers of this one."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from _compile import ROOT
from torch import Tensor, nn

import lif_cuda
from lif_cuda import LIF, Conversion, convert, convert_state_dict
from lif_cuda._parameters import Parameters
from rivals.equal_surrogates import SURROGATES, our_surrogate
from rivals.equality import drawn, layer_runner, runner
from rivals.equals import EQUALS, UNEQUALS, Equal, Unequal, by_name, evaluated, version

SHAPE = (20, 4, 33)
each_row = pytest.mark.parametrize("equal", EQUALS, ids=str)


def needs(library: str) -> None:
    if version(library) is None:
        pytest.skip(f"{library} is not installed: pip install --no-deps -r tests/libraries.txt")


def single(neuron: nn.Module) -> nn.Module:
    """A neuron of sinabs that fires once a step; any other as it is."""
    if getattr(neuron, "spike_fn", None) is not None:
        with pytest.raises(ValueError, match="MultiSpike") if "Multi" in str(neuron.spike_fn) else _nothing():
            convert(neuron)
        neuron.spike_fn = evaluated("sinabs", "activation.SingleSpike")
    return neuron


class _nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def converted(equal: Equal) -> Any:
    """The layer in the place of a row's neuron."""
    return convert(single(equal.their_neuron()))


def has_equal(equal: Equal) -> bool:
    """Whether a row holds for any input."""
    return "reset_delay=False)" not in equal.theirs or "zero" in equal.theirs


# The layer is that of the row.


@each_row
def test_the_layer_is_that_of_the_row(equal: Equal) -> None:
    needs(equal.library)
    if not has_equal(equal):
        with pytest.raises(ValueError, match="twice its threshold"):
            converted(equal)
        return
    layer, row = converted(equal), equal.our_layer()
    calling = {"return_state": row.options.return_state, "time_dim": 0}
    assert layer.options._replace(**calling) == row.options
    frozen = {name for name in layer.learned if not _learned(layer, name).requires_grad}
    assert set(layer.learned) - frozen == set(row.learned)
    for name in Parameters._fields:
        mine, its = getattr(layer, name), getattr(row, name)
        assert (mine is None) == (its is None), name
        if mine is not None:
            torch.testing.assert_close(
                *map(torch.as_tensor, (mine, its)), rtol=2e-7, atol=0, check_dtype=False
            )
    assert all(layer._bounds[name] == row._bounds[name] for name in row.learned)


def _learned(layer: LIF, name: str) -> nn.Parameter:
    found = [value for key, value in layer.named_parameters() if key.startswith(f"{name}_")]
    assert len(found) == 1
    return found[0]


@each_row
def test_it_is_called_as_the_neuron_was(equal: Equal) -> None:
    """By the code that runs the library's neuron, it gives what the layer of the row gives."""
    needs(equal.library)
    if not has_equal(equal):
        return
    layer, row = converted(equal), equal.our_layer()
    x, grad = drawn(SHAPE, equal.scale)
    results = []
    for run, module in ((runner(equal.library, layer), layer), (layer_runner(row), row)):
        leaf = x.clone().requires_grad_()
        out = run(leaf)
        learned = [_learned(module, mine.rpartition("_")[0]) for mine, _ in equal.learned.values()]
        results.append((out, *torch.autograd.grad(out, [leaf, *learned], grad)))
    (out, dx, *learned), (right, right_dx, *right_learned) = results
    close = 1e-5 if "Lapicque" in equal.theirs else 0.0
    torch.testing.assert_close(out, right, rtol=close, atol=close)
    assert "trace" in equal.ours or 0.02 < float(out.detach().mean()) < 1
    torch.testing.assert_close(dx, right_dx, rtol=1e-5, atol=1e-6)
    for mine, its in zip(learned, right_learned, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("unequal", UNEQUALS, ids=str)
def test_what_has_no_equal_raises(unequal: Unequal) -> None:
    needs(unequal.library)
    with pytest.raises(ValueError, match="no layer of lif_cuda equals") as raised:
        convert(evaluated(unequal.library, unequal.theirs))
    said = unequal.why.partition(":")[0].partition(";")[0].partition(",")[0]
    assert said in " ".join(str(raised.value).split())


@pytest.mark.parametrize(("library", "theirs", "ours"), SURROGATES)
def test_surrogates_are_those_of_the_table(library: str, theirs: str, ours: str) -> None:
    needs(library)
    expected = our_surrogate(ours)
    if library == "Norse":
        method, alpha = theirs.removesuffix(")").split('"')[1], float(theirs.removesuffix(")").split(",")[-1])
        p = evaluated(library, "norse.LIFBoxParameters()")._replace(method=method, alpha=torch.tensor(alpha))
        neuron = type(evaluated(library, "norse.LIFBoxCell()"))(p)
    elif library == "sinabs":
        function = theirs.rpartition("1.0, ")[2].removesuffix(")")
        neuron = evaluated(
            library, f"layers.IAF(surrogate_grad_fn={function}, spike_fn=activation.SingleSpike)"
        )
    elif library == "snnTorch":
        neuron = evaluated(library, f"snn.Leaky(beta=0.9, spike_grad={theirs})")
    else:
        neuron = evaluated(library, f"neuron.IFNode(surrogate_function={theirs})")
    found: Any = convert(neuron)
    assert (found.surrogate.code, type(found.surrogate).__name__) == (expected.code, type(expected).__name__)
    assert found.surrogate.slope == pytest.approx(expected.slope, rel=1e-6)
    assert found.surrogate.height == pytest.approx(expected.height, rel=1e-6)


@pytest.mark.parametrize(
    ("library", "theirs", "said"),
    [
        ("snnTorch", "snn.Leaky(beta=0.9, inhibition=True)", "inhibition"),
        ("snnTorch", "snn.Leaky(beta=0.9, graded_spikes_factor=2.0)", "graded_spikes_factor"),
        ("snnTorch", "snn.Leaky(beta=0.9, learn_graded_spikes_factor=True)", "graded_spikes_factor"),
        ("snnTorch", "snn.Leaky(beta=0.9, surrogate_disable=True)", "surrogate_disable"),
        ("snnTorch", "snn.Leaky(beta=0.9, spike_grad=surrogate.triangular())", "derivative of triangular"),
        ("snnTorch", "snn.Leaky(beta=0.9, spike_grad=lambda x: x)", "derivative of <lambda>"),
        ("snnTorch", "snn.Lapicque(beta=0.9, learn_beta=True)", "learn_beta"),
        ("snnTorch", "snn.Lapicque(R=0.5, C=1.0)", "longer than R"),
        ("snnTorch", "snn.Alpha(alpha=0.9, beta=0.8)", "this neuron has no equal"),
        ("snnTorch", "snn.RLeaky(beta=0.9, linear_features=5)", "RecurrentLIF resets at once"),
        ("Norse", "norse.LIFRecurrentCell(5, 5)", "RecurrentLIF has no synaptic current"),
        ("SpikingJelly", "neuron.LIFNode(surrogate_function=surrogate.S2NN())", "derivative of S2NN"),
        ("SpikingJelly", "neuron.LIFNode(surrogate_function=surrogate.ATan(spiking=False))", "spiking=False"),
        ("SpikingJelly", "neuron.LIFNode(store_v_seq=True)", "store_v_seq"),
        ("SpikingJelly", "neuron.QIFNode()", "this neuron has no equal"),
        ("Norse", "norse.LIF(record_states=True)", "record_states"),
        ("Norse", "norse.LIFRefracCell()", "this neuron has no equal"),
        ("Norse", 'norse.LIFBoxCell(norse.LIFBoxParameters(method="circ"))', "derivative of 'circ'"),
        ("Norse", "norse.LIFBoxCell(norse.LIFBoxParameters(tau_mem_inv=2000.0))", "outside of"),
        ("Norse", "norse.LIFBoxCell(norse.LIFBoxParameters(tau_mem_inv=_learned))", "tau_mem_inv learns"),
        ("sinabs", "layers.LIF(tau_mem=10.0, tau_syn=5.0)", "tau_syn"),
        (
            "sinabs",
            "layers.IAF(reset_fn=activation.MembraneReset(0.5), spike_fn=activation.SingleSpike)",
            "0.5",
        ),
        ("sinabs", "layers.ALIF(tau_mem=10.0, tau_adapt=10.0)", "this neuron has no equal"),
    ],
)
def test_options_that_have_no_equal(library: str, theirs: str, said: str) -> None:
    needs(library)
    if "_learned" in theirs:
        kind = type(evaluated(library, "norse.LIFBoxCell()"))
        p = evaluated(library, "norse.LIFBoxParameters()")
        neuron = kind(p._replace(tau_mem_inv=torch.tensor(100.0, requires_grad=True)))
    else:
        neuron = evaluated(library, theirs)
    with pytest.raises(ValueError, match="no layer of lif_cuda equals") as raised:
        convert(neuron)
    assert said in str(raised.value)


# The model around it.


def jelly_network(**options: Any) -> nn.Sequential:
    needs("SpikingJelly")
    from spikingjelly.activation_based import neuron

    return nn.Sequential(
        nn.Linear(5, 7),
        neuron.ParametricLIFNode(init_tau=3.0, **options),
        nn.Linear(7, 3),
        neuron.LIFNode(**options),
    )


def test_a_report_and_what_is_left_alone() -> None:
    needs("snnTorch")
    import snntorch as snn

    class Own(snn.Leaky):
        pass

    network = nn.Sequential(
        snn.Leaky(beta=0.5), nn.Sequential(Own(beta=0.5), nn.Linear(2, 2)), snn.Alpha(0.9, 0.8)
    )
    before = list(network.modules())
    with pytest.raises(ValueError, match="nothing was converted") as raised:
        convert(network)
    assert "<locals>.Own: " in str(raised.value) and "  2: snntorch.Alpha: " in str(raised.value)
    assert "subclass of Leaky" in str(raised.value) and list(network.modules()) == before
    told: list[Conversion] = []
    assert convert(network, strict=False, report=told.append) is network
    assert [line.path for line in told] == ["0", "1.0", "2"]
    assert isinstance(network[0], LIF) and network[1][0] is before[3] and network[2] is before[5]
    assert str(told[0]).startswith("0: snntorch.Leaky -> Leaky(beta=0.5, ") and told[0].reason is None
    assert str(told[2]) == "2: snntorch.Alpha -> left alone: this neuron has no equal"
    assert convert(network, strict=False) is network and network[0] is not before[1]


def test_the_report_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    network = jelly_network()
    with caplog.at_level("INFO", logger="lif_cuda"):
        convert(network)
    assert [record.message.partition(" ->")[0] for record in caplog.records] == [
        "1: spikingjelly.ParametricLIFNode",
        "3: spikingjelly.LIFNode",
    ]


def test_a_neuron_that_is_used_twice_stays_one() -> None:
    needs("SpikingJelly")
    from spikingjelly.activation_based import neuron

    shared = neuron.IFNode()
    network = convert(nn.Sequential(shared, nn.Sequential(shared), nn.Identity()))
    assert network[0] is network[1][0] and isinstance(network[0], LIF)


def test_training_and_hooks_go_over() -> None:
    network = jelly_network().eval()
    seen: list[Tensor] = []
    handle = network[1].register_forward_hook(lambda module, inputs, out: seen.append(out))
    convert(network)
    assert not network[1].training
    network(torch.randn(2, 5))
    handle.remove()
    network(torch.randn(2, 5))
    assert len(seen) == 1


def test_parameters_keep_their_order_and_an_optimizer_its_state() -> None:
    needs("snnTorch")
    import snntorch as snn

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(5, 7),
        snn.Synaptic(
            alpha=torch.full((7,), 0.8), beta=0.9, learn_alpha=True, learn_beta=True, learn_threshold=True
        ),
    )
    before = list(network.parameters())
    optimizer = torch.optim.Adam(network.parameters())

    def step() -> None:
        optimizer.zero_grad()
        network[1].reset_mem()
        for _ in range(3):
            mem = network(torch.randn(3, 5))[2]
        mem.sum().backward()
        optimizer.step()

    step()
    saved = copy.deepcopy(optimizer.state_dict())
    convert(network)
    assert all(a is b for a, b in zip(network.parameters(), before, strict=True))
    assert [name for name, _ in network[1].named_parameters()] == [
        "threshold_values", "beta_values", "alpha_values",
    ]  # fmt: skip
    torch.optim.Adam(network.parameters()).load_state_dict(saved)
    values = [parameter.clone() for parameter in before]
    step()
    assert not any(torch.equal(a, b) for a, b in zip(values, before, strict=True))


def test_parameters_that_are_stored_otherwise_stay_in_their_place() -> None:
    network = jelly_network()
    shapes = [parameter.shape for parameter in network.parameters()]
    w = float(network[1].w.detach())
    network[1].w.requires_grad_(False)
    convert(network)
    assert [parameter.shape for parameter in network.parameters()] == shapes
    assert float(network[1].beta_logit) == -w and not network[1].beta_logit.requires_grad
    needs("sinabs")
    layer = converted(by_name("layers.LIF(tau_mem=10.0)"))
    assert [name for name, _ in layer.named_parameters()] == ["beta_logit", "threshold_values"]
    assert not layer.threshold_values.requires_grad


@pytest.mark.parametrize(
    "theirs",
    [
        "snn.Leaky(beta=0.9, learn_beta=True)",
        "snn.Leaky(beta=torch.rand(33), threshold=torch.rand(33) + 0.5)",
        "snn.Synaptic(alpha=0.8, beta=0.9, learn_alpha=True, learn_threshold=True)",
        "snn.Lapicque(R=2.0, C=4.0)",
        "neuron.ParametricLIFNode(init_tau=3.0)",
        'neuron.LIFNode(v_reset=-0.5, step_mode="m")',
        "norse.LIFCell()",
        "layers.LIF(tau_mem=10.0)",
        "layers.LIF(tau_mem=torch.full((33,), 10.0), train_alphas=True)",
        "layers.IAF()",
    ],
)
def test_a_checkpoint_of_the_library(theirs: str) -> None:
    """Saved with values that training has moved, and loaded into a converted network of the first ones."""
    library = {"snn": "snnTorch", "neu": "SpikingJelly", "nor": "Norse", "lay": "sinabs"}[theirs[:3]]
    needs(library)
    torch.manual_seed(0)
    trained, fresh = (nn.ModuleList([nn.Linear(2, 2), single(evaluated(library, theirs))]) for _ in range(2))
    convert(fresh)
    with torch.no_grad():
        for entry in trained[1].state_dict().values():
            if entry.is_floating_point() and entry.numel() and not bool((entry == 1).all()):
                entry.mul_(0.8)
    saved = trained.state_dict()
    with pytest.raises(ValueError, match="call lif_cuda.convert"):
        convert_state_dict(saved, trained)
    fresh.load_state_dict(convert_state_dict(saved, fresh))
    x, _ = drawn(SHAPE, 4.0)
    expected = runner(library, convert(copy.deepcopy(trained))[1])(x)
    assert torch.equal(runner(library, fresh[1])(x), expected)
    assert torch.equal(fresh[0].weight, trained[0].weight)


def test_a_checkpoint_of_another_neuron() -> None:
    needs("snnTorch")
    leaky = convert(nn.Sequential(evaluated("snnTorch", "snn.Leaky(beta=0.9, learn_beta=True)")))
    with pytest.raises(ValueError, match="the entries of 0 are not those of its neuron: has no beta"):
        convert_state_dict({"0.threshold": torch.ones(())}, leaky)
    wide = {"0.threshold": torch.ones(7), "0.beta": torch.ones(())}
    with pytest.raises(ValueError, match=r"has a threshold of shape \(7,\)"):
        convert_state_dict(wide, leaky)
    graded = wide | {"0.threshold": torch.ones(()), "0.graded_spikes_factor": torch.tensor(2.0)}
    with pytest.raises(ValueError, match="graded_spikes_factor"):
        convert_state_dict(graded, leaky)
    other = wide | {"0.threshold": torch.ones(()), "0.reset_mechanism_val": torch.tensor(1)}
    with pytest.raises(ValueError, match="it resets to 'subtract', and that which was saved to 'zero'"):
        convert_state_dict(other, leaky)
    with pytest.raises(ValueError, match="it has no _extra_state, beta_values; what was saved after convert"):
        convert_state_dict(leaky.state_dict(), leaky)
    with pytest.raises(TypeError, match="state must be a tensor"):
        leaky[0].run(torch.zeros(2, 3, 4), (torch.zeros(3, 4),))


# Conventions of each library.


def test_snntorch_keeps_a_hidden_state_until_its_own_reset() -> None:
    needs("snnTorch")
    import snntorch as snn
    from snntorch import utils

    def network() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(6, 9),
            snn.Leaky(beta=0.9, init_hidden=True),
            nn.Linear(9, 4),
            snn.Leaky(beta=0.9, init_hidden=True, output=True),
        )

    theirs, ours = network(), convert(network())
    x = 4 * torch.randn(2, 6, 3, 6)
    for batch in (x, x[:, :, :2]):  # the second one is smaller, as the last of an epoch is
        for series in batch:
            utils.reset(theirs)
            utils.reset(ours)
            for step in series:
                for a, b in zip(ours(step), theirs(step), strict=True):
                    torch.testing.assert_close(a, b)
    assert ours[1].mem.shape == (2, 9)
    lif_cuda.reset_states(ours)
    assert ours[1].mem.numel() == 0
    with pytest.raises(TypeError, match="init_hidden"):
        ours[1](torch.zeros(2, 9), torch.zeros(2, 9))


def test_snntorch_goes_on_from_its_last_state_where_none_is_passed() -> None:
    needs("snnTorch")
    for theirs in ("snn.Leaky(beta=0.9)", "snn.Synaptic(alpha=0.8, beta=0.9)"):
        neuron = evaluated("snnTorch", theirs)
        layer = convert(evaluated("snnTorch", theirs))
        for x in torch.randn(5, 3, 4):
            for a, b in zip(layer(x), neuron(x), strict=True):
                assert torch.equal(a, b)
        assert torch.equal(layer.mem, neuron.mem)


def test_snntorch_runs_all_steps_at_once() -> None:
    """``run`` gives what the loop gives, from the same state."""
    needs("snnTorch")
    layer = convert(evaluated("snnTorch", "snn.Leaky(beta=0.9)"))
    x = 2 * torch.randn(8, 3, 4)
    mem, spikes = layer.init_leaky(), []
    for step in x:
        spk, mem = layer(step, mem)
        spikes.append(spk)
    found, final = layer.run(x, layer.init_leaky())
    assert torch.equal(found, torch.stack(spikes)) and torch.equal(final, mem)
    assert torch.equal(layer.run(x)[0], found) and torch.equal(layer.run(x)[0], found)
    assert layer.run(x[:, :2])[0].shape == (8, 2, 4)
    first, middle = layer.run(x[:3], layer.init_leaky())
    second, last = layer.run(x[3:], middle)
    assert torch.equal(torch.cat([first, second]), found) and torch.equal(last, mem)


@pytest.mark.parametrize("theirs", ["snn.Leaky(beta=0.9)", "snn.Synaptic(alpha=0.8, beta=0.9)"])
def test_snntorch_under_activation_checkpointing(theirs: str) -> None:
    """A step that is computed once more starts from the state that was passed to it."""
    needs("snnTorch")
    from torch.utils.checkpoint import checkpoint

    layer = convert(evaluated("snnTorch", theirs))
    gradients = []
    for recomputed in (False, True):
        x = (2 * torch.rand(6, 3, 4, generator=torch.Generator().manual_seed(0))).requires_grad_()
        state = layer.reset_mem()
        state = [state] if isinstance(state, Tensor) else [*state]
        spikes = []
        for step in x:
            if recomputed:
                spike, *state = checkpoint(layer, step, *state, use_reentrant=False)
            else:
                spike, *state = layer(step, *state)
            spikes.append(spike)
        gradients.append(torch.autograd.grad(torch.stack(spikes).sum(), x)[0])
    assert torch.equal(*gradients) and gradients[0].abs().min() > 0


def test_snntorch_in_a_program() -> None:
    """What passes its state is exported; what keeps it says why it is not."""
    needs("snnTorch")
    layer = convert(evaluated("snnTorch", "snn.Leaky(beta=0.9)"))
    x, mem = torch.rand(3, 4), torch.rand(3, 4)
    exported = torch.export.export(layer, (x, mem)).module()
    for found, expected in zip(exported(x, mem), layer(x, mem), strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(layer.mem, layer(x, mem)[1])
    with pytest.raises(RuntimeError, match="cannot be exported"):
        torch.export.export(layer, (x,))


@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_spikingjelly_resets_and_detaches_by_its_own_functions(step_mode: str) -> None:
    needs("SpikingJelly")
    from spikingjelly.activation_based import functional

    network = jelly_network(step_mode=step_mode, v_reset=-0.25)
    functional.reset_net(network)  # it remembers which modules it reset
    right = copy.deepcopy(network)
    neurons = network[1], network[3]
    convert(network)
    x = 4 * torch.randn(6, 2, 5) if step_mode == "m" else 4 * torch.randn(2, 5)
    assert network[1].v == -0.25
    for reset in (functional.reset_net, lif_cuda.reset_states):
        for _ in range(3):
            torch.testing.assert_close(network(x), right(x))
        torch.testing.assert_close(network[1].v, right[1].v)
        assert network[1].v.grad_fn is not None
        functional.detach_net(network)
        assert network[1].v.grad_fn is None
        reset(network)
        functional.reset_net(right)
        assert network[1].v == -0.25
    functional.set_step_mode(network, "m")
    assert network[1].step_mode == "m" and neurons[0].step_mode == step_mode
    assert network.double()[0].weight.dtype == torch.float64


def test_norse_knows_the_layers_by_their_state() -> None:
    needs("Norse")
    import norse.torch as norse

    def modules() -> Iterator[nn.Module]:
        torch.manual_seed(0)
        yield from (nn.Linear(6, 9), norse.LIFCell(), nn.Linear(9, 4), norse.LIFBoxCell(), norse.LICell())

    theirs = norse.SequentialState(*modules())
    before = convert(norse.SequentialState(*modules()))
    after = norse.SequentialState(*convert(nn.Sequential(*modules())))
    assert theirs.stateful_layers == after.stateful_layers
    states: list[Any] = [None, None, None]
    for x in 40 * torch.randn(6, 3, 6):
        outs = []
        for at, network in enumerate((theirs, before, after)):
            out, states[at] = network(x, states[at])
            outs.append(out)
        for out, state in zip(outs[1:], states[1:], strict=True):
            torch.testing.assert_close(out, outs[0], rtol=1e-5, atol=1e-6)
            for a, b in zip(state, states[0], strict=True):
                assert type(a) is type(b)
                for mine, its in zip(a or (), b or (), strict=True):
                    torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-5)


def test_norse_over_time_and_at_rest_elsewhere() -> None:
    needs("Norse")
    import norse.torch as norse

    p = norse.LIFParameters(v_leak=torch.tensor(-0.3), v_reset=torch.tensor(-0.1))
    x = 5 * torch.randn(12, 3, 7)
    layer = convert(norse.LIF(p))
    theirs, right = norse.LIF(p)(x)
    out, state = layer(x)
    torch.testing.assert_close(out, theirs)
    torch.testing.assert_close(state.v, right.v, rtol=1e-5, atol=1e-5)
    first, middle = layer(x[:5])
    second, _ = layer(x[5:], middle)
    torch.testing.assert_close(torch.cat([first, second]), theirs)


def test_a_series_begins_where_the_neuron_is_at_rest() -> None:
    needs("Norse")
    needs("SpikingJelly")
    import norse.torch as norse
    from spikingjelly.activation_based import neuron

    x = 3 * torch.randn(12, 3, 7)
    norse_layer = convert(norse.LIFBoxCell(norse.LIFBoxParameters(v_leak=torch.tensor(-0.5))))
    state, spikes = None, []
    for step in x:
        spike, state = norse_layer(step, state)
        spikes.append(spike)
    assert torch.equal(norse_layer.run(x)[0], torch.stack(spikes))
    jelly = convert(neuron.LIFNode(v_reset=-0.5))
    spikes = [jelly(step) for step in x]
    jelly.reset()
    assert torch.equal(jelly.run(x), torch.stack(spikes))
    assert torch.equal(jelly.v, jelly.state)
    steady = jelly.run(x[0], steps=4)  # goes on from there
    assert steady.shape == (4, 3, 7)


def test_norse_neurons_that_differ() -> None:
    needs("Norse")
    import norse.torch as norse

    p = norse.LIFParameters(
        tau_mem_inv=torch.linspace(100, 500, 7),
        tau_syn_inv=torch.linspace(200, 400, 7),
        v_th=torch.linspace(0.5, 1, 7),
    )
    x = 5 * torch.randn(12, 3, 7)
    layer = convert(norse.LIF(p))
    out, state = layer(x)
    torch.testing.assert_close(out, norse.LIF(p)(x)[0])
    assert out.mean() > 0.02 and {tensor.dtype for tensor in layer.buffers()} == {torch.float32}


def test_sinabs_resets_and_squeezes_as_it_does() -> None:
    needs("sinabs")
    import sinabs
    from sinabs import activation, layers

    def network() -> nn.Sequential:
        torch.manual_seed(0)
        once = {"spike_fn": activation.SingleSpike}
        return nn.Sequential(
            nn.Linear(6, 9), layers.LIFSqueeze(batch_size=3, tau_mem=5.0, **once), nn.Linear(9, 4),
            layers.IAFSqueeze(num_timesteps=4, **once), layers.ExpLeakSqueeze(batch_size=3, tau_mem=5.0),
        )  # fmt: skip

    theirs, ours = network(), convert(network())
    x = 20 * torch.randn(12, 6)
    for _ in range(2):
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    sinabs.reset_states(ours)
    assert ours[1].v_mem.numel() == 0 and ours[1].does_spike and not ours[4].does_spike
    sinabs.reset_states(theirs)
    ours(x).sum().backward()
    sinabs.zero_grad(ours)
    assert not ours[1].is_state_initialised() or ours[1].v_mem.grad_fn is None
    again = copy.deepcopy(ours)
    assert torch.equal(again(x), ours(x))


@pytest.mark.parametrize(
    "theirs", ["snn.Leaky(beta=0.9)", "neuron.LIFNode()", "norse.LIFCell()", "layers.IAF()"]
)
def test_a_converted_layer_is_a_module_like_any_other(theirs: str) -> None:
    """It is copied, pickled, moved, and its state_dict is read by another one."""
    library = {"snn": "snnTorch", "neu": "SpikingJelly", "nor": "Norse", "lay": "sinabs"}[theirs[:3]]
    needs(library)
    layer = convert(single(evaluated(library, theirs)))
    x, _ = drawn(SHAPE, 4.0)
    expected = runner(library, layer)(x)
    for other in (
        copy.deepcopy(convert(single(evaluated(library, theirs)))),
        pickle.loads(pickle.dumps(_reset(layer))),
    ):
        other.load_state_dict(layer.state_dict())
        assert torch.equal(runner(library, other)(x), expected)
    assert runner(library, layer.double())(x.double()).shape == x.shape
    assert type(layer).__name__ in repr(layer)


def _reset(layer: Any) -> Any:
    if layer.stateful:
        layer.reset_state()
    return layer


def test_no_library_is_imported_before_it_is_met() -> None:
    code = """
import sys
import torch
import lif_cuda
lif_cuda.convert(torch.nn.Sequential(torch.nn.Linear(2, 2), lif_cuda.LIF()))
found = {name.partition(".")[0] for name in sys.modules}
print(*sorted(found & {"snntorch", "spikingjelly", "norse", "sinabs"}))
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "\n"


def test_a_model_without_neurons_is_said_to_have_none() -> None:
    with pytest.warns(UserWarning, match="found no neuron .*Sequential, and changed nothing"):
        convert(nn.Sequential(nn.Linear(3, 4)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(nn.Sequential(nn.Linear(3, 4), LIF(4)))


def test_what_is_no_module_is_named() -> None:
    with pytest.raises(TypeError, match="model must be an nn.Module, got int"):
        convert(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="strict must be True or False"):
        convert(nn.Identity(), strict=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="model must be an nn.Module"):
        convert_state_dict({}, {})  # type: ignore[arg-type]
