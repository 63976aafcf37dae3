"""Networks to and from NIR, the Neuromorphic Intermediate Representation, through the package ``nir``.

``nir`` is imported when one of the two functions is called, and never before.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from .. import _check
from ..decay import DECAYS
from ..surrogate import FastSigmoid, Surrogate

Unsaid = Literal["raise", "note"]


def to_nir(model: nn.Module, sample: Tensor, *, dt: float = 1e-4, unsaid: Unsaid = "raise") -> Any:
    """The graph of a network in NIR, which says what its neurons do in continuous time.

    The model runs once on ``sample``, and each module that NIR knows becomes a node: Linear, Conv1d, Conv2d,
    AvgPool2d, Flatten, and layers of this package; ``nn.Identity`` and ``nn.Dropout`` become none. What lies
    between them must be modules as well.

    A beta is an Euler step of the node's time constant, ``1 - dt / tau``, as snnTorch and others write it.

    Args:
        model: a network over [T, B, ...].
        sample: an input, [T, B, ...]; its values do not matter.
        dt: the length of a time step in the unit of the time constants; 1e-4 s is that of snnTorch.
        unsaid: what to do where a layer has something that NIR cannot say (a reset by subtraction or a
            delayed one, firing at the threshold and not above it, a refractory period): ``"raise"``, or
            ``"note"`` it in the node's ``metadata``, where :func:`from_nir` reads it. Other readers will not.

    Returns:
        A ``nir.NIRGraph``, for ``nir.write``.

    Raises:
        ImportError: ``nir`` is not installed.
        TypeError, ValueError: an argument is not what is described above; or the model has a module, or a
            layer an option, that NIR cannot say; the message names it.
    """
    _need_nir()
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {_check.type_name(model)}")
    if not isinstance(sample, Tensor):
        raise TypeError(f"sample must be a torch.Tensor, got {_check.type_name(sample)}")
    if sample.dim() < 3:
        raise ValueError(f"sample must be [T, B, features...], got {tuple(sample.shape)}")
    _check_dt(dt)
    _check.check_choice("unsaid", unsaid, ("raise", "note"))
    from ._to import graph_of

    return graph_of(model, sample, dt, unsaid == "note")


def from_nir(
    graph: Any, *, dt: float = 1e-4, decay: str = "euler", surrogate: Surrogate | None = None
) -> nn.Module:
    """A network of layers of this package that computes what a NIR graph says, in steps of ``dt``.

    It takes [T, B, ...] and returns what the graph's output is, [T, B, ...]. Layers reset to ``v_reset`` and
    fire above their threshold, as NIR has it, but for what :func:`to_nir` noted.

    Args:
        graph: a ``nir.NIRGraph`` without cycles, with one input and one output.
        dt: the length of a time step in the unit of the graph's time constants: 1e-4 for graphs of snnTorch,
            1 for those of sinabs.
        decay: ``"euler"``, ``1 - dt / tau``; or ``"exp"``, ``exp(-dt / tau)``.
        surrogate: of all layers; NIR says nothing of gradients.

    Returns:
        A module with a module for each node, under the node's name.

    Raises:
        ImportError: ``nir`` is not installed.
        TypeError, ValueError: an argument is not what is described above, or the graph has a node that no
            module equals; the message names it.
    """
    nir = _need_nir()
    if not isinstance(graph, nir.NIRGraph):
        raise TypeError(f"graph must be a nir.NIRGraph, got {_check.type_name(graph)}")
    _check_dt(dt)
    _check.check_choice("decay", decay, DECAYS)
    if surrogate is not None and not isinstance(surrogate, Surrogate):
        raise TypeError(
            f"surrogate must be an object of lif_cuda.surrogate, got {_check.type_name(surrogate)}"
        )
    from ._from import network_of

    return network_of(graph, dt, decay, FastSigmoid() if surrogate is None else surrogate)


def _check_dt(dt: float) -> None:
    if _check.check_number("dt", dt, kind="a number") <= 0:
        raise ValueError(f"dt must be above 0, got {dt}")


def _need_nir() -> Any:
    try:
        import nir
    except ImportError as error:
        raise ImportError('NIR needs the package nir: pip install "lif_cuda[nir]"') from error
    return nir
