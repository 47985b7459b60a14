"""Bootstrap intervals: how much a detection metric would vary over other test images of the same kind."""

from collections.abc import Iterator

import numpy as np

from farout.errors import ConfigError
from farout.metrics.detection import NAMES, check_convention, measure
from farout.metrics.steps import Steps, sort_scores
from farout.metrics.vectors import VectorLike

Interval = tuple[float, float]


def bootstrap_intervals(
    id_scores: VectorLike,
    ood_scores: VectorLike,
    positive: str = "id",
    recall: float = 0.95,
    fpr_rule: str = "nearest",
    names: tuple[str, str] = NAMES,
    aupr: str = "average_precision",
    resamples: int = 1000,
    level: float = 0.95,
    seed: int | list[int] = 0,
    n_ood: int | None = None,
) -> dict[str, Interval]:
    """Percentile bootstrap intervals (Efron, 1979) of the numbers of `detection_metrics`.

    ID and OOD images are drawn with replacement, each class on its own. The network and its training are taken as
    given: an interval says nothing about other seeds.

    Args:
        resamples: how often the test is repeated.
        level: the share of repetitions within an interval, equally cut at both ends.
        seed: of NumPy's default generator.
        n_ood: OOD images in one repetition; all there are by default. AUPR depends on it.
        others: as in `detection_metrics`.

    Returns {"fpr95": (low, high), "auroc": ..., "aupr": ...}. Raises as `detection_metrics`, and ConfigError for
    fewer than two resamples, a level outside (0, 1) or an `n_ood` below one.
    """
    check_convention(positive, recall, fpr_rule, aupr)
    if resamples < 2:
        raise ConfigError(f"resamples={resamples}: an interval needs at least 2, better 1000")
    if not 0 < level < 1:
        raise ConfigError(f"level={level}: it must lie between 0 and 1, e.g. 0.95")
    if n_ood is not None and n_ood < 1:
        raise ConfigError(f"n_ood={n_ood}: a test needs at least 1 OOD image")
    steps = sort_scores(id_scores, ood_scores, names).steps(positive)
    wanted_ood = n_ood or (steps.negatives if positive == "id" else steps.positives)
    sizes = (steps.positives, wanted_ood) if positive == "id" else (wanted_ood, steps.negatives)
    generator = np.random.default_rng(seed)
    found = [measure(again, recall, fpr_rule, aupr) for again in _resampled(steps, sizes, resamples, generator)]
    tails = [(1 - level) / 2, (1 + level) / 2]
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
