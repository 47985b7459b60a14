"""What becomes of a detector along each of its knobs: a column a knob, FPR95 above, accuracy below."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from farout.metrics.vectors import Vector
from farout.report.figures.style import ID_COLOUR, INK, OOD_COLOUR, QUIET, SMALL, TEXT, canvas, key, label, place, quiet

COLUMN, PANEL = 1.75, 1.45  # inches
TEST, HOLDOUT, USUAL, CHOSEN = "OOD test sets", "validation corruptions", "the file's value", "what the holdout chooses"


@dataclass(frozen=True)
class KnobCurve:
    """One knob's N values as they are written, and figures (N,) in percent at each.

    `usual` and `chosen` are positions: the value of the experiment's file, and the one that the holdout would choose.
    """

    knob: str
    values: Sequence[str]
    test_fpr95: Vector
    holdout_fpr95: Vector
    accuracy: Vector
    usual: int
    chosen: int


def sensitivity_figure(title: str, curves: Sequence[KnobCurve], heading: str = "") -> Figure:
    """Values stand at equal distances, in their order: knobs have units of their own, some of them powers of ten."""
    width, height = 0.75 + COLUMN * len(curves), 0.55 + 2 * PANEL + 0.75
    figure = canvas(height, title, heading, width)
    axes = np.atleast_2d(figure.subplots(2, len(curves), sharey="row", sharex="col", squeeze=False))
    place(figure, 0.55, 0.12, 0.5, 0.75, (0.15, 0.15))
    for column, curve in enumerate(curves):
        _fpr95(axes[0, column], curve)
        _accuracy(axes[1, column], curve)
    for axis, name in zip(axes[:, 0], ("FPR95 (%)", "ID accuracy (%)"), strict=True):
        axis.set_ylabel(name, fontsize=TEXT, color=QUIET, labelpad=3)
    axes[0, 0].set_ylim(bottom=0)
    _legend(figure)
    return figure


def _fpr95(axis: Axes, curve: KnobCurve) -> None:
    places = np.arange(len(curve.values))
    axis.plot(places, curve.test_fpr95, "-", color=OOD_COLOUR, marker=".", markersize=5, linewidth=1.4, zorder=3)
    axis.plot(places, curve.holdout_fpr95, "--", color=QUIET, marker=".", markersize=4, linewidth=1.1, zorder=2)
    axis.plot(curve.chosen, curve.holdout_fpr95[curve.chosen], "o", color=INK, fillstyle="none", markersize=8, zorder=4)
    axis.axvline(curve.usual, color=QUIET, linewidth=0.8, linestyle=":", zorder=1)
    quiet(axis, grid=True)


def _accuracy(axis: Axes, curve: KnobCurve) -> None:
    places = np.arange(len(curve.values))
    axis.plot(places, curve.accuracy, "-", color=ID_COLOUR, marker=".", markersize=5, linewidth=1.4, zorder=3)
    axis.axvline(curve.usual, color=QUIET, linewidth=0.8, linestyle=":", zorder=1)
    axis.set_xticks(places, [label(value) for value in curve.values])
    axis.set_xlim(-0.4, len(places) - 0.6)
    axis.set_xlabel(label(curve.knob), fontsize=TEXT, color=QUIET, labelpad=3)
    quiet(axis, grid=True)
    axis.tick_params(axis="x", labelsize=SMALL)


def _legend(figure: Figure) -> None:
    handles = [
        Line2D([], [], color=OOD_COLOUR, marker=".", linewidth=1.4),
        Line2D([], [], color=QUIET, marker=".", linestyle="--", linewidth=1.1),
        Line2D([], [], color=INK, marker="o", fillstyle="none", linestyle="none", markersize=8),
        Line2D([], [], color=QUIET, linestyle=":", linewidth=0.8),
    ]
    key(figure, handles, [TEST, HOLDOUT, CHOSEN, USUAL], 4, (0.3, 0.02), from_bottom=True, handlelength=2.0)
