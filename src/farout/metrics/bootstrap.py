"""Bootstrap intervals: how much a detection metric would vary over other test images of the same kind."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from farout.errors import ConfigError
from farout.metrics.detection import NAMES, check_convention, measure
from farout.metrics.steps import Steps, sort_scores
from farout.metrics.vectors import VectorLike

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
