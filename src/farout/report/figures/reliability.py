"""Reliability diagrams: accuracy over confidence, the picture of the calibration error."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from farout.metrics import ReliabilityCurve, expected_calibration_error, reliability_curve
from farout.metrics.vectors import Vector
from farout.report.figures.style import (
    ID_COLOUR,
    OOD_COLOUR,
    QUIET,
    SMALL,
    TEXT,
    canvas,
    key,
    label,
    place,
    quiet,
    shortened,
)


def reliability_diagram(confidence: ArrayLike, correct: ArrayLike, bins: int = 15, heading: str = "") -> Figure:
    """Accuracy over confidence in bins, the gap between the two, and below how many images each bin has.

    `confidence` (N,) is the probability of the predicted class, `correct` (N,) whether it was right. The title
    holds the expected calibration error with as many bins.
    Raises FaroutError where the arrays are empty, differ in length or hold no probabilities.
    """
    error = expected_calibration_error(np.asarray(confidence), np.asarray(correct), bins)
    curve = reliability_curve(np.asarray(confidence), np.asarray(correct), bins)
    title = f"Reliability on ID: ECE {100 * error:.2f} % ({bins} bins)"
    figure = canvas(4.5, title, heading)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    place(figure, 0.55, 0.15, 0.72, 0.42, (0, 0.12))
    _bars(upper, curve)
    _counts(lower, curve)
    _legend(figure)
    return figure


def reliability_panels(
    networks: Mapping[str, tuple[ArrayLike, ArrayLike]], bins: int = 15, heading: str = ""
) -> Figure:
    """The diagrams of several networks beside each other, two a row: name -> confidence (N,), correct (N,).

    Raises FaroutError as `reliability_diagram` does.
    """
    curves = {
        name: reliability_curve(np.asarray(confidence), np.asarray(correct), bins)
        for name, (confidence, correct) in networks.items()
    }
    return curve_panels(curves, heading)


def curve_panels(networks: Mapping[str, ReliabilityCurve], heading: str = "") -> Figure:
    """`reliability_panels` of curves that are there already, over equally wide bins, as many for each network."""
    columns = min(2, len(networks))
    rows = -(-len(networks) // columns)
    bins = max(curve.count.size for curve in networks.values())
    figure = canvas(0.95 + 2.1 * rows - 0.33, f"Reliability on ID ({bins} bins)", heading)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    place(figure, 0.55, 0.15, 0.92, 0.36, (0.5, 0.75))
    for axis, (name, curve) in zip(axes, networks.items(), strict=False):
        _bars(axis, curve)
        title = f"{label(shortened(name, 30))}\nECE {100 * curve.error:.2f} %"
        axis.set_title(title, fontsize=SMALL, color=QUIET, loc="left", pad=3)
        axis.set_xlabel("confidence (%)", fontsize=TEXT, color=QUIET, labelpad=2)
    for axis in axes[1::2]:
        axis.set_ylabel("")
    for axis in axes[len(networks) :]:
        axis.set_visible(False)
    _legend(figure)
    return figure


def _bars(axis: Axes, curve: ReliabilityCurve) -> None:
    filled = curve.count > 0
    middle, width = _places(curve)
    accuracy, confidence = 100 * curve.accuracy[filled], 100 * curve.confidence[filled]
    axis.bar(middle[filled], accuracy, width, color=ID_COLOUR, alpha=0.8, linewidth=0)
    hatched: Any = {"facecolor": "none", "edgecolor": OOD_COLOUR, "hatch": "////", "linewidth": 1.2}
    axis.bar(middle[filled], confidence - accuracy, width, bottom=accuracy, **hatched)
    axis.plot([0, 100], [0, 100], color=QUIET, linewidth=0.9, linestyle="--")
    axis.set(xlim=(0, 100), ylim=(0, 102), xticks=range(0, 101, 20))
    axis.set_ylabel("accuracy (%)", fontsize=TEXT, color=QUIET)
    quiet(axis, grid=True)
    axis.grid(axis="x", visible=False)


def _counts(axis: Axes, curve: ReliabilityCurve) -> None:
    middle, width = _places(curve)
    axis.bar(middle, curve.count, width, color=QUIET, alpha=0.55, linewidth=0)
    axis.set_yscale("symlog", linthresh=1)
    axis.set_ylim(0, 12 * max(1, int(curve.count.max())))  # room for the numbers above the bars
    axis.set_yticks([])
    axis.set_yticks([], minor=True)
    for x, count in zip(middle, curve.count, strict=True):
        if count:
            axis.text(x, count * 1.3, f"{count:,}", ha="center", va="bottom", fontsize=5.5, color=QUIET)
    axis.set_xlabel("confidence (%): the largest softmax probability", fontsize=TEXT, color=QUIET, labelpad=3)
    axis.set_ylabel("images (log)", fontsize=SMALL, color=QUIET, labelpad=14)
    quiet(axis)


def _places(curve: ReliabilityCurve) -> tuple[Vector, float]:
    """Middles of the bins and the width of a bar, in percent."""
    return 50 * (curve.lower + curve.upper), float(94 * (curve.upper[0] - curve.lower[0]))


def _legend(figure: Figure) -> None:
    accuracy = Patch(facecolor=ID_COLOUR, alpha=0.8)
    gap = Patch(facecolor="none", edgecolor=OOD_COLOUR, hatch="////")
    key(figure, [accuracy, gap], ["accuracy", "gap to the mean confidence"], 2, (0.02, 0.36))
