"""Histograms of scores, ID and OOD overlaid: every set of one score in a grid, or every score of one set in a row."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, StepPatch
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import ArrayLike

from farout.metrics.vectors import Vector, finite_vector
from farout.report.figures.style import (
    ID_COLOUR,
    INK,
    OOD_COLOUR,
    QUIET,
    SMALL,
    TEXT,
    WIDTH,
    canvas,
    key,
    label,
    place,
    quiet,
    shortened,
)

BINS, KEPT = 60, 0.95
COLUMNS = 2  # panels beside each other in the grid of one score
ROW_COLUMNS = 4  # and in a row of scores, which goes on below where there are more
SPIKE = 0.4  # share of the ID images in one bin from which the vertical axis is logarithmic
TALLEST = 2.5  # an OOD peak higher than this many ID peaks is cut, or it would flatten all else


def score_histogram(
    id_scores: ArrayLike,
    ood: Mapping[str, ArrayLike],
    title: str,
    score: str = "score",
    positive: str = "id",
    notes: Mapping[str, str] | None = None,
    heading: str = "",
) -> Figure:
    """One panel per OOD set: densities of its scores and of the ID scores, on the same bins and axes everywhere.

    Scores are 1-D, larger = more in-distribution. The dashed line is the threshold of 95 % recall of the
    positive class: it keeps 95 % of ID, or flags 95 % of that OOD set. `notes` stand at a panel's right.
    Raises FaroutError for empty scores or such as are not finite.
    """
    id_values = finite_vector(np.asarray(id_scores), f"{score}: the ID scores")
    sets = {name: finite_vector(np.asarray(v), f"{score}: the scores of {name}") for name, v in ood.items()}
    edges, beyond = shared_edges(id_values, list(sets.values()))
    thresholds = {
        name: float(np.quantile(id_values, 1 - KEPT) if positive == "id" else np.quantile(values, KEPT))
        for name, values in sets.items()
    }
    line = f"keeps {100 * KEPT:.0f} % of ID" if positive == "id" else f"flags {100 * KEPT:.0f} % of OOD"
    figure = histogram_grid(id_values, sets, edges, title, (line, thresholds), notes, heading)
    figure.supxlabel(_axis_name(score, beyond), fontsize=TEXT, color=QUIET, y=0.05 / figure.get_size_inches()[1])
    return figure


def histogram_grid(
    id_values: Vector,
    sets: Mapping[str, Vector],
    edges: Vector,
    title: str,
    line: tuple[str, Mapping[str, float]],
    notes: Mapping[str, str] | None = None,
    heading: str = "",
) -> Figure:
    """A panel per set: its density over that of ID, on the same bins and axes, and a dashed line at a threshold.

    `line` is what the dashed line does, in words, and its place by set. The horizontal axis is the caller's to name.
    """
    id_heights = heights(id_values, edges)
    ood_heights = {name: heights(values, edges) for name, values in sets.items()}
    columns = min(COLUMNS, max(1, len(sets)))
    rows = max(1, math.ceil(len(sets) / columns))
    figure = canvas(1.27 + 1.05 * rows + 0.3 * (rows - 1), title, heading)
    axes = _panels(figure, rows, columns, len(sets), sharex=True)
    place(figure, 0.3, 0.12, 0.8, 0.47, (0.16, 0.3))
    floor, ceiling = _span(id_heights, list(ood_heights.values()), edges, len(id_values))
    axes[0].set(xlim=(edges[0], edges[-1]), yscale="log" if floor else "linear", ylim=(floor, ceiling))
    _no_heights(axes[0])
    for axis, name in zip(axes, sets, strict=False):
        _panel(axis, edges, id_heights, ood_heights[name], line[1][name], floor)
        _name(axis, name, (notes or {}).get(name, ""))
        if (peak := ood_heights[name].max()) > ceiling:
            side, x = ("left", 0.02) if ood_heights[name].argmax() >= BINS // 2 else ("right", 0.98)  # off the peak
            words = f"peak {peak / ceiling:.1f} × higher"
            axis.annotate(words, (x, 0.9), xycoords="axes fraction", **{**_SIDE, "ha": side})
    _legend(figure, line[0])
    figure.supylabel("density (log scale)" if floor else "density", fontsize=TEXT, color=QUIET, x=0.06 / WIDTH)
    return figure


_SIDE: dict[str, Any] = {"ha": "right", "va": "top", "fontsize": SMALL, "color": QUIET}


@dataclass(frozen=True)
class Panel:
    """One score on one pair of sets; a note (its AUROC) may stand beside the name."""

    name: str
    id_scores: ArrayLike
    ood_scores: ArrayLike
    note: str = ""


def score_row(panels: Sequence[Panel], title: str, heading: str = "") -> Figure:
    """The layout of JEM's figure: panels in a row, each a score's histogram on ID against that on OOD.

    Scores have units of their own, so each panel has its own horizontal axis. The vertical one is common to
    all: density, where the tallest bin of a panel is 1. More than four panels go on below.
    """
    columns = min(ROW_COLUMNS, max(1, len(panels)))
    rows = max(1, math.ceil(len(panels) / columns))
    figure = canvas(1.12 + 0.9 * rows + 0.5 * (rows - 1), title, heading)
    axes = _panels(figure, rows, columns, len(panels))
    place(figure, 0.12, 0.12, 0.9, 0.22, (0.14, 0.5))
    axes[0].set_ylim(0, 1.08)
    _no_heights(axes[0])
    for axis, panel in zip(axes, panels, strict=False):
        id_values = finite_vector(np.asarray(panel.id_scores), f"{panel.name}: the ID scores")
        ood_values = finite_vector(np.asarray(panel.ood_scores), f"{panel.name}: the OOD scores")
        edges, _ = shared_edges(id_values, [ood_values])
        pair = heights(id_values, edges), heights(ood_values, edges)
        tallest = max(part.max() for part in pair)
        _panel(axis, edges, pair[0] / tallest, pair[1] / tallest, None)
        axis.set_xlim(edges[0], edges[-1])
        axis.xaxis.set_major_locator(MaxNLocator(2))
        axis.set_title(label(shortened(panel.name, 13)), fontsize=TEXT, color=INK, loc="left", pad=11, y=1.0)
        axis.annotate(panel.note, (0, 1.02), xycoords="axes fraction", fontsize=SMALL, color=QUIET)
    _legend(figure, "")
    height = figure.get_size_inches()[1]
    figure.text(1 - 0.12 / WIDTH, 1 - 0.43 / height, "density, tallest bin = 1", **_SIDE)
    return figure


def shared_edges(id_values: Vector, others: Sequence[Vector], bins: int = BINS) -> tuple[Vector, bool]:
    """Edges of bins for all of these scores, and whether some lie beyond and count in the outermost bins.

    The bins span the middle 99 % of every set, but no more than 1.5 times the width of ID on either side: some
    scores of noise images are thousands of times larger than all others.
    """
    low, high = np.quantile(id_values, [0.005, 0.995])
    spans = np.array([np.quantile(values, [0.005, 0.995]) for values in (id_values, *others)])
    reach = 1.5 * (high - low)
    if reach == 0:
        reach = np.inf
    first, last = max(spans[:, 0].min(), low - reach), min(spans[:, 1].max(), high + reach)
    least = 1e-6 * max(abs(first), abs(last), 1e-6)
    if last - first < least:
        first, last = first - 0.5 * max(abs(first), 1.0), last + 0.5 * max(abs(last), 1.0)
    edges = np.linspace(first, last, bins + 1)
    beyond = any(values.min() < first or values.max() > last for values in (id_values, *others))
    return edges, beyond


def heights(values: Vector, edges: Vector) -> Vector:
    """(bins,) densities that sum to 1 over the edges' span; values beyond it count in the outermost bins."""
    counts, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
    return counts / (len(values) * np.diff(edges))


