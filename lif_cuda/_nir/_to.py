"""From a module to a graph: the model runs once, and tensors say which module follows on which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import nir
import numpy as np
import torch
from torch import Tensor, nn

from .._convert._layer import Converted
from .._module import LIFModule
from ..layers import LIF
from ..time_distributed import TimeDistributed
from ._neurons import node_of

# Those that leave no trace in a graph.
_PASSED_OVER = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def _pair(value: Any) -> Any:
    return np.array([value, value] if isinstance(value, int) else list(value))


def _weights(module: Any) -> dict[str, Any]:
    bias = module.bias if module.bias is not None else torch.zeros(module.weight.shape[0])
    return {"weight": _array(module.weight), "bias": _array(bias)}


def _array(tensor: Tensor) -> Any:
    return tensor.detach().cpu().numpy()


def _linear(module: Any, shape: tuple[int, ...]) -> Any:
    if module.bias is None:
        return nir.Linear(weight=_array(module.weight))
    return nir.Affine(**_weights(module))


def _convolution(module: Any, shape: tuple[int, ...]) -> Any:
    if module.padding_mode != "zeros":
        raise ValueError(f"NIR cannot say padding_mode={module.padding_mode!r}")
    flat = isinstance(module, nn.Conv1d)
    sizes = {name: getattr(module, name) for name in ("stride", "padding", "dilation")}
    if flat:
        sizes = {name: size if isinstance(size, str) else size[0] for name, size in sizes.items()}
    kind: Any = nir.Conv1d if flat else nir.Conv2d
    inputs = shape[-1] if flat else tuple(shape[-2:])
    return kind(input_shape=inputs, groups=module.groups, **sizes, **_weights(module))


def _average(module: Any, shape: tuple[int, ...]) -> Any:
    if module.ceil_mode or module.divisor_override or not (module.count_include_pad or module.padding == 0):
        raise ValueError("NIR cannot say ceil_mode, divisor_override or count_include_pad=False")
    return nir.AvgPool2d(_pair(module.kernel_size), _pair(module.stride), _pair(module.padding))


_NODES: dict[type, Callable[[Any, tuple[int, ...]], Any]] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.AvgPool2d: _average,
}


class _Made(NamedTuple):
    """A tensor, and the node that made it."""

    name: str
    tensor: Tensor
    version: int

    def is_still(self, x: Tensor) -> bool:
        """Whether x is this tensor, or this with its first two axes as one, and nothing has changed it."""
        if x.numel() != self.tensor.numel() or x._version != self.version:
            return False
        more = x.dim() - self.tensor.dim()
        wide, narrow = (x, self.tensor) if more > 0 else (self.tensor, x)
        if abs(more) > 1:
            return False
        if more:
            wide = wide.flatten(0, 1)
        return wide.shape == narrow.shape and wide.stride() == narrow.stride()


class _Tracer:
    """What the modules of a model do on the way from its input to its output."""

    def __init__(self, sample: Tensor, dt: float, note: bool) -> None:
        self.lead = tuple(sample.shape[:2])
        self.dt, self.note = dt, note
        self.nodes: dict[str, Any] = {"input": None}
        self.edges: list[tuple[str, str]] = []
        # What each node made, by its memory; all of it stays, so that no memory is used twice.
        self.made: dict[int, list[_Made]] = {}
        self.folded = False
        self.produced("input", sample)

    def produced(self, name: str, tensor: Tensor) -> None:
        """Remember that this node made the tensor."""
        self.made.setdefault(tensor.data_ptr(), []).append(_Made(name, tensor, tensor._version))

    def source_of(self, x: Tensor) -> str | None:
        """The node that made x, as it is or with time folded into the batch; None: some operation did."""
        for made in reversed(self.made.get(x.data_ptr(), [])):
            if made.is_still(x):
                return made.name
        return None

    def features(self, tensor: Tensor) -> tuple[int, ...]:
        """The shape of one step of one sample."""
        lead = self.lead[0] * self.lead[1]
        if self.folded and tensor.shape[0] == lead:
            return tuple(tensor.shape[1:])
        if tuple(tensor.shape[:2]) == self.lead:
            return tuple(tensor.shape[2:])
        raise ValueError(f"a tensor must be [T, B, ...] = {[*self.lead, '...']}, got {tuple(tensor.shape)}")

    def called(self, name: str, module: nn.Module, x: Any, out: Any) -> None:
        """A leaf of the model was called."""
        out = out[0] if isinstance(out, tuple) else out
        if not isinstance(x, Tensor) or not isinstance(out, Tensor):
            raise ValueError(f"{name}: must take a tensor and return one, with or without a state")
        source = self.source_of(x)
        if source is None:
            raise ValueError(
                f"{name}: its input comes from an operation that is no module (an addition, a pooling "
                "function, ...); make a module of it, or build the graph with nir itself"
            )
        if isinstance(module, _PASSED_OVER):
            self.produced(source, out)
            return
        if name in self.nodes:
            raise ValueError(
                f"{name}: is called twice; NIR has a node once, so give it all steps in one call"
            )
        try:
            node = self.node(module, x)
            inputs, outputs = self.features(x), self.features(out)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        node.input_type = {"input": np.array(inputs)}
        node.output_type = {"output": np.array(outputs)}
        self.nodes[name] = node
        self.edges.append((source, name))
        self.produced(name, out)

    def node(self, module: Any, x: Tensor) -> Any:
        """The node of a leaf."""
        features = self.features(x)
        if isinstance(module, Converted):
            raise ValueError(
                "is called a step at a time; make a layer of lif_cuda, or use the library's exporter"
            )
        if isinstance(module, LIF):
            if module.options.steps is not None:
                raise ValueError("has steps, and NIR no constant input; give it an x with a time axis")
            channel = module.options.channel_dim
            axis = None if channel is None else channel % x.dim() - (x.dim() - len(features))
            return node_of(module, features, axis, self.dt, self.note)
        if isinstance(module, nn.Flatten):
            lead = x.dim() - len(features)
            start, end = module.start_dim % x.dim() - lead, module.end_dim % x.dim() - lead
            if start < 0:
                raise ValueError(f"flattens time or batch: start_dim must be {lead} or more")
            return nir.Flatten({"input": np.array(features)}, start, end)
        if type(module) not in _NODES:
            kind = type(module).__name__
            raise ValueError(
                f"NIR has no node for {kind}"
                + ("; fold it into the convolution before" if "BatchNorm" in kind else "")
            )
        return _NODES[type(module)](module, features)


def graph_of(model: nn.Module, sample: Tensor, dt: float, note: bool) -> Any:
    """The graph of a model; ``note``: what NIR cannot say is noted."""
    tracer = _Tracer(sample, dt, note)
    handles = []
    for path, module in model.named_modules():
        name = path or "model"
        if isinstance(module, TimeDistributed):
            handles.append(module.register_forward_pre_hook(lambda *_: setattr(tracer, "folded", True)))
            handles.append(module.register_forward_hook(lambda *_: setattr(tracer, "folded", False)))
        elif isinstance(module, LIFModule) or not any(True for _ in module.children()):
            handles.append(module.register_forward_hook(_hook(tracer, name)))
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            out = model(sample)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    out = out[0] if isinstance(out, tuple) else out
    source = tracer.source_of(out) if isinstance(out, Tensor) else None
    if source is None:
        raise ValueError("model must return what its last module returns; it computes something after that")
    nodes = {**tracer.nodes, "output": nir.Output({"output": np.array(tracer.features(out))})}
    nodes["input"] = nir.Input({"input": np.array(tracer.features(sample))})
    return nir.NIRGraph(nodes, [*tracer.edges, (source, "output")])


def _hook(tracer: _Tracer, name: str) -> Callable[[Any, Any, Any], None]:
    return lambda module, inputs, out: tracer.called(name, module, inputs[0] if inputs else None, out)
