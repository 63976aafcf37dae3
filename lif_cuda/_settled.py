"""What a layer knows of its calls before they come."""

from __future__ import annotations

from typing import Any

import torch

from ._agreement import check_options
from ._options import CallOptions

# Numbers of time steps, mostly, that a layer is called with.
MOST_CHANGES = 256


class Settled:
    """The checked options of a layer's calls, and what else does not change between them.

    It is compared by identity: what was checked once for a layer is known again at each call without a look
    at a single option.
    """

    __slots__ = ("_others", "for_good", "neurons", "options", "tensors")

    def __init__(
        self, options: CallOptions, tensors: tuple[int, ...], neurons: tuple[int, ...], for_good: bool
    ) -> None:
        self.options = options
        self.tensors = tensors  # places of the parameters that are tensors; the others are numbers, and stay
        self.neurons = neurons  # in the last axes of x, or its channels; (): any
        # Whether no option can change by itself, as a surrogate of a user's own may.
        self.for_good = for_good
        self._others: dict[Any, Settled] = {}

    def but(self, **changes: Any) -> Settled:
        """The same with some options changed: for the same changes the same object, as long as it is kept."""
        if torch.compiler.is_compiling():
            return self._with(changes)
        # Types stand beside values: True and 1 are equal, and not the same option.
        key = (*changes.items(), *map(type, changes.values()))
        try:
            known = self._others.get(key)
        except TypeError:  # not to be hashed, and no option: the checks say so
            return self._with(changes)
        if known is None:
            if len(self._others) >= MOST_CHANGES:
                self._others.clear()
            known = self._others[key] = self._with(changes)
        return known

    def _with(self, changes: dict[str, Any]) -> Settled:
        options = check_options(self.options._replace(**changes))
        return Settled(options, self.tensors, self.neurons, self.for_good)
