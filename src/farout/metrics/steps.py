"""The steps of the ROC curve: counts at the distinct scores of the positive class, from one sort, for all metrics."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from farout.metrics.vectors import ScoreVector, VectorLike, finite_scores

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Steps:
    """Counts at each of the K distinct positive scores t, from the highest t to the lowest.

    Recall changes at positive scores only. What lies between two of them matters only by its number, so a
    score of the negative class needs no entry of its own.

    Attributes:
        reached: (K,) positives with a score >= t; strictly increasing.
        above: (K,) negatives with a score > t.
        upto: (K,) negatives with a score >= t.
        negatives: all negatives.
    """

    reached: Counts
    above: Counts
    upto: Counts
    negatives: int

    @property
    def positives(self) -> int:
        """All positives."""
        return int(self.reached[-1])

    @property
    def gained(self) -> Counts:
        """(K,) positives that each step adds."""
        return np.diff(self.reached, prepend=0)


@dataclass(frozen=True)
class SortedScores:
    """Checked scores of both classes in ascending order, larger meaning more in-distribution."""

    id: ScoreVector
    ood: ScoreVector

    def steps(self, positive: str) -> Steps:
        """The counts with "id" or "ood" as the positive class; for "ood", both vectors change sign."""
        if positive == "id":
            return count_steps(self.id, self.ood)
        return count_steps(-self.ood[::-1], -self.id[::-1])


def sort_scores(id_scores: VectorLike, ood_scores: VectorLike, names: tuple[str, str]) -> SortedScores:
    """Sorts each class once, in its own precision. Raises FaroutError as `finite_scores`, with these names."""
    id_vector, ood_vector = finite_scores(id_scores, names[0]), finite_scores(ood_scores, names[1])
    return SortedScores(np.sort(id_vector), np.sort(ood_vector))


def count_steps(positives: ScoreVector, negatives: ScoreVector) -> Steps:
    """Steps from ascending positive (P,) and negative (N,) scores; a mixture of precisions is compared exactly."""
    starts = np.concatenate([[0], 1 + np.flatnonzero(positives[1:] != positives[:-1])])
    distinct = positives[starts]
    below = np.searchsorted(negatives, distinct, side="left")
    upto = negatives.size - below
    tied = np.flatnonzero(negatives[np.minimum(below, negatives.size - 1)] == distinct)
    above = upto.copy()
    above[tied] = negatives.size - np.searchsorted(negatives, distinct[tied], side="right")
    return Steps((positives.size - starts)[::-1], above[::-1], upto[::-1], negatives.size)
