"""How well one number per image separates in-distribution (ID) from out-of-distribution (OOD) images.

The definitions are those of the code that Outlier Exposure and Energy share (hendrycks/outlier-exposure and
wetliu/energy_ood, `display_results.py`); everything follows from one sort of the pooled scores.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from farout.errors import ConfigError
from farout.metrics.vectors import Vector, VectorLike, finite_vector

POSITIVES = ("id", "ood")
FPR_RULES = ("nearest", "first")


def detection_metrics(
    id_scores: VectorLike,
    ood_scores: VectorLike,
    positive: str = "id",
    recall: float = 0.95,
    fpr_rule: str = "nearest",
    names: tuple[str, str] = ("ID scores", "OOD scores"),
) -> dict[str, float]:
    """FPR at a recall, AUROC and AUPR of scores that are larger for ID images, as fractions in [0, 1].

    Args:
        id_scores, ood_scores: (N_id,) and (N_ood,); NumPy arrays, tensors or lists. Ties are treated exactly.
        positive: "id" (Energy): FPR is the share of OOD accepted when `recall` of ID is accepted, and AUPR
            counts ID as positive; "ood" (Outlier Exposure): FPR is the share of ID flagged when `recall` of
            OOD is flagged. AUROC does not depend on it.
        recall: the recall at which the FPR is read.
        fpr_rule: "nearest" is the official rule, see `_nearest`; "first" the usual one, see `_first`.
        names: what an error message calls the two arguments.

    Returns {"fpr95", "auroc", "aupr"}; the first key keeps its name at any other `recall`. AUPR is average
    precision (step-wise, no interpolation).

    Raises FaroutError for empty, NaN or infinite scores, ConfigError for an unknown convention or rule.
    """
    _check(positive, recall, fpr_rule)
    id_vector, ood_vector = finite_vector(id_scores, names[0]), finite_vector(ood_scores, names[1])
    if positive == "id":
        steps = _threshold_steps(id_vector, ood_vector)
    else:
        steps = _threshold_steps(-ood_vector, -id_vector)
    false_positives = _nearest(steps, recall) if fpr_rule == "nearest" else _first(steps, recall)
    return {
        "fpr95": false_positives / steps.negatives,
        "auroc": _auroc(steps),
        "aupr": _average_precision(steps),
    }


@dataclass(frozen=True)
class _Steps:
    """Counts of scores >= t for every distinct score t, from the highest t to the lowest."""

    true_positives: NDArray[np.int64]
    false_positives: NDArray[np.int64]

    @property
    def positives(self) -> int:
        return int(self.true_positives[-1])

    @property
    def negatives(self) -> int:
        return int(self.false_positives[-1])


def _check(positive: str, recall: float, fpr_rule: str) -> None:
    if positive not in POSITIVES:
        raise ConfigError(f"positive={positive!r}: choose one of {', '.join(POSITIVES)}")
    if fpr_rule not in FPR_RULES:
        raise ConfigError(f"fpr_rule={fpr_rule!r}: choose one of {', '.join(FPR_RULES)}")
    if not 0 < recall <= 1:
        raise ConfigError(f"recall={recall}: it must be above 0 and at most 1")


def _threshold_steps(positive_scores: Vector, negative_scores: Vector) -> _Steps:
    """Sorts the pooled scores once; equal scores form one step."""
    scores = np.concatenate([positive_scores, negative_scores])
    order = np.argsort(scores)[::-1]
    scores = scores[order]
    last_of_step = np.append(np.flatnonzero(scores[1:] != scores[:-1]), scores.size - 1)
    true_positives = np.cumsum(order < positive_scores.size, dtype=np.int64)[last_of_step]
    return _Steps(true_positives, last_of_step + 1 - true_positives)


def _nearest(steps: _Steps, recall: float) -> int:
    """False positives at the threshold whose recall is nearest to `recall`, possibly below it.

    Thresholds under the one that first reaches full recall do not count. Among equally near ones the lowest
    wins: on a plateau of recall that is the largest number of false positives.
    """
    full = int(np.searchsorted(steps.true_positives, steps.positives))
    reached = steps.true_positives[: full + 1] / steps.positives
    distance = np.abs(reached - recall)
    lowest = full - int(np.argmin(distance[::-1]))
    return int(steps.false_positives[lowest])


def _first(steps: _Steps, recall: float) -> int:
    """False positives at the highest threshold that reaches `recall`."""
    return int(steps.false_positives[np.argmax(steps.true_positives / steps.positives >= recall)])


def _auroc(steps: _Steps) -> float:
    """Share of (positive, negative) pairs in the right order; a tie counts half. Exact until the division."""
    above = np.concatenate([[0], steps.true_positives[:-1]])
    new_negatives = np.diff(steps.false_positives, prepend=0)
    twice = int(np.sum(new_negatives * (above + steps.true_positives)))
    return twice / (2 * steps.positives * steps.negatives)


def _average_precision(steps: _Steps) -> float:
    """Precision at every threshold, weighted by the recall that the threshold adds."""
    precision = steps.true_positives / (steps.true_positives + steps.false_positives)
    new_positives = np.diff(steps.true_positives, prepend=0)
    return float(np.sum(new_positives * precision) / steps.positives)
