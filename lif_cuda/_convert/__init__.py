"""From the neurons of other libraries to layers of this one, in place.

Each library has a file of its own here, which is imported when one of its neurons is met, and never before.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from .. import _check
from .._layer_parameters import LayerParameters
from ._layer import Converted, NoEqualError, Recipe, layer_of

# Where the classes of each library's neurons come from, and the file that knows them.
_NEURONS = {
    "snntorch._neurons": "_snntorch",
    "spikingjelly.activation_based.neuron": "_spikingjelly",
    "norse.torch.module.snn": "_norse",
    "sinabs.layers.stateful_layer": "_sinabs",
}
_LOG = logging.getLogger("lif_cuda")


@dataclass(frozen=True)
class Conversion:
    """What :func:`convert` did with a neuron.

    Attributes:
        path: its name in the model, as in ``model.named_modules()``; "" is the model itself.
        neuron: its class, with the library.
        layer: what stands in its place now; None: it was left alone.
        reason: why it was left alone.
    """

    path: str
    neuron: str
    layer: str | None
    reason: str | None = None

    def __str__(self) -> str:
        done = self.layer or f"left alone: {self.reason}"
        return f"{self.path or 'model'}: {self.neuron} -> {done}"


@dataclass
class _Found:
    """A neuron, each place where it stands, and what becomes of it."""

    module: nn.Module
    knows: ModuleType
    places: list[tuple[nn.Module, str]]
    path: str
    recipe: Recipe | None = None
    reason: str | None = None


def convert(
    model: nn.Module, *, strict: bool = True, report: Callable[[Conversion], object] | None = None
) -> nn.Module:
    """Replace the neurons of snnTorch, SpikingJelly, Norse and sinabs in ``model`` by layers that equal them.

    Each layer has the neuron's values, surrogate, reset and conventions, gives its spikes and its gradients
    (``docs/migrating.md`` says how closely), and is called as it was: the code around it stays as it is. Its
    method ``run`` runs all time steps in one launch. The state starts anew.

    A parameter that is stored here as it was there is the same ``nn.Parameter``, so that an optimizer goes on
    with it; the others (SpikingJelly's ``w`` is ``-beta_logit``, sinabs' ``tau_mem`` a function of it) are
    new ones in its place. All keep their order.

    Args:
        model: a module; it is changed in place.
        strict: raise where a neuron has no equal, and change nothing; False: leave those alone.
        report: called with a :class:`Conversion` for each neuron, such as ``print`` or ``found.append``; by
            default they are logged as ``lif_cuda``, at the level INFO.

    Returns:
        The model; the new layer where ``model`` is itself a neuron.

    Warns:
        UserWarning: ``model`` has neither neurons of these libraries nor layers of this one.

    Raises:
        TypeError: ``model`` is no ``nn.Module``.
        ValueError: with ``strict``, neurons have no equal; the message names each, and why.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {_check.type_name(model)}")
    _check.check_flag("strict", strict)
    neurons = list(_neurons_of(model))
    if not neurons and not any(isinstance(module, LayerParameters) for module in model.modules()):
        warnings.warn(
            f"convert found no neuron of snnTorch, SpikingJelly, Norse or sinabs in "
            f"{_check.type_name(model)}, and changed nothing; a neuron of a class of your own is replaced by "
            "hand: docs/migrating.md has the layer for each equation",
            stacklevel=2,
        )
    for found in neurons:
        _look_up(found)
    missing = [
        f"  {found.path or 'model'}: {_class_of(found.module)}: {found.reason}"
        for found in neurons
        if found.recipe is None
    ]
    if strict and missing:
        raise ValueError(
            "no layer of lif_cuda equals these neurons, so nothing was converted; with strict=False they are "
            "left alone:\n" + "\n".join(missing)
        )
    say = report or _log
    for found in neurons:
        text = None
        if found.recipe is not None:
            layer = layer_of(found.recipe, found.module)
            text = repr(layer)
            for parent, name in found.places:
                parent._modules[name] = layer
            if hasattr(found.knows, "replaced"):
                found.knows.replaced(found.module, layer)
            if found.module is model:
                model = layer
        say(Conversion(found.path, _class_of(found.module), text, found.reason))
    for knows in {found.knows.__name__: found.knows for found in neurons}.values():
        if hasattr(knows, "finished"):
            knows.finished(model)
    return model


def convert_state_dict(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A state_dict that the network of another library saved, for the converted ``model``.

    Args:
        state_dict: what was saved before :func:`convert`.
        model: the same network, after it.

    Returns:
        A new dict, for ``model.load_state_dict``; what does not belong to a converted layer is as it was.

    Raises:
        TypeError: ``model`` is no ``nn.Module``.
        ValueError: ``model`` has no converted layer, or the entries of one are not those of its neuron.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {_check.type_name(model)}")
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, Converted)}
    if not layers:
        raise ValueError("model has no converted layer; call lif_cuda.convert(model) before")
    found = dict(state_dict)
    for name, layer in layers.items():
        prefix = f"{name}." if name else ""
        own = [key for key in found if key.startswith(prefix) and "." not in key[len(prefix) :]]
        entries = {key.removeprefix(prefix): found.pop(key) for key in own}
        try:
            translated = layer.translated(entries)
        except (NoEqualError, KeyError) as error:
            raise ValueError(
                f"the entries of {name or 'model'} are not those of its neuron: {error}"
            ) from None
        found |= {prefix + key: value for key, value in translated.items()}
    return found


def _log(conversion: Conversion) -> None:
    _LOG.info("%s", conversion)


def _class_of(module: nn.Module) -> str:
    kind = type(module)
    return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"


def _file_of(module: nn.Module) -> str | None:
    """The file that knows this neuron; None: it is no neuron of another library."""
    if isinstance(module, Converted):
        return None
    for kind in type(module).__mro__:
        for origin, file in _NEURONS.items():
            if kind.__module__ == origin or kind.__module__.startswith(f"{origin}."):
                return file
    return None


def _neurons_of(model: nn.Module) -> Iterator[_Found]:
    """The neurons of a model, each once, however often it is used."""
    found: dict[int, _Found] = {}
    seen: set[int] = set()

    def visit(module: nn.Module, path: str, place: tuple[nn.Module, str] | None) -> None:
        places = [place] if place else []
        if id(module) in found:
            found[id(module)].places += places
            return
        file = _file_of(module)
        if file is not None:
            knows = importlib.import_module(f"{__name__}.{file}")
            found[id(module)] = _Found(module, knows, places, path)
            return
        if id(module) in seen:
            return
        seen.add(id(module))
        for name, child in module._modules.items():
            if child is not None:
                visit(child, f"{path}.{name}" if path else name, (module, name))

    visit(model, "", None)
    yield from found.values()


def _look_up(found: _Found) -> None:
    """Find the recipe of a neuron, or the reason why it has none."""
    recipes: dict[type, Any] = found.knows.RECIPES
    make = recipes.get(type(found.module))
    if make is None:
        bases = [kind.__name__ for kind in type(found.module).__mro__ if kind in recipes]
        of = (
            f"a subclass of {bases[0]}, whose own code may do anything"
            if bases
            else "this neuron has no equal"
        )
        found.reason = of
        return
    try:
        found.recipe = make(found.module)
    except NoEqualError as error:
        found.reason = str(error)
