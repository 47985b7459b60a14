"""The embedding on the unit sphere: its first two principal components, and angles to the nearest direction."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from farout.metrics.vectors import Vector, finite_vector
from farout.report.evidence import ID, Sphere
from farout.report.figures.histograms import BINS, KEPT, histogram_grid
from farout.report.figures.style import (
    GRID,
    ID_COLOUR,
    INK,
    OOD_COLOUR,
    PALETTE,
    PAPER,
    QUIET,
    SMALL,
    TEXT,
    WIDTH,
    canvas,
    key,
    label,
    legend_rows,
    quiet,
    shortened,
)

CLASS_COLOURS = (*PALETTE, "#999933", "#7b5fc0", "#8b5a2b")  # of medium lightness, for a light and a dark page
NAMED = len(CLASS_COLOURS)  # classes that a legend names; where there are more, the colours come again
COLUMNS = 3  # panels of OOD sets beside each other
DOT = 2.0  # points: the width of an image's dot
LEFT, RIGHT, TOP, GAP, NAME = 0.52, 0.12, 0.5, 0.12, 0.24  # inches
AXIS, NAMES, MARKS = 0.52, 0.95, 0.2  # inches: below the upper panel, beside it, and of the legend below both

Points = NDArray[np.float32]
Box = tuple[float, float, float, float]  # lower x, upper x, lower y, upper y


def embedding_figure(sphere: Sphere, titles: Mapping[str, str], title: str, heading: str = "") -> Figure:
    """Above, the ID images by class and each class's direction; below, every OOD set (set -> title) upon them.

    All panels show the same plane on the same scale, a unit as long across as up.
    """
    drawn = {name: sphere.points[ood] for ood, name in titles.items() if ood in sphere.points}
    box = shared_box([sphere.directions, sphere.points[ID], *drawn.values()])
    ratio = (box[3] - box[2]) / (box[1] - box[0])
    named = len(sphere.class_names) <= NAMED
    large = WIDTH - LEFT - (NAMES if named else RIGHT)
    small = (WIDTH - 2 * RIGHT - GAP * (COLUMNS - 1)) / COLUMNS
    above, row = TOP + large * ratio + AXIS, small * ratio + NAME
    below = MARKS + legend_rows(list(drawn), COLUMNS) * row + 0.08 if drawn else 0
    figure = canvas(above + below, title, heading)
    _by_class(_axes(figure, LEFT, TOP, large, box), sphere)
    if named:
        _legend(figure, _class_marks(sphere.class_names), LEFT + large + 0.05, TOP - 0.02, 1)
    for position, (name, points) in enumerate(drawn.items()):
        left = RIGHT + position % COLUMNS * (small + GAP)
        top = above + MARKS + position // COLUMNS * row + NAME - 0.04
        _against_id(_axes(figure, left, top, small, box), sphere, points, name)
    if drawn:
        marks = [_mark("o", ID_COLOUR, "ID"), _mark("o", OOD_COLOUR, "OOD"), _mark("s", INK, "direction of a class")]
        _legend(figure, marks, 0.02, above, 3)
    return figure


def shared_box(parts: Sequence[Points]) -> Box:
    """Limits that hold all points with a margin, the panel neither very flat nor higher than wide."""
    every = np.concatenate(parts)
    low, high = every.min(axis=0).astype(float), every.max(axis=0).astype(float)
    spans = np.maximum(1.08 * (high - low), 1e-3)
    width = max(spans[0], spans[1])
    height = max(spans[1], 0.6 * width)
    middle = (low + high) / 2
    return middle[0] - width / 2, middle[0] + width / 2, middle[1] - height / 2, middle[1] + height / 2


def _axes(figure: Figure, left: float, top: float, width: float, box: Box) -> Axes:
    """A panel of that width at a place in inches from the upper left corner, on the same scale across and up."""
    across, down = figure.get_size_inches()
    height = width * (box[3] - box[2]) / (box[1] - box[0])
    axis = figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))
    axis.set(xlim=box[:2], ylim=box[2:])
    return axis


def _by_class(axis: Axes, sphere: Sphere) -> None:
    for place in np.unique(sphere.labels):
        colour = CLASS_COLOURS[place % NAMED] if place >= 0 else QUIET
        dots(axis, sphere.points[ID][sphere.labels == place], colour, 0.6)
    size = 5 if len(sphere.directions) <= NAMED else 3.5
    for place, (x, y) in enumerate(sphere.directions):
        style: dict[str, Any] = {"markersize": size, "markeredgecolor": INK, "markeredgewidth": 1, "clip_on": False}
        axis.plot(x, y, "s", color=CLASS_COLOURS[place % NAMED], **style)
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(MaxNLocator(5))
    quiet(axis, grid=True)
    first, second = 100 * sphere.share
    words = f"first principal component of the unit vectors of\nID and class directions ({first:.1f} % of variance)"
    axis.set_xlabel(words, fontsize=SMALL, color=QUIET, labelpad=3)
    axis.set_ylabel(f"second component ({second:.1f} %)", fontsize=SMALL, color=QUIET, labelpad=3)


def _against_id(axis: Axes, sphere: Sphere, points: Points, name: str) -> None:
    dots(axis, sphere.points[ID], ID_COLOUR, 0.6)
    dots(axis, points, OOD_COLOUR, 0.75)
    size = 3.4 if len(sphere.directions) <= NAMED else 2.0
    for colour, more in ((PAPER, 1.6), (INK, 0.0)):
        dots(axis, sphere.directions, colour, 1.0, size + more, "projecting")
    axis.set_title(label(shortened(name, 18)), fontsize=TEXT, color=INK, loc="left", pad=3)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(color=GRID, linewidth=0.8)


def dots(axis: Axes, points: Points, colour: str, alpha: float, size: float = DOT, cap: str = "round") -> None:
    """Dots (or squares: projecting caps) as one path, in the page's colours: a tenth of the letters of markers."""
    low, high = axis.get_xlim()
    dash = 0.2 * (high - low) / (72 * axis.get_position().width * WIDTH)  # 0.2 points long, or it would vanish
    ends = points.astype(float) + np.array([dash, 0.0])
    corners = np.stack([points.astype(float), ends], axis=1).reshape(-1, 2)
    path = Path(corners, np.tile([Path.MOVETO, Path.LINETO], len(points)))
    path.should_simplify = False
    # Snapped to pixels, some dots would lose their length and vanish.
    style: dict[str, Any] = {"facecolor": "none", "capstyle": cap, "zorder": 2, "clip_on": False, "snap": False}
    axis.add_patch(PathPatch(path, edgecolor=colour, alpha=alpha, linewidth=size, **style))


