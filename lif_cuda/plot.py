"""Pictures of spiking layers, with matplotlib: ``pip install "lif_cuda[plot]"``.

Each function draws into axes, or into a new figure of pyplot, and returns the axes. What is drawn may be on
any device; titles and the rest of the look are the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from . import _check

# Of Okabe and Ito, whose colours the colour-blind can tell apart.
BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#555555"


def raster(spikes: Tensor, ax: Any = None, *, busiest_first: bool = False) -> Any:
    """A spike raster: time to the right, a row for each neuron.

    Args:
        spikes: of one sample, [T, ...]; the neurons of all further axes are drawn one after the other.
        ax: axes to draw into.
        busiest_first: the neurons by their spikes, and only those that fire; False: all of them, by index.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: ``spikes`` is not what is described above.
    """
    series = _series("spikes", spikes)
    fired = (series.unsqueeze(1) if series.dim() == 1 else series.flatten(1)) != 0
    ax = _axes(ax)
    rows = fired.shape[1]
    if busiest_first:
        counts = fired.sum(0)
        order = torch.argsort(counts, descending=True, stable=True)
        rows = max(int((counts > 0).sum()), 1)
        fired = fired[:, order[:rows]]
    when, which = torch.nonzero(fired, as_tuple=True)
    # A bar as high as its row; axes in a figure are some 120 points high.
    size = min(max(100 / max(rows, 1), 1.0), 8)
    ax.plot(when.numpy() + 1, which.numpy() + 1, "|", color=BLUE, ms=size, mew=1.4)
    ax.set(
        xlabel="time step",
        ylabel="neuron, busiest first" if busiest_first else "neuron",
        xlim=(0, len(fired) + 1),
        ylim=(rows + 1, 0),
    )
    ax.grid(visible=False)
    return ax


def membrane(
    before: Tensor,
    ax: Any = None,
    *,
    after: Tensor | None = None,
    spikes: Tensor | None = None,
    threshold: float | None = None,
) -> Any:
    """The membrane of one neuron, or of some, step by step.

    Args:
        before: [T], or [T, neurons]: the membrane that is compared with the threshold
            (``output="trace_before_reset"``), or after the reset (``"trace"``).
        ax: axes to draw into.
        after: the same after the reset: each step then rises to the one and falls to the other.
        spikes: marks the steps that fired.
        threshold: a dashed line.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: a tensor is not what is described above, or not of the shape of ``before``.
    """
    line = _series("before", before)
    others = {}
    for name, value in (("after", after), ("spikes", spikes)):
        if value is not None:
            others[name] = _series(name, value)
            if others[name].shape != line.shape:
                raise ValueError(
                    f"{name} must have the shape of before, {tuple(line.shape)}, got {tuple(value.shape)}"
                )
    if line.dim() > 2:
        raise ValueError(
            f"before must be [T] or [T, neurons], got {tuple(line.shape)}; flatten or choose some"
        )
    ax = _axes(ax)
    time = torch.arange(1, len(line) + 1)
    if "after" in others:
        drawn = torch.stack([line, others["after"]], 1).flatten(0, 1)
        drawn_time = time.repeat_interleave(2)
    else:
        drawn, drawn_time = line, time
    lines = ax.plot(drawn_time.numpy(), drawn.numpy(), lw=1.3, **({"color": BLUE} if line.dim() == 1 else {}))
    if threshold is not None:
        ax.axhline(threshold, color=GREY, ls="--", lw=1)
    if "spikes" in others:
        single = line.dim() == 1
        columns = (line.unsqueeze(1), others["spikes"].unsqueeze(1)) if single else (line, others["spikes"])
        for neuron, values, fired in zip(lines, columns[0].T, columns[1].T != 0, strict=True):
            colour = VERMILION if single else neuron.get_color()
            ax.plot(time[fired].numpy(), values[fired].numpy(), "o", color=colour, ms=3.5)
    ax.set(xlabel="time step", ylabel="membrane")
    return ax


def firing_rates(rates: Mapping[str, float | Tensor], ax: Any = None) -> Any:
    """The firing rate of each layer, as bars: spikes per neuron and time step, in percent.

    Args:
        rates: for each layer its rate, 0 to 1, or its spikes, whose mean is the rate.
        ax: axes to draw into.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: ``rates`` is no mapping, or a value no number and no tensor.
    """
    if not isinstance(rates, Mapping):
        raise TypeError(f"rates must map names of layers to their rates, got {_check.type_name(rates)}")
    heights = {
        name: 100 * float(rate.detach().double().mean())
        if isinstance(rate, Tensor)
        else 100 * _check.check_number(f"rates[{name!r}]", rate)
        for name, rate in rates.items()
    }
    ax = _axes(ax)
    bars = ax.barh(range(len(heights)), list(heights.values()), 0.62, color=BLUE)
    ax.bar_label(bars, [f"{height:.1f} %" for height in heights.values()], padding=3)
    ax.set_yticks(range(len(heights)), list(heights))
    ax.set(
        xlabel="spikes per neuron and time step, %",
        xlim=(0, 1.25 * max([*heights.values(), 1e-3])),
        ylim=(len(heights) - 0.5, -0.5),
    )
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    return ax


def _series(name: str, value: object) -> Tensor:
    """A tensor with a time axis, ready for matplotlib."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {_check.type_name(value)}")
    if value.dim() == 0:
        raise ValueError(f"{name} must have a time axis, [T, ...], got a tensor without axes")
    series = value.detach().cpu()
    return series.float() if series.dtype in (torch.float16, torch.bfloat16) else series


def _axes(ax: Any) -> Any:
    """The axes to draw into."""
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError('lif_cuda.plot needs matplotlib: pip install "lif_cuda[plot]"') from error
    return pyplot.subplots()[1]
