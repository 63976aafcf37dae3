"""From a graph to a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, nn

from ..surrogate import Surrogate
from ..time_distributed import TimeDistributed
from ._neurons import layer_of

# A node that does nothing.
_THROUGH = object()
_NEURONS = (nir.LIF, nir.IF, nir.CubaLIF, nir.LI, nir.I, nir.CubaLI)


class Scale(nn.Module):
    """Multiply elementwise."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(scale)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class NIRNetwork(nn.Module):
    """The nodes of a graph as modules, run in an order in which each comes after those that lead to it."""

    def __init__(self, modules: dict[str, nn.Module], sources: dict[str, list[str]], output: str) -> None:
        super().__init__()
        self.order = list(modules)
        self.sources = sources
        self.output = output
        for name, module in modules.items():
            self.add_module(_attribute(name), module)

    def forward(self, x: Tensor) -> Tensor:
        """Run x, [T, B, ...]."""
        found: dict[str, Tensor] = {}
        for name in self.order:
            inputs = [found[source] for source in self.sources[name]]
            value = x if not inputs else inputs[0]
            for other in inputs[1:]:
                value = value + other
            module = self.get_submodule(_attribute(name))
            found[name] = module(value)
        return found[self.output]


def network_of(graph: Any, dt: float, decay: str, surrogate: Surrogate) -> nn.Module:
    """The network of a graph."""
    nodes, edges = _flattened(graph)
    inputs = [name for name, node in nodes.items() if isinstance(node, nir.Input)]
    outputs = [name for name, node in nodes.items() if isinstance(node, nir.Output)]
    for kind, found in (("input", inputs), ("output", outputs)):
        if len(found) != 1:
            raise ValueError(f"graph must have one {kind}, got {', '.join(found) or 'none'}")
    sources: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in edges:
        sources[target].append(source)
    modules = {}
    for name in _in_order(sources):
        try:
            modules[name] = _module_of(nodes[name], dt, decay, surrogate)
        except ValueError as error:
            raise ValueError(f"{name} ({type(nodes[name]).__name__}): {error}") from None
        if not sources[name] and name not in inputs:
            raise ValueError(f"{name} ({type(nodes[name]).__name__}): nothing leads to it")
    return NIRNetwork(modules, sources, outputs[0])


def _attribute(name: str) -> str:
    """A node's name as that of a submodule; those of nn.Module itself are taken."""
    name = name.replace(".", "_")
    return f"node_{name}" if hasattr(nn.Module, name) or name in ("order", "sources", "output") else name


def _flattened(graph: Any, prefix: str = "") -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The nodes and edges of a graph with those of its subgraphs in their place."""
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    enters: dict[str, str] = {}
    leaves: dict[str, str] = {}
    for name, node in graph.nodes.items():
        if not isinstance(node, nir.NIRGraph):
            nodes[prefix + name] = node
            continue
        inner, inner_edges = _flattened(node, f"{prefix}{name}.")
        for key, part in inner.items():
            # The ends of a subgraph are no ends of the whole.
            if isinstance(part, nir.Input):
                enters[name] = key
            elif isinstance(part, nir.Output):
                leaves[name] = key
            nodes[key] = _THROUGH if isinstance(part, nir.Input | nir.Output) else part
        edges += inner_edges
    for source, target in dict.fromkeys(map(tuple, graph.edges)):
        edges.append((leaves.get(source, prefix + source), enters.get(target, prefix + target)))
    return nodes, edges


def _in_order(sources: dict[str, list[str]]) -> list[str]:
    """The nodes, each after those that lead to it."""
    order: dict[str, None] = {}
    left = dict(sources)
    while left:
        ready = [name for name, before in left.items() if all(one in order for one in before)]
        if not ready:
            raise ValueError(f"graph has a cycle through {', '.join(left)}: recurrent weights are not read")
        for name in ready:
            order[name] = None
            del left[name]
    return list(order)


def _tensor(array: Any) -> Tensor:
    return torch.as_tensor(np.asarray(array)).to(torch.get_default_dtype()).clone()


def _plain(value: Any) -> Any:
    """A size as torch takes it."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    return int(array) if array.ndim == 0 else tuple(int(size) for size in array)


def _module_of(node: Any, dt: float, decay: str, surrogate: Surrogate) -> nn.Module:
    if isinstance(node, _NEURONS):
        return layer_of(node, dt, decay, surrogate)
    if type(node) not in _MODULES:
        raise ValueError("no module of this package equals the node")
    return _MODULES[type(node)](node)


def _linear(node: Any) -> nn.Module:
    weight = _tensor(node.weight)
    if weight.dim() != 2:
        raise ValueError(f"weight must have two axes, got {tuple(weight.shape)}")
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=hasattr(node, "bias"))
    return _filled(linear, node)


def _filled(module: Any, node: Any) -> nn.Module:
    """The module with the weights of a node."""
    with torch.no_grad():
        module.weight.copy_(_tensor(node.weight))
        if module.bias is not None:
            module.bias.copy_(_tensor(node.bias))
    filled: nn.Module = module
    return filled


def _convolution(node: Any) -> nn.Module:
    kind: Any = nn.Conv1d if isinstance(node, nir.Conv1d) else nn.Conv2d
    outer, inner, *kernel = node.weight.shape
    sizes = {name: _plain(getattr(node, name)) for name in ("stride", "padding", "dilation", "groups")}
    return TimeDistributed(_filled(kind(inner * sizes["groups"], outer, kernel, **sizes), node))


def _pooling(node: Any) -> nn.Module:
    kernel, stride, padding = (_plain(getattr(node, name)) for name in ("kernel_size", "stride", "padding"))
    divisor = 1 if isinstance(node, nir.SumPool2d) else None
    return TimeDistributed(nn.AvgPool2d(kernel, stride, padding, divisor_override=divisor))


def _flatten(node: Any) -> nn.Module:
    start, end = _plain(node.start_dim), _plain(node.end_dim)
    return nn.Flatten(start + 2 if start >= 0 else start, end + 2 if end >= 0 else end)


def _identity(node: Any) -> nn.Module:
    return nn.Identity()


_MODULES: dict[type, Callable[[Any], nn.Module]] = {
    nir.Input: _identity,
    nir.Output: _identity,
    object: _identity,
    nir.Linear: _linear,
    nir.Affine: _linear,
    nir.Scale: lambda node: Scale(_tensor(node.scale)),
    nir.Conv1d: _convolution,
    nir.Conv2d: _convolution,
    nir.AvgPool2d: _pooling,
    nir.SumPool2d: _pooling,
    nir.Flatten: _flatten,
}
