"""How training went: what was logged over its steps, and where it diverged and went back."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, SymmetricalLogLocator
from numpy.typing import NDArray

from farout.metrics.vectors import Vector
from farout.report.figures.style import (
    INK,
    QUIET,
    TEXT,
    canvas,
    key,
    label,
    legend_rows,
    line_style,
    place,
    quiet,
    shortened,
)

POINTS = 200  # of a drawn line; a longer one is drawn stretch by stretch
DOTTED = 40  # up to so many points are marked, too
CENTRAL = (0.02, 0.98)  # quantiles of what a frame shows for certain
WIDER, WIDER_IN_LOG = 1.5, 0.5  # times their distance is shown on either side of them
PANEL, GAP, TOP, FOOT = 1.6, 0.2, 0.5, 0.4  # inches: a panel, between panels, above and below them
DIVERGED = "diverged, went back"


@dataclass(frozen=True)
class CurvePanel:
    """Lines (N,) by name, over the same N steps; NaN and infinity are gaps.

    `logarithmic` is for lines of very different heights; it is linear between -1 and 1.
    """

    title: str
    lines: Mapping[str, Vector]
    logarithmic: bool = False

    def frame(self) -> tuple[float, float]:
        """Bottom and top, which spikes leave: room for the central values, and for others that lie near."""
        finite = [values[np.isfinite(values)] for values in self.lines.values()]
        pooled = np.concatenate([*finite, np.empty(0)])
        if not pooled.size:
            return 0.0, 1.0
        pooled = np.arcsinh(pooled) if self.logarithmic else pooled
        first, last = np.quantile(pooled, CENTRAL)
        distance = max(last - first, 1e-3 * max(abs(first), abs(last)), 1e-9)
        room = distance * (WIDER_IN_LOG if self.logarithmic else WIDER)
        inside = pooled[(pooled >= first - room) & (pooled <= last + room)]
        margin = 0.05 * max(np.ptp(inside), room)
        low, high = float(inside.min() - margin), float(inside.max() + margin)
        if self.logarithmic:  # with 0 in it, so that powers of ten are
            return float(np.sinh(min(low, -margin))), float(np.sinh(max(high, margin)))
        return low, high

    def outside(self) -> dict[str, NDArray[np.bool_]]:
        """By line, (N,) flags of the finite values that the frame does not hold."""
        low, high = self.frame()
        return {name: np.isfinite(y) & ((y < low) | (y > high)) for name, y in self.lines.items()}


def training_curves_figure(
    title: str, steps: Vector, panels: Sequence[CurvePanel], restarts: Iterable[int] = (), heading: str = ""
) -> Figure:
    """Panels below each other over the same steps (N,); a line has one colour in all of them.

    `restarts` are the steps at which training had diverged.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    marks = sorted(set(restarts))
    rows = legend_rows([*names, *([DIVERGED] if marks else [])], 3)
    below = FOOT + 0.15 * rows + 0.06
    figure = canvas(TOP + len(panels) * PANEL + (len(panels) - 1) * GAP + below, title, heading)
    axes = np.atleast_1d(figure.subplots(len(panels), 1, sharex=True))
    place(figure, 0.62, 0.26, TOP, below, (0, GAP))
    for axis, panel in zip(axes, panels, strict=True):
        _draw(axis, steps, panel, names)
        for step in marks:
            axis.axvline(step, color=INK, linewidth=0.9, linestyle=(0, (1, 1.5)), zorder=2)
    axes[-1].set_xlim(0, max(1.0, float(steps[-1]), *marks))
    axes[-1].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes[-1].xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    axes[-1].set_xlabel("step", fontsize=TEXT, color=QUIET, labelpad=2)
    _legend(figure, names, bool(marks))
    return figure


def _draw(axis: Axes, steps: Vector, panel: CurvePanel, names: Sequence[str]) -> None:
    low, high = panel.frame()
    if panel.logarithmic:
        axis.set_yscale("symlog", linthresh=1)
        axis.yaxis.set_major_locator(_sparse(low, high))
        axis.yaxis.set_major_formatter(lambda value, _: _power(value))
    beyond = 0.1 * (high - low)  # a spike goes on to the frame's edge and no farther: huge numbers make huge files
    for name, values in panel.lines.items():
        colour, dashes = line_style(names.index(name))
        x, *found = stretches(steps, values)
        middle, lowest, highest = (np.clip(y, low - beyond, high + beyond) for y in found)
        look: Any = {"marker": ".", "markersize": 4} if len(x) <= DOTTED else {}
        axis.plot(x, middle, dashes, color=colour, linewidth=1.2, zorder=3, **look)
        if len(values) > POINTS:
            axis.fill_between(x, lowest, highest, color=colour, alpha=0.28, linewidth=0.3, zorder=2)
    axis.axhline(0, color=QUIET, linewidth=0.7, zorder=1)
    axis.set_ylim(low, high)
    axis.set_ylabel(panel.title, fontsize=TEXT, color=QUIET, labelpad=3)
    quiet(axis, grid=True)


def _sparse(low: float, high: float) -> SymmetricalLogLocator:
    """Powers of ten, not all where there are many."""
    decades = np.log10(max(abs(low), abs(high), 1.0))
    locator = SymmetricalLogLocator(base=10.0 ** max(1, int(decades // 4)), linthresh=1)
    locator.set_params(numticks=9)
    return locator


def _power(value: float) -> str:
    """100, then 1e5: as wide as the margin."""
    short = f"{value:g}" if abs(value) < 1e4 else f"{value:.0e}".replace("e+0", "e")
    return short.replace("-", "\N{MINUS SIGN}")


def stretches(steps: Vector, values: Vector, limit: int = POINTS) -> tuple[Vector, Vector, Vector, Vector]:
    """Middle step, median, lowest and highest value of at most `limit` stretches of the points (N,).

    Where there are no more than `limit` points each is a stretch of its own. A stretch without a finite value is NaN.
    """
    finite = np.where(np.isfinite(values), values, np.nan)
    if len(values) <= limit:
        return steps, finite, finite, finite
    parts = np.array_split(np.arange(len(values)), min(limit, len(values) // 2))
    found = np.full((3, len(parts)), np.nan)
    for i, part in enumerate(parts):
        if (own := finite[part][np.isfinite(finite[part])]).size:
            found[:, i] = np.median(own), own.min(), own.max()
    return np.array([steps[part].mean() for part in parts]), *found


def _legend(figure: Figure, names: Sequence[str], marks: bool) -> None:
    """Below everything, three names a row."""
    looks = [line_style(position) for position in range(len(names))]
    handles = [Line2D([], [], color=colour, ls=dashes, linewidth=1.2) for colour, dashes in looks]
    shown = [label(shortened(name, 24)) for name in names]
    if marks:
        handles.append(Line2D([], [], color=INK, linewidth=0.9, linestyle=(0, (1, 1.5))))
        shown.append(DIVERGED)
    key(figure, handles, shown, 3, (0.05, 0.02), from_bottom=True, handlelength=2.2, labelspacing=0.3)
