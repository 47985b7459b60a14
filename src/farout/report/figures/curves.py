"""ROC and precision-recall curves of one score, every OOD set in one picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from farout.metrics.vectors import Vector, finite_vector
from farout.report.figures.style import (
    GRID,
    QUIET,
    SMALL,
    TEXT,
    WIDTH,
    canvas,
    label,
    legend_rows,
    line_style,
    place,
    quiet,
    shortened,
)

POINTS = 400  # of a drawn curve: more than the pixels that a phone gives it
KEPT = 0.95

AXES = {  # what the false and the true positive rate are called, by who is positive
    "id": ("OOD accepted (%)", "ID accepted (%)"),
    "ood": ("ID flagged (%)", "OOD flagged (%)"),
}
MEASURES = {"AUROC": "AUROC (%)", "AUPR": "AUPR (%, average precision)"}
PR_AXES = {
    "id": ("recall: ID accepted (%)", "precision: ID among the accepted (%)"),
    "ood": ("recall: OOD flagged (%)", "precision: OOD among the flagged (%)"),
}


@dataclass(frozen=True)
class Curve:
    """Points from the strictest to the laxest threshold, as fractions, and the area under them."""

    x: Vector
    y: Vector
    area: float


def roc_curve(id_scores: ArrayLike, ood_scores: ArrayLike, positive: str = "id") -> Curve:
    """False against true positive rate at every distinct score, from (0, 0) to (1, 1); the area is the AUROC."""
    false, true = _rates(id_scores, ood_scores, positive)
    return Curve(false, true, _area(false, true))


def _area(x: Vector, y: Vector) -> float:
    """By the trapezoid, which counts a tie half."""
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2)


def precision_recall_curve(
    id_scores: ArrayLike, ood_scores: ArrayLike, positive: str = "id", base_rate: float | None = None
) -> Curve:
    """Recall against precision; the area is the average precision (step-wise, no interpolation).

    `base_rate` is the share of positives that the precision supposes: a protocol that draws one OOD image for
    five of ID has 5/6 whatever the sizes of the sets. None takes the arrays' own share.
    """
    false, true = _rates(id_scores, ood_scores, positive)
    sizes = np.size(id_scores), np.size(ood_scores)
    own = (sizes[0] if positive == "id" else sizes[1]) / sum(sizes)
    share = own if base_rate is None else base_rate
    hits, alarms = share * true[1:], (1 - share) * false[1:]
    precision = hits / np.maximum(hits + alarms, np.finfo(float).tiny)
    area = float(np.sum(np.diff(true) * precision))
    # Nothing is accepted at recall 0: the curve begins at the height of its first point.
    return Curve(true, np.concatenate([precision[:1], precision]), area)


def _rates(id_scores: ArrayLike, ood_scores: ArrayLike, positive: str) -> tuple[Vector, Vector]:
    id_vector = finite_vector(np.asarray(id_scores), "the ID scores")
    ood_vector = finite_vector(np.asarray(ood_scores), "the OOD scores")
    wanted, other = (id_vector, ood_vector) if positive == "id" else (-ood_vector, -id_vector)
    pooled = np.concatenate([wanted, other])
    order = np.argsort(-pooled, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(pooled[order])), pooled.size - 1)  # equal scores are one step
    true = np.cumsum(order < wanted.size)[ends]
    false = ends + 1 - true
    return np.concatenate([[0.0], false / other.size]), np.concatenate([[0.0], true / wanted.size])


def thinned(x: Vector, y: Vector, limit: int = POINTS) -> tuple[Vector, Vector]:
    """At most `limit` of the points, evenly along the drawn line; both ends stay."""
    if len(x) <= limit:
        return x, y
    way = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    chosen = np.unique(np.searchsorted(way, np.linspace(0, way[-1], limit - 1)).clip(0, len(x) - 1))
    kept: NDArray[np.intp] = np.union1d(chosen, [0, len(x) - 1])
    kept = kept[-limit:]
    kept[0] = 0
    return x[kept], y[kept]


def roc_figure(
    id_scores: ArrayLike, ood: Mapping[str, ArrayLike], title: str, positive: str = "id", heading: str = ""
) -> Figure:
    """One ROC curve per OOD set with its AUROC, by the given positive class; the dotted line is 95 % recall."""
    curves = {name: roc_curve(id_scores, scores, positive) for name, scores in ood.items()}
    figure, axis = _square(title, heading, _entries(curves, "AUROC"), AXES[positive])
    axis.plot([0, 100], [0, 100], color=GRID, linewidth=0.9, zorder=1)
    axis.axhline(100 * KEPT, color=QUIET, linewidth=0.8, linestyle=":", zorder=1)
    axis.annotate("95", (100, 100 * KEPT), (101.5, 100 * KEPT), fontsize=SMALL, color=QUIET, va="center")
    _draw(figure, axis, curves, "AUROC")
    return figure


def precision_recall_figure(
    id_scores: ArrayLike,
    ood: Mapping[str, ArrayLike],
    title: str,
    positive: str = "id",
    base_rates: Mapping[str, float] | None = None,
    heading: str = "",
) -> Figure:
    """One precision-recall curve per OOD set with its average precision; `base_rates` as in the protocol's rows."""
    rates = base_rates or {}
    curves = {
        name: precision_recall_curve(id_scores, scores, positive, rates.get(name)) for name, scores in ood.items()
    }
    figure, axis = _square(title, heading, _entries(curves, "AUPR"), PR_AXES[positive])
    # Precision seldom falls far below the base rate: the empty part of the scale is left out.
    lowest = min([curve.y[curve.x > 0.05].min() for curve in curves.values()], default=0.0)
    axis.set_ylim(10 * np.floor(10 * min(lowest, 0.9)), 100.3)
    _draw(figure, axis, curves, "AUPR")
    return figure


