"""torch.func: vmap, grad, jacrev and functional_call through the fused layer, each sample against a loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, hessian, jacrev, jvp, stack_module_state, vmap

import lif_cuda
from lif_cuda import _ops, functional, reference, surrogate

SAMPLES = 3
# One sample's x and options: time first and last but one, short rows, checkpoints, every family option.
CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "time first": ((5, 4, 70), {}),
    "one row": ((60, 130), {"reset": "zero", "v_reset": 0.1}),
    "short rows": ((49, 2, 5), {"detach_reset": True}),
    "batch first": ((4, 6, 70), {"time_dim": 1}),
    "batch first, short rows": ((4, 6, 5), {"time_dim": 1}),
    "time last": ((4, 9, 6), {"time_dim": 2}),
    "constant": ((4, 9), {"steps": 7}),
    "constant, time inside": ((4, 70), {"steps": 7, "time_dim": 1}),
    "family": ((8, 3, 6), {"alpha": 0.7, "kappa": 0.2, "rho": 0.8, "refractory": 1, "strict": True}),
    "counts": ((8, 3, 6), {"output": "count"}),
    "counts and their sum": ((8, 3, 6), {"output": ("count", "rate", "total")}),
    "floor": ((8, 3, 6), {"v_min": -0.2, "output": ("spikes", "trace")}),
    "several": ((8, 3, 6), {"output": ("spikes", "trace", "rate", "first_spike")}),
    "table": (
        (8, 3, 6),
        {"surrogate": surrogate.Custom(lambda z: torch.exp(-4 * z * z))},
    ),
}


def loss(call: Callable[..., Any], x: Tensor, beta: Tensor, options: dict[str, Any]) -> Tensor:
    """A scalar that every output and the state are part of."""
    out, state = call(x, beta, threshold=0.7, **options)
    total = torch.zeros((), dtype=x.dtype)
    for tensor in (
        *(out if isinstance(out, tuple) else (out,)),
        *(state if isinstance(state, tuple) else ()),
    ):
        if tensor is not None:
            weights = torch.linspace(-1, 1, tensor.numel(), dtype=x.dtype).reshape(tensor.shape)
            total = total + (tensor * weights).sum()
    return total if isinstance(state, tuple) else total + state.sum()


def of_one(x: Tensor, beta: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The gradients of the reference for one sample, by plain autograd."""
    leaf, decay = x.clone().requires_grad_(), beta.clone().requires_grad_()
    dx, dbeta = torch.autograd.grad(loss(reference.lif, leaf, decay, options), (leaf, decay))
    return dx, dbeta


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("name", CASES)
def test_gradients_of_each_sample(name: str, dim: int) -> None:
    shape, options = CASES[name]
    torch.manual_seed(len(name))
    samples = torch.randn(SAMPLES, *shape, dtype=torch.float64)
    x = samples.movedim(0, dim).contiguous()
    features = shape[-2 if options.get("time_dim") == 2 else -1]
    beta = torch.rand(features, dtype=torch.float64)

    def of(x: Tensor, beta: Tensor) -> Tensor:
        return loss(functional.lif, x, beta, options)

    expected = [of_one(sample, beta, options) for sample in samples]
    dx, dbeta = vmap(grad(of, argnums=(0, 1)), in_dims=(dim, None))(x, beta)
    for at in range(SAMPLES):
        assert torch.equal(dx[at], expected[at][0])
        torch.testing.assert_close(dbeta[at], expected[at][1])

    # A decay of its own for each sample.
    betas = torch.rand(SAMPLES, features, dtype=torch.float64)
    dx, dbeta = vmap(grad(of, argnums=(0, 1)), in_dims=(dim, 0))(x, betas)
    for at in range(SAMPLES):
        one = of_one(samples[at], betas[at], options)
        assert torch.equal(dx[at], one[0])
        torch.testing.assert_close(dbeta[at], one[1])


def test_maps_inside_maps() -> None:
    x = torch.randn(2, 3, 5, 4, 8)
    found = vmap(vmap(lambda sample: functional.lif(sample, 0.9)))(x)
    for i in range(2):
        for j in range(3):
            expected = functional.lif(x[i, j], 0.9)
            assert torch.equal(found[0][i, j], expected[0])
            assert torch.equal(found[1][i, j], expected[1])


def test_mapped_states_and_decays() -> None:
    x = torch.randn(9, 4, 8)
    betas, states = torch.rand(SAMPLES), torch.randn(SAMPLES, 4, 8)
    found = vmap(lambda beta, state: functional.lif(x, beta, membrane=state), in_dims=(0, 0))(betas, states)
    for at in range(SAMPLES):
        expected = functional.lif(x, betas[at], membrane=states[at])
        assert torch.equal(found[0][at], expected[0])
        assert torch.equal(found[1][at], expected[1])