def _class_marks(names: Sequence[str]) -> list[Line2D]:
    pairs = zip(names, CLASS_COLOURS, strict=False)
    return [_mark("s", colour, label(shortened(name, 12)), INK) for name, colour in pairs]


def _mark(marker: str, colour: str, name: str, edge: str = "none") -> Line2D:
    style: dict[str, Any] = {"color": colour, "markeredgecolor": edge, "markeredgewidth": 0.8, "linestyle": "none"}
    return Line2D([], [], marker=marker, markersize=4, label=name, **style)


def _legend(figure: Figure, handles: Sequence[Line2D], left: float, top: float, columns: int) -> None:
    """Marks at a place in inches from the upper left corner."""
    close: dict[str, Any] = {
        "handletextpad": 0.1,
        "columnspacing": 0.9,
        "labelspacing": 0.5,
        "borderpad": 0.1,
        "borderaxespad": 0.1,
    }
    key(figure, handles, [str(handle.get_label()) for handle in handles], columns, (left, top), **close)


def angle_figure(
    sphere: Sphere,
    titles: Mapping[str, str],
    title: str,
    notes: Mapping[str, str] | None = None,
    heading: str = "",
) -> Figure:
    """One panel per OOD set (set -> title): densities of the angles to the nearest direction, ID against OOD.

    The bins hold every image. Left of the dashed line lie 95 % of the ID images.
    """
    id_angles = finite_vector(sphere.angles[ID], "the angles of ID")
    sets = {
        name: finite_vector(sphere.angles[ood], f"the angles of {name}")
        for ood, name in titles.items()
        if ood in sphere.angles
    }
    figure = histogram_grid(
        id_angles,
        sets,
        angle_edges([id_angles, *sets.values()]),
        title,
        (f"{100 * KEPT:.0f} % of ID lie nearer", dict.fromkeys(sets, float(np.quantile(id_angles, KEPT)))),
        notes,
        heading,
    )
    words = "angle to the nearest direction of a class (degrees)"
    figure.supxlabel(words, fontsize=TEXT, color=QUIET, y=0.05 / figure.get_size_inches()[1])
    return figure


def angle_edges(parts: Sequence[Vector]) -> Vector:
    """Edges of bins over all angles, from 0 unless all are far from it: none is beyond, as an angle is bounded."""
    low, high = min(part.min() for part in parts), max(part.max() for part in parts)
    return np.linspace(0.0 if low < 0.4 * high else max(0.0, low - 1e-3), high + 1e-3, BINS + 1)
