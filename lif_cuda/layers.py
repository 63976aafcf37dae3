"""The fused layer."""

from __future__ import annotations

from . import functional
from ._module import LIFModule


class LIF(LIFModule):
    __doc__ = (LIFModule.__doc__ or "").replace(
        "Base of :class:`lif_cuda.LIF` (fused) and :class:`lif_cuda.ReferenceLIF` (plain PyTorch).",
        "Leaky integrate-and-fire neurons: all T time steps in one launch forward and one backward.",
    )

    _lif = staticmethod(functional.lif)
