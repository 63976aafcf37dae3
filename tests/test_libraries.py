"""Every equivalence that a text of this project names, against the real library."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from _compile import ROOT

from lif_cuda import LI, CurrentLIF, NeuronState
from rivals.equal_surrogates import SURROGATES, our_surrogate
from rivals.equality import CLOSE, GRADIENTS_APART, LEARNED_APART, difference, drawn, layer_runner, runner
from rivals.equals import EQUALS, PACKAGES, UNEQUALS, Equal, Unequal, by_name, evaluated, version

SHAPE = (50, 8, 65)
PAGE = (ROOT / "docs" / "migrating.md").read_text()
PINNED = dict(re.findall(r"^(\w+)==(\S+)$", (ROOT / "tests" / "libraries.txt").read_text(), re.MULTILINE))
# Of the input for the code of the page: its neurons fire, and those of sinabs no more than once a step.
SCALES = {"snnTorch": 1.0, "SpikingJelly": 3.0, "Norse": 4.0, "sinabs": 4.5}
each_row = pytest.mark.parametrize("equal", EQUALS, ids=str)


def needs(library: str) -> None:
    """Skip a test whose library is not there; one that is there and does not import fails."""
    if version(library) is None:
        pytest.skip(f"{library} is not installed: pip install --no-deps -r tests/libraries.txt")


def without(expression: str, option: str) -> str:
    """A call without one of its keywords."""
    tree = ast.parse(expression, mode="eval")
    assert isinstance(tree.body, ast.Call)
    tree.body.keywords = [keyword for keyword in tree.body.keywords if keyword.arg != option]
    return ast.unparse(tree)


def options_of(expression: str) -> list[str]:
    tree = ast.parse(expression, mode="eval")
    assert isinstance(tree.body, ast.Call)
    return [str(keyword.arg) for keyword in tree.body.keywords]


@pytest.mark.parametrize("library", PACKAGES)
def test_the_versions_are_those_that_are_named(library: str) -> None:
    needs(library)
    assert version(library) == PINNED[PACKAGES[library]]
    assert f"| {library} | {PINNED[PACKAGES[library]]} |" in PAGE


@each_row
def test_spikes_and_gradients_are_those_of_the_library(equal: Equal) -> None:
    needs(equal.library)
    x, grad = drawn(SHAPE, equal.scale)
    found = difference(equal, equal.their_neuron(), x, grad)
    assert found.fault(equal.exact) is None, found
    assert found.firing_rate > 0.02 and found.apart < 0.01, found


@each_row
def test_no_option_can_be_left_out(equal: Equal) -> None:
    """Without any one of them the comparison finds another neuron: so it would find one that is wrong.

    Whether a neuron fires at its threshold is the next test's. A reset to zero gives the same spikes at the
    next step as at this one; it is the membrane between them that differs, which is compared further down.
    """
    needs(equal.library)
    x, grad = drawn(SHAPE, equal.scale)
    theirs = equal.their_neuron()
    layer = equal.our_layer()
    for option in options_of(equal.ours):
        part = replace(equal, ours=without(equal.ours, option))
        try:
            if option == "strict" or (option == "delay_reset" and layer.reset == "zero"):
                continue
            if repr(part.our_layer()) == repr(layer):
                continue  # the default is the same
            found = difference(part, theirs, x, grad)
        except (AttributeError, TypeError, ValueError):
            continue  # an option that belongs to it complains, or a learned parameter is missing
        assert found.fault(equal.exact) is not None, option


def first_gain(equal: Equal) -> float:
    """What the input of the first step is multiplied by."""
    layer = equal.our_layer()
    value = 1 - torch.as_tensor(layer.beta) if layer.decay_input else torch.as_tensor(layer.gain)
    return float(value.detach())


# Those that an input can lead to their threshold without a rounding.
EVEN = [
    equal for equal in EQUALS if first_gain(equal) in (1.0, 0.5, 0.25) and not equal.ours.startswith("LI(")
]


@pytest.mark.parametrize("equal", EVEN, ids=str)
def test_a_membrane_that_meets_its_threshold(equal: Equal) -> None:
    """At the threshold exactly both fire or neither does, and one that decides otherwise differs."""
    needs(equal.library)
    x = torch.full((1, 2, 3), 1 / first_gain(equal))
    theirs = runner(equal.library, equal.their_neuron())(x)
    other = replace(equal, ours=without(equal.ours, "strict")).our_layer(strict="strict" not in equal.ours)
    assert torch.equal(layer_runner(equal.our_layer())(x), theirs)
    assert torch.equal(layer_runner(other)(x), 1 - theirs)


def test_readouts_of_membranes() -> None:
    """What is taken of the membranes of all steps there, the layer returns without them."""
    needs("snnTorch")
    x, _ = drawn((30, 4, 7), 1.0)
    neuron = evaluated("snnTorch", 'snn.Leaky(beta=0.9, reset_mechanism="none")')
    mem, membranes = neuron.reset_mem(), []
    for x_t in x:
        _, mem = neuron(x_t, mem)
        membranes.append(mem)
    trace = torch.stack(membranes)
    for output, expected in (("trace", trace), ("last", trace[-1]), ("max", trace.max(0)[0])):
        assert torch.equal(LI(beta=0.9, output=output, return_state=False)(x), expected)
    mean = LI(beta=0.9, output="mean", return_state=False)(x)
    torch.testing.assert_close(mean, trace.mean(0), rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("unequal", UNEQUALS, ids=str)
def test_what_has_no_equal_differs(unequal: Unequal) -> None:
    needs(unequal.library)
    x, grad = drawn(SHAPE, unequal.scale)
    nearest = Equal(unequal.library, unequal.theirs, unequal.nearest)
    found = difference(nearest, nearest.their_neuron(), x, grad)
    assert found.apart > 0.1 and found.crossing > 100 * CLOSE, found


@pytest.mark.parametrize(("library", "theirs", "ours"), SURROGATES)
def test_surrogates(library: str, theirs: str, ours: str) -> None:
    needs(library)
    z = torch.linspace(-2, 2, 1001).requires_grad_()
    spikes = evaluated(library, theirs)(z)
    (found,) = torch.autograd.grad(spikes.sum(), z)
    expected = our_surrogate(ours).derivative(z.detach())
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=1e-6)
    assert f"| {library} | `{theirs}` | `{ours}` |" in PAGE


def test_a_triangle_that_is_none() -> None:
    needs("snnTorch")
    z = torch.tensor([-2.0, -0.5, 0.5, 2.0], requires_grad=True)
    (found,) = torch.autograd.grad(evaluated("snnTorch", "surrogate.triangular()")(z).sum(), z)
    assert found.tolist() == [1.0, 1.0, -1.0, -1.0]


@pytest.mark.parametrize("beta", [-0.1, 1.2])
def test_a_clamped_decay_has_no_gradient_outside(beta: float) -> None:
    """As in snnTorch: a learned beta that has left [0, 1] is used as the nearest end."""
    needs("snnTorch")
    equal = by_name("snn.Leaky(beta=0.9, learn_beta=True, learn_threshold=True)")
    theirs, ours = equal.their_neuron(), equal.our_layer()
    x, grad = drawn((9, 3, 7), 1.0)
    gradients = []
    for neuron, name, run in (
        (theirs, "beta", runner("snnTorch", theirs)),
        (ours, "beta_values", layer_runner(ours)),
    ):
        parameter = getattr(neuron, name)
        parameter.data.fill_(beta)
        gradients.append(torch.autograd.grad(run(x), parameter, grad)[0])
    assert [float(gradient) for gradient in gradients] == [0.0, 0.0]


def test_a_step_at_a_time_is_the_same_state() -> None:
    """``step`` hands on what a library does, but for the current of Norse, which has decayed once more."""
    for library, theirs in (
        ("snnTorch", "snn.Leaky(beta=0.9)"),
        ("snnTorch", 'snn.Leaky(beta=0.9, reset_mechanism="zero")'),
        ("snnTorch", "snn.Synaptic(alpha=0.8, beta=0.9)"),
        ("Norse", "norse.LIFCell()"),
    ):
        needs(library)
        equal = by_name(theirs)
        neuron, layer = equal.their_neuron(), equal.our_layer()
        x, _ = drawn((12, 3, 7), equal.scale)
        there: Any = (None,)
        here: Any = None
        for x_t in x:
            _, *there = neuron(x_t, *there)
            _, here = layer.step(x_t, here)
        if library == "Norse":
            there = [there[0].i / 0.8, there[0].v]
        mine = [here.current, here.membrane] if isinstance(layer, CurrentLIF) else [here]
        for a, b in zip(mine, there, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        if isinstance(layer, CurrentLIF):
            assert isinstance(here, NeuronState)


# The page


def test_the_tables_of_the_page() -> None:
    for equal in EQUALS:
        assert f"| `{equal.theirs}` | `{equal.ours}` |" in PAGE
    for unequal in UNEQUALS:
        assert f"| {unequal.library} `{unequal.theirs}` | `{unequal.nearest}` | {unequal.why} |" in PAGE
    assert PAGE.count("\n| `") == len(EQUALS)
    bounds = re.findall(r"within ([0-9e-]+)", PAGE)
    assert [float(bound) for bound in bounds] == [CLOSE, GRADIENTS_APART, LEARNED_APART]


def pairs_on_the_page() -> list[tuple[str, str, str]]:
    """Of each block of this project: the library of the one before it, the code there, and the code here."""
    found = []
    library = there = ""
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        title = block.partition("\n")[0].removeprefix("# ")
        if title in PACKAGES:
            library, there = title, block
        else:
            assert title.startswith("lif_cuda"), title
            found.append((library, there, block))
    return found


@pytest.mark.parametrize(("library", "there", "here"), pairs_on_the_page())
def test_the_code_of_the_page(library: str, there: str, here: str) -> None:
    needs(library)
    x, grad = drawn((25, 4, 31), SCALES[library])
    results = []
    for code in (there, here):
        scope: dict[str, Any] = {"torch": torch, "x": x.clone().requires_grad_()}
        if "lif_cuda.convert(" in code:
            exec(there, scope)  # the network that is converted
        exec(code, scope)
        results.append(scope)
    theirs, ours = results
    assert torch.equal(theirs["spikes"], ours["spikes"]) and ours["spikes"].mean() > 0.02
    for name in {"spikes", "membranes"} & theirs.keys() & ours.keys():
        torch.testing.assert_close(ours[name], theirs[name], rtol=CLOSE, atol=CLOSE)
        right, found = (
            torch.autograd.grad(scope[name], scope["x"], grad, retain_graph=True)[0] for scope in results
        )
        assert float((right - found).norm() / right.norm()) <= GRADIENTS_APART


def test_the_page_has_code_of_each_library() -> None:
    pairs = pairs_on_the_page()
    assert {library for library, _, _ in pairs} == set(PACKAGES)
    assert any("membranes" in there and "membranes" in here for _, there, here in pairs)
