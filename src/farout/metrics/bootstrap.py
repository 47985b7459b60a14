"""Bootstrap intervals: how much a detection metric, or a difference of two, would vary over other test images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from farout.errors import ConfigError, FaroutError
from farout.metrics.detection import NAMES, check_convention, measure
from farout.metrics.steps import Counts, Steps, count_steps, sort_scores
from farout.metrics.vectors import VectorLike, finite_scores

METRICS = ("fpr95", "auroc", "aupr")  # in the order of the last axis of `resampled_metrics`
Interval = tuple[float, float]


@dataclass(frozen=True)
class Convention:
    """How FPR and AUPR are read off, as `detection_metrics` takes it."""

    positive: str = "id"
    recall: float = 0.95
    fpr_rule: str = "nearest"
    aupr: str = "average_precision"


@dataclass(frozen=True)
class Resampling:
    """How a test is repeated.

    Attributes:
        resamples: how often.
        level: the share of repetitions within an interval, equally cut at both ends.
        seed: of NumPy's default generator.
        n_ood: OOD images in one repetition; all there are by default. AUPR depends on it.

    Raises ConfigError for fewer than two resamples, a level outside (0, 1) or an `n_ood` below one.
    """

    resamples: int = 1000
    level: float = 0.95
    seed: int | Sequence[int] = 0
    n_ood: int | None = None

    def __post_init__(self) -> None:
        if self.resamples < 2:
            raise ConfigError(f"resamples={self.resamples}: an interval needs at least 2, better 1000")
        if not 0 < self.level < 1:
            raise ConfigError(f"level={self.level}: it must lie between 0 and 1, e.g. 0.95")
        if self.n_ood is not None and self.n_ood < 1:
            raise ConfigError(f"n_ood={self.n_ood}: a test needs at least 1 OOD image")


def bootstrap_intervals(
    id_scores: VectorLike,
    ood_scores: VectorLike,
    convention: Convention | None = None,
    resampling: Resampling | None = None,
    names: tuple[str, str] = NAMES,
) -> dict[str, Interval]:
    """Percentile bootstrap intervals (Efron, 1979) of the numbers of `detection_metrics`.

    ID and OOD images are drawn with replacement, each class on its own. The network and its training are taken as
    given: an interval says nothing about other seeds.

    Returns {"fpr95": (low, high), "auroc": ..., "aupr": ...}. Raises as `detection_metrics`.
    """
    how, again = convention or Convention(), resampling or Resampling()
    check_convention(how.positive, how.recall, how.fpr_rule, how.aupr)
    steps = sort_scores(id_scores, ood_scores, names).steps(how.positive)
    wanted_ood = again.n_ood or (steps.negatives if how.positive == "id" else steps.positives)
    sizes = (steps.positives, wanted_ood) if how.positive == "id" else (wanted_ood, steps.negatives)
    drawn = _resampled(steps, sizes, again.resamples, np.random.default_rng(again.seed))
    found = [measure(other, how.recall, how.fpr_rule, how.aupr) for other in drawn]
    tails = [(1 - again.level) / 2, (1 + again.level) / 2]
    bounds = {key: np.quantile([values[key] for values in found], tails) for key in found[0]}
    return {key: (float(low), float(high)) for key, (low, high) in bounds.items()}


def _resampled(steps: Steps, sizes: tuple[int, int], resamples: int, generator: np.random.Generator) -> Iterator[Steps]:
    """Steps of tests with (positives, negatives) = `sizes` images drawn with replacement, without sorting again.

    Positives fall on the K steps, negatives on 2 K + 1 places: above the first step, tied with it, between it and
    the second, tied with that, and so on. The counts of a resample over these places are multinomial.
    """
    places = np.concatenate([[0], np.column_stack([steps.above, steps.upto]).ravel(), [steps.negatives]])
    place_of_positive = np.repeat(np.arange(steps.reached.size), steps.gained)
    place_of_negative = np.repeat(np.arange(places.size - 1), np.diff(places))
    for _ in range(resamples):
        gained = _draw(place_of_positive, steps.reached.size, sizes[0], generator)
        ahead = np.cumsum(_draw(place_of_negative, places.size - 1, sizes[1], generator))
        kept = np.flatnonzero(gained)  # a step that lost all its positives is none
        yield Steps(np.cumsum(gained[kept]), ahead[2 * kept], ahead[2 * kept + 1], sizes[1])


def _draw(place_of: np.ndarray, places: int, size: int, generator: np.random.Generator) -> np.ndarray:
    """(places,) how many of `size` images drawn with replacement from (N,) `place_of` fall on each place."""
    return np.bincount(place_of[generator.integers(0, place_of.size, size)], minlength=places)


def paired_intervals(
    first: tuple[VectorLike, VectorLike],
    second: tuple[VectorLike, VectorLike],
    convention: Convention | None = None,
    resampling: Resampling | None = None,
) -> dict[str, Interval]:
    """Percentile bootstrap intervals of a difference: what `first` has more than `second`, on the same images.

    Either is (ID scores, OOD scores), (N_id,) and (N_ood,), with the same image at the same place of both. A resample
    is made of the same images for both, so what makes a test hard for both does not widen the interval.

    Returns {"fpr95": (low, high), "auroc": ..., "aupr": ...}, differences of fractions. Raises as `resampled_metrics`.
    """
    again = resampling or Resampling()
    (first_id, first_ood), (second_id, second_ood) = first, second
    found = resampled_metrics([first_id, second_id], [first_ood, second_ood], convention, again)
    return interval_of(found[:, 0] - found[:, 1], again.level)


def resampled_metrics(
    id_scores: Sequence[VectorLike],
    ood_scores: Sequence[VectorLike],
    convention: Convention | None = None,
    resampling: Resampling | None = None,
    stream: Sequence[int] = (),
) -> NDArray[np.float64]:
    """The metrics of C scores in every resample, all of them of the same images.

    Args:
        id_scores, ood_scores: C vectors each, (N_id,) and (N_ood,), with the same image at the same place of all.
        stream: numbers of the OOD images' own draws. ID images are drawn by the resampling's seed alone: tests of
            several OOD sets then have the same ID images in the same resample, and OOD images drawn independently.

    Returns (resamples, C, 3): fpr95, auroc and aupr, as METRICS names them; exactly what `detection_metrics` gives for
    the drawn images. Raises as `detection_metrics`, and FaroutError where scores are not of the same images.
    """
    how, again = convention or Convention(), resampling or Resampling()
    check_convention(how.positive, how.recall, how.fpr_rule, how.aupr)
    columns = [_Column.of(x, y, how.positive) for x, y in zip(id_scores, ood_scores, strict=True)]
    sizes = {(column.n_id, column.n_ood) for column in columns}
    if len(sizes) != 1:
        raise FaroutError(f"paired scores must be of the same images, not of {sorted(sizes)} (ID, OOD)")
    n_id, n_ood = sizes.pop()
    seed = [again.seed] if isinstance(again.seed, int) else [*again.seed]
    of_id, of_ood = np.random.default_rng(seed), np.random.default_rng([*seed, *stream, 1])
    found = np.empty((again.resamples, len(columns), len(METRICS)))
    for row in found:
        times_id, times_ood = times_drawn(n_id, n_id, of_id), times_drawn(n_ood, again.n_ood or n_ood, of_ood)
        for place, column in zip(row, columns, strict=True):
            measured = measure(column.resampled(times_id, times_ood), how.recall, how.fpr_rule, how.aupr)
            place[:] = [measured[key] for key in METRICS]
    return found


def interval_of(values: NDArray[np.float64], level: float) -> dict[str, Interval]:
    """The middle `level` of (resamples, 3) values of METRICS."""
    return dict(zip(METRICS, middle_of(values, level), strict=True))


def middle_of(values: NDArray[np.float64], level: float) -> list[Interval]:
    """The middle `level` of every column of (resamples, K) values."""
    bounds = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [(float(low), float(high)) for low, high in bounds.T]


def times_drawn(images: int, size: int, generator: np.random.Generator) -> Counts:
    """(images,) how often each of them is among `size` drawn with replacement."""
    return np.bincount(generator.integers(0, images, size), minlength=images)


@dataclass(frozen=True)
class _Column:
    """One score's images, sorted once for all resamples: those of the positive class from the most positive down.

    Attributes:
        by_id: whether ID is positive.
        positives, negatives: images of each class in descending order of being positive.
        steps: of the scores as they are, before resampling.
    """

    by_id: bool
    positives: NDArray[np.intp]
    negatives: NDArray[np.intp]
    steps: Steps

    @classmethod
    def of(cls, id_scores: VectorLike, ood_scores: VectorLike, positive: str) -> "_Column":
        """Sorts; raises FaroutError as `finite_scores`."""
        id_vector, ood_vector = finite_scores(id_scores, NAMES[0]), finite_scores(ood_scores, NAMES[1])
        by_id = positive == "id"
        above, below = (id_vector, ood_vector) if by_id else (-ood_vector, -id_vector)
        first, second = np.argsort(above, kind="stable"), np.argsort(below, kind="stable")
        return cls(by_id, first[::-1], second[::-1], count_steps(above[first], below[second]))

    @property
    def n_id(self) -> int:
        return (self.positives if self.by_id else self.negatives).size

    @property
    def n_ood(self) -> int:
        return (self.negatives if self.by_id else self.positives).size

    def resampled(self, times_id: Counts, times_ood: Counts) -> Steps:
        """The steps of a test that has every image so many times, without sorting again."""
        of_positives, of_negatives = (times_id, times_ood) if self.by_id else (times_ood, times_id)
        reached = np.cumsum(of_positives[self.positives])[self.steps.reached - 1]
        upto = np.concatenate([[0], np.cumsum(of_negatives[self.negatives])])
        kept = np.flatnonzero(np.diff(reached, prepend=0))  # a step that lost all its positives is none
        return Steps(reached[kept], upto[self.steps.above[kept]], upto[self.steps.upto[kept]], int(upto[-1]))