def _span(id_heights: Vector, others: Sequence[Vector], edges: Vector, images: int) -> tuple[float, float]:
    """Limits of the vertical axis; the lower is above 0 where only a logarithmic one shows more than a spike.

    Softmax scores put most images into one bin. The logarithmic axis then begins below a single ID image.
    """
    tallest = max(part.max() for part in (id_heights, *others))
    width = edges[1] - edges[0]
    if id_heights.max() * width > SPIKE:
        return 0.5 / (images * width), 2 * tallest
    return 0.0, 1.08 * min(tallest, TALLEST * id_heights.max())


def _panel(
    axis: Axes, edges: Vector, id_heights: Vector, ood_heights: Vector, threshold: float | None, floor: float = 0.0
) -> None:
    for part, colour in ((id_heights, ID_COLOUR), (ood_heights, OOD_COLOUR)):
        face = to_rgba(colour, 0.35)
        values = np.maximum(part, floor)
        look: Any = {"fill": True, "facecolor": face, "edgecolor": colour, "linewidth": 1.1}
        # Not `stairs`, which measures the patch for limits: they are given.
        axis.add_artist(StepPatch(values, edges, baseline=floor, **look))
    if threshold is not None:
        axis.axvline(threshold, color=INK, linewidth=0.8, linestyle="--")
    quiet(axis)
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", which="both", left=False, labelleft=False)


def _panels(figure: Figure, rows: int, columns: int, count: int, sharex: bool = False) -> list[Axes]:
    """The first `count` places of a grid (one at least), all on one vertical axis; an axes takes long to make.

    Where the horizontal axis is common as well, only the lowest panel of each column has numbers.
    """
    grid = figure.add_gridspec(rows, columns)
    axes: list[Axes] = []
    for i in range(max(1, count)):
        first = axes[0] if axes else None
        axis = figure.add_subplot(grid[divmod(i, columns)], sharey=first, sharex=first if sharex else None)
        axis.tick_params(labelbottom=not sharex or i + columns >= count)
        axes.append(axis)
    if count == 0:
        axes[0].set_visible(False)
    return axes


def _no_heights(axis: Axes) -> None:
    """No ticks up the axis that all panels share: they would be made, a dozen a panel, only to be hidden."""
    axis.yaxis.set_major_locator(NullLocator())
    axis.yaxis.set_minor_locator(NullLocator())


def _name(axis: Axes, name: str, note: str) -> None:
    axis.set_title(label(shortened(name, 19 if note else 32)), fontsize=TEXT, color=INK, loc="left", pad=3, y=1.0)
    if note:
        axis.set_title(note, fontsize=SMALL, color=QUIET, loc="right", pad=3, y=1.0)


def _legend(figure: Figure, threshold: str) -> None:
    handles: list[Patch | Line2D] = [Patch(facecolor=ID_COLOUR, alpha=0.6), Patch(facecolor=OOD_COLOUR, alpha=0.6)]
    names = ["ID", "OOD"]
    if threshold:
        handles.append(Line2D([], [], color=INK, linewidth=0.8, linestyle="--"))
        names.append(threshold)
    key(figure, handles, names, 3, (0.02, 0.36), handlelength=1.6, columnspacing=1.2)


def _axis_name(score: str, beyond: bool) -> str:
    rest = "\noutermost bins also hold what lies beyond" if beyond else ""
    return label(f"{score} (larger = more in-distribution){rest}")