def _entries(curves: Mapping[str, Curve], measure: str) -> list[str]:
    """The legend's lines; the measure is named in the first alone."""
    return [label(f"{shortened(name, 21)}  {100 * curve.area:.1f}") for name, curve in curves.items()] or [measure]


def _square(title: str, heading: str, entries: Sequence[str], names: tuple[str, str]) -> tuple[Figure, Axes]:
    left, right, top, axis_room = 0.5, 0.28, 0.48, 0.38
    side = WIDTH - left - right
    legend = 0.14 * (legend_rows(entries, 2) + 1) + 0.08
    figure = canvas(top + side + axis_room + legend, title, heading)
    axis = figure.subplots()
    place(figure, left, right, top, axis_room + legend, (0, 0))
    axis.set(xlim=(0, 100), ylim=(0, 100.6))
    axis.set_xlabel(names[0], fontsize=TEXT, color=QUIET, labelpad=3)
    axis.set_ylabel(names[1], fontsize=TEXT, color=QUIET, labelpad=3)
    quiet(axis, grid=True)
    return figure, axis


def _draw(figure: Figure, axis: Axes, curves: Mapping[str, Curve], measure: str) -> None:
    clipped = measure == "AUPR"  # a ROC curve may lie on the frame, where clipping would halve its line
    lines = []
    for position, curve in enumerate(curves.values()):
        colour, dashes = line_style(position)
        x, y = thinned(curve.x, curve.y)
        lines += axis.plot(100 * x, 100 * y, dashes, color=colour, linewidth=1.5, clip_on=clipped)
    if not lines:
        axis.text(50, 50, "no OOD set", ha="center", color=QUIET, fontsize=TEXT)
        return
    width = figure.get_size_inches()[0]
    legend = axis.legend(
        lines,
        _entries(curves, measure),
        title=MEASURES[measure],
        title_fontsize=SMALL,
        loc="lower left",
        bbox_to_anchor=(0.1 / width, 0.0, 1 - 0.2 / width, 0.1),
        bbox_transform=figure.transFigure,
        ncols=2,
        mode="expand",
        fontsize=SMALL,
        frameon=False,
        labelcolor=QUIET,
        handlelength=2.2,
        labelspacing=0.3,
        alignment="left",
        borderpad=0.2,
    )
    legend.get_title().set_color(QUIET)
