"""Figures of attacks: accuracy over epsilon, and distal adversarials (noise turned into what a network is sure of)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from farout.report.figures.style import (
    QUIET,
    SMALL,
    TEXT,
    WIDTH,
    canvas,
    key,
    label,
    legend_rows,
    line_style,
    place,
    quiet,
    shortened,
)

AXES = {"linf": "L-infinity: epsilon (255ths of the pixel range)", "l2": "L2: epsilon (norm over pixels in [0, 1])"}
PANEL, GAP, TOP, FOOT = 1.75, 0.48, 0.5, 0.62  # inches: a panel, between panels, above and below them
WIDE = 6.6  # inches, of panels beside each other
MARKERS = ("o", "s", "^", "D")
LINE: Any = {"linewidth": 1.5, "clip_on": False, "zorder": 3}  # over the frame, where curves may lie
CURVES = 1.3  # inches: the panel of confidence over steps


@dataclass(frozen=True)
class RobustnessCurve:
    """Accuracies as fractions at epsilons in the norm's unit; epsilon 0 is no attack."""

    name: str
    epsilons: Sequence[float]
    accuracy: Sequence[float]


@dataclass(frozen=True)
class DistalRow:
    """One network's images (B, 3, H, W) in [0, 1] and its confidence (steps + 1, B) on the way to them."""

    name: str
    images: NDArray[np.float32]
    confidence: NDArray[np.float32]


def robustness_figure(
    panels: Mapping[str, Sequence[RobustnessCurve]], note: str, heading: str = "", beside: bool = False
) -> Figure:
    """Accuracy over epsilon, a panel a norm (linf, l2); `note` under them says on what and by which attack.

    Panels stand below each other, for a phone, or `beside` each other.
    """
    names = list(dict.fromkeys(curve.name for curves in panels.values() for curve in curves))
    rows, columns = (1, len(panels)) if beside else (len(panels), 1)
    across = 3 if columns == 1 else 5
    below = FOOT + 0.15 * (legend_rows(names, across) + 1)
    height = TOP + rows * PANEL + (rows - 1) * GAP + below
    figure = canvas(height, "Accuracy under attack", heading, WIDE if columns > 1 else WIDTH)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    place(figure, 0.5, 0.15, TOP, below, (GAP + 0.12, GAP))
    for axis, (norm, curves) in zip(axes, panels.items(), strict=True):
        for curve in curves:
            colour, dashes = line_style(names.index(curve.name))
            percent = [100 * share for share in curve.accuracy]
            look: Any = {"color": colour, "marker": MARKERS[names.index(curve.name) % len(MARKERS)], **LINE}
            axis.plot(curve.epsilons, percent, dashes, markersize=3.5, **look)
        axis.set(ylim=(0, 100), xlim=(0, max(max(curve.epsilons) for curve in curves)))
        axis.set_xlabel(AXES[norm], fontsize=TEXT, color=QUIET, labelpad=3)
        axis.set_ylabel("accuracy (%)", fontsize=TEXT, color=QUIET, labelpad=3)
        quiet(axis, grid=True)
    _legend(figure, axes[0], names, 0.22, across)
    _note(figure, note)
    return figure


def distal_figure(
    start: NDArray[np.float32], rows: Sequence[DistalRow], classes: Sequence[str], step: float, heading: str = ""
) -> Figure:
    """The noise, then a row of images a network with p(y|x) under each; below, the mean p(y|x) over the steps.

    `start` is (B, 3, H, W) in [0, 1], `classes` names what each column was driven to, `step` is an ascent's step.
    """
    columns = len(start)
    cell = (WIDTH - 0.2) / columns
    band = cell + 0.34
    pictures = 0.16 + band * (len(rows) + 1)
    names = [row.name for row in rows]
    below = 0.5 + 0.15 * legend_rows(names, 3)
    figure = canvas(TOP + pictures + CURVES + below, "Distal adversarials: from noise to each class", heading)
    upper, lower = figure.subplots(2, 1, height_ratios=[pictures, CURVES])
    height = float(figure.get_size_inches()[1])
    upper.set_position((0.1 / WIDTH, 1 - (TOP + pictures) / height, 1 - 0.2 / WIDTH, pictures / height))
    upper.set(xlim=(0, columns), ylim=(pictures / cell, 0))
    upper.set_axis_off()
    for column, name in enumerate(classes):
        upper.text(column + 0.5, 0, label(shortened(name, 8)), fontsize=SMALL - 2, color=QUIET, ha="center", va="top")
    captions = [[""] * columns, *([f"{share:.3f}" for share in row.confidence[-1]] for row in rows)]
    for i, (name, images) in enumerate([("the noise", start), *((row.name, row.images) for row in rows)]):
        _strip(upper, images, (0.16 + i * band) / cell, name, captions[i], cell)
    lower.set_position((0.5 / WIDTH, below / height, 1 - 0.65 / WIDTH, (CURVES - 0.2) / height))
    _confidence(lower, rows, step)
    _legend(figure, lower, names, 0.02, 3)
    return figure


def _strip(axis: Axes, images: ArrayLike, top: float, name: str, captions: Sequence[str], cell: float) -> None:
    """A row of images (B, 3, H, W) as one mosaic with white gaps, the row's name over it, a caption under each."""
    shown = np.asarray(images, dtype=np.float32).transpose(0, 2, 3, 1)
    padded = np.pad(shown, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0)
    mosaic = np.concatenate(list(padded), axis=1)
    top += 0.13 / cell
    axis.text(0.04, top - 0.01, label(shortened(name, 60)), fontsize=SMALL, color=QUIET, va="bottom")
    axis.imshow(mosaic, extent=(0, len(shown), top + 1, top), interpolation="nearest", aspect="auto")
    axis.set(xlim=(0, len(shown)), ylim=axis.get_ylim())
    for column, text in enumerate(captions):
        axis.text(column + 0.5, top + 1.02, text, fontsize=SMALL - 1.5, color=QUIET, ha="center", va="top")


def _confidence(axis: Axes, rows: Sequence[DistalRow], step: float) -> None:
    for position, row in enumerate(rows):
        colour, dashes = line_style(position)
        axis.plot(row.confidence.mean(1), dashes, color=colour, **LINE)
    axis.set(ylim=(0, 1), xlim=(0, max(len(row.confidence) for row in rows) - 1))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel(f"steps of L2 length {step:g}", fontsize=TEXT, color=QUIET, labelpad=3)
    axis.set_ylabel("mean p(y|x)", fontsize=TEXT, color=QUIET, labelpad=3)
    quiet(axis, grid=True)


def _legend(figure: Figure, axis: Axes, names: Sequence[str], bottom: float, across: int) -> None:
    """Below everything, so many names a row."""
    shown = [label(shortened(name, 24)) for name in names]
    key(figure, axis.lines, shown, across, (0.05, bottom), from_bottom=True, handlelength=2.2, labelspacing=0.3)


def _note(figure: Figure, text: str) -> None:
    width, height = figure.get_size_inches()
    figure.text(0.1 / width, 0.08 / height, label(text), fontsize=SMALL - 0.7, color=QUIET, va="bottom")
