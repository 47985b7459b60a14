"""Angles of embeddings: how far classes, images and OOD sets lie apart, ours beside the paper's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpecFromSubplotSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from farout.report.figures.style import INK, PALETTE, QUIET, SMALL, TEXT, canvas, key, label, quiet, shortened

WIDTH, LEFT, RIGHT, GAP = 6.6, 1.7, 0.12, 0.16  # inches; GAP: between panels
TOP, BETWEEN, FOOT = 0.78, 0.22, 0.8  # inches: above the bars, between them and the dots, below these
BAND, LINE = 0.36, 0.19  # inches: a network's two bars, an OOD set's line of dots
PANELS = {
    "dispersion": "dispersion: classes from each\nother, larger is better",
    "compactness": "compactness: images from\ntheir class, smaller is better",
    "separability": "separability: OOD farther than\nID is, larger is better",
}
THEIRS = "the paper (? not confirmed)"
PUBLISHED: Any = {"facecolor": "none", "edgecolor": INK, "linewidth": 0.8}


@dataclass(frozen=True)
class AngleRow:
    """One network seen in one space, in degrees: a value for every seed, none where it was not run.

    Attributes:
        name: of network and space.
        colour: place in the palette, the same in every space of a network; `pale` in all spaces but the first.
        angles: measure (a key of PANELS) -> our values; published: measure -> the paper's value, and its mark.
        apart: OOD set -> our separability from it alone.
    """

    name: str
    colour: int
    pale: bool
    angles: Mapping[str, Sequence[float]]
    published: Mapping[str, tuple[float, str]]
    apart: Mapping[str, Sequence[float]]


def angles_figure(rows: Sequence[AngleRow], heading: str = "") -> Figure:
    """Bars of each measure, a line a network; under them dots of separability, a line an OOD set."""
    sets = list(dict.fromkeys(name for row in rows for name in row.apart))
    upper, lower = BAND * len(rows), LINE * len(sets)
    height = TOP + upper + BETWEEN + lower + FOOT
    figure = canvas(height, "Angles of embeddings (degrees)", heading, WIDTH)
    grid = figure.add_gridspec(2, 1, height_ratios=[upper, lower], hspace=2 * BETWEEN / (upper + lower))
    sides = {"left": LEFT / WIDTH, "right": 1 - RIGHT / WIDTH}
    grid.update(**sides, top=1 - TOP / height, bottom=FOOT / height)
    across = (WIDTH - LEFT - RIGHT - 2 * GAP) / 3
    panels = GridSpecFromSubplotSpec(1, 3, grid[0], wspace=GAP / across)
    for place, measure in enumerate(PANELS):
        _bars(figure.add_subplot(panels[place]), rows, measure, place == 0)
    _dots(figure.add_subplot(grid[1]), rows, sets)
    _legend(figure, rows)
    return figure


def _bars(axis: Axes, rows: Sequence[AngleRow], measure: str, named: bool) -> None:
    """Ours filled, the paper's under it as an outline, each with its value."""
    quiet(axis)
    known = [row.angles.get(measure) or [0.0] for row in rows]
    widest = max([fmean(values) for values in known] + [row.published.get(measure, (0.0, ""))[0] for row in rows])
    for line, row in enumerate(rows):
        values = row.angles.get(measure)
        if values:
            look: Any = {"color": PALETTE[row.colour], "alpha": 0.5 if row.pale else 1.0}
            bar = axis.barh(line - 0.2, fmean(values), 0.34, **look)
            axis.bar_label(bar, [_number(values)], fontsize=SMALL, color=INK, padding=3)
        else:
            axis.text(0.02 * widest, line - 0.2, "not run", fontsize=SMALL, color=QUIET, va="center")
        if measure in row.published:
            value, mark = row.published[measure]
            bar = axis.barh(line + 0.2, value, 0.28, **PUBLISHED)
            axis.bar_label(bar, [f"{value:.1f}{mark}"], fontsize=SMALL, color=QUIET, padding=3)
    axis.set_yticks(range(len(rows)), [label(row.name) for row in rows] if named else [], fontsize=TEXT)
    axis.tick_params(axis="y", labelcolor=INK, length=0)
    axis.set(ylim=(len(rows) - 0.45, -0.55), xlim=(min(0.0, *(fmean(v) for v in known)), 1.52 * widest), xticks=[])
    axis.set_title(PANELS[measure], fontsize=SMALL, color=QUIET, loc="left", pad=3)


def _number(values: Sequence[float]) -> str:
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def _dots(axis: Axes, rows: Sequence[AngleRow], sets: Sequence[str]) -> None:
    """A dot for every seed: what there is of spread is seen as it is."""
    quiet(axis, grid=True)
    for row in rows:
        points = [(value, line) for line, name in enumerate(sets) for value in row.apart.get(name, ())]
        if points:
            axis.plot(*zip(*points, strict=True), **_marker(row), clip_on=False, zorder=2 if row.pale else 3)
    axis.axvline(0, color=QUIET, linewidth=0.8, zorder=1)
    axis.set_yticks(range(len(sets)), [label(shortened(name, 28)) for name in sets], fontsize=TEXT)
    axis.tick_params(axis="y", labelcolor=INK, length=0)
    axis.set_ylim(len(sets) - 0.4, -0.6)
    axis.set_xlabel("separability from each OOD set (degrees)", fontsize=TEXT, color=QUIET, labelpad=2)


def _marker(row: AngleRow) -> dict[str, Any]:
    colour = PALETTE[row.colour]
    fill = "none" if row.pale else colour
    return {"marker": "o", "markersize": 4.5, "linestyle": "none", "color": colour, "markerfacecolor": fill}


def _legend(figure: Figure, rows: Sequence[AngleRow]) -> None:
    run = [row for row in rows if row.angles]
    handles: list[Any] = [Line2D([], [], **_marker(row)) for row in run]
    names = [label(row.name) for row in run]
    if any(row.published for row in rows):
        handles, names = [*handles, Patch(**PUBLISHED)], [*names, THEIRS]
    key(figure, handles, names, 3, (0.05, 0.02), from_bottom=True, handlelength=1.6, columnspacing=1.2)