@pytest.mark.parametrize("time_dim", [0, 1])
def test_an_x_for_all_samples_is_not_copied(time_dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor the gradient of a decay of each sample wrong: backward reads x for each as forward does."""
    seen = []
    forward = _ops.lif_forward
    monkeypatch.setattr(_ops, "lif_forward", lambda x, *others: (seen.append(x), forward(x, *others))[1])
    x, betas = torch.randn(9, 4, 80, dtype=torch.float64), torch.rand(SAMPLES, dtype=torch.float64)
    options: dict[str, Any] = {"time_dim": time_dim}
    gradients = vmap(grad(lambda beta: loss(functional.lif, x, beta, options)))(betas)
    if time_dim == 0:
        assert seen[-1].untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    for at in range(SAMPLES):
        torch.testing.assert_close(gradients[at], of_one(x, betas[at], options)[1])


def test_jacobian() -> None:
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    found = jacrev(lambda x: functional.lif(x, 0.9, return_state=False))(x)
    expected = torch.autograd.functional.jacobian(lambda x: reference.lif(x, 0.9, return_state=False), x)
    assert torch.equal(found, expected)


def test_an_ensemble_of_layers() -> None:
    layers = [lif_cuda.LIF(8, beta=beta, learn_beta=True, return_state=False) for beta in (0.5, 0.8, 0.9)]
    parameters, buffers = stack_module_state(layers)
    x = torch.randn(7, 2, 8)

    def call(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        out = functional_call(layers[0], (parameters, buffers), (x,))
        assert isinstance(out, Tensor)
        return out

    found = vmap(call)(parameters, buffers)
    assert torch.equal(found, torch.stack([layer(x) for layer in layers]))


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda f: hessian(f), "no forward-mode derivative .* use torch.func.jacrev"),
        (lambda f: lambda x: jvp(f, (x,), (x,)), "no forward-mode derivative .* use torch.func.jacrev"),
        (lambda f: jacrev(jacrev(f)), "no second derivative.* Use lif_cuda.ReferenceLIF"),
        (lambda f: grad(lambda x: grad(f)(x).sum()), "no second derivative.* Use lif_cuda.ReferenceLIF"),
    ],
    ids=["hessian", "jvp", "jacrev of jacrev", "grad of grad"],
)
def test_what_has_no_derivative_says_so(transform: Callable[..., Any], message: str) -> None:
    def of(x: Tensor) -> Tensor:
        out = functional.lif(x, 0.9, return_state=False)
        assert isinstance(out, Tensor)
        return out.sum()

    with pytest.raises(NotImplementedError, match=message):
        transform(of)(torch.randn(4, 6))


@pytest.mark.filterwarnings("error:.*autograd kernel was not registered")
@pytest.mark.parametrize("transform", [grad, lambda f: vmap(grad(f))], ids=["grad", "vmap of grad"])
def test_transforms_in_compiled_code(transform: Callable[..., Any]) -> None:
    """A trace of them would give zeros: they are left to Python, or refused where that may not be."""

    def of(x: Tensor) -> Tensor:
        out = functional.lif(x, 0.9, return_state=False)
        assert isinstance(out, Tensor)
        return out.square().sum()

    x = torch.randn(4, 6, 5)
    expected = transform(of)(x)
    torch.compiler.reset()
    assert torch.equal(torch.compile(transform(of), backend="aot_eager")(x), expected)
    torch.compiler.reset()
    # Torch 2.11 stops at the surrogate, in words of its own.
    with pytest.raises(RuntimeError, match="does not reach the fused LIF|in sourceless builder"):
        torch.compile(transform(of), fullgraph=True, backend="aot_eager")(x)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("shape", [(9,), (9, 4, 6)], ids=str)
def test_the_total_of_each_sample(shape: tuple[int, ...], dim: int) -> None:
    """Of all neurons of a sample, and none of the others."""
    x = torch.randn(SAMPLES, *shape)

    def of(x: Tensor) -> Tensor:
        total: Tensor = functional.lif(x, 0.9, output="total", return_state=False)
        return total

    expected = torch.stack([of(sample) for sample in x])
    assert expected.dtype == torch.float64 and expected.sum() > 0
    assert torch.equal(vmap(of, in_dims=dim)(x.movedim(0, dim)), expected)
    gradients = torch.stack([grad(of)(sample) for sample in x])
    assert gradients.abs().sum() > 0
    assert torch.equal(vmap(grad(of), in_dims=dim)(x.movedim(0, dim)), gradients)
    assert torch.equal(grad(lambda x: vmap(of)(x).sum())(x), gradients)
