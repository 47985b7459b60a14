"""Bootstrap intervals: exact against resampled vectors measured anew, and as wide as theory says."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farout.errors import ConfigError, FaroutError
from farout.metrics import Convention, Resampling, bootstrap_intervals, detection_metrics


def resampled_and_measured(
    id_scores: np.ndarray, ood_scores: np.ndarray, n_ood: int, resamples: int, knobs: dict[str, Any]
) -> dict[str, tuple[float, float]]:
    """The same draws made the plain way: pick images, measure them from scratch.

    A draw counts images of the positive class first, each class from the most positive score downwards.
    """
    generator = np.random.default_rng(3)
    by_id = knobs["positive"] == "id"
    id_order, ood_order = np.sort(id_scores), np.sort(ood_scores)
    if by_id:
        id_order, ood_order = id_order[::-1], ood_order[::-1]
    found = []
    for _ in range(resamples):
        first, second = (id_order, ood_order) if by_id else (ood_order, id_order)
        sizes = (id_order.size, n_ood) if by_id else (n_ood, id_order.size)
        drawn = [x[generator.integers(0, x.size, size)] for x, size in zip((first, second), sizes, strict=True)]
        found.append(detection_metrics(*(drawn if by_id else drawn[::-1]), **knobs))
    return {key: tuple(np.quantile([f[key] for f in found], [0.05, 0.95])) for key in found[0]}


few_values = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=15)


@settings(max_examples=60)
@given(few_values, few_values, st.integers(1, 20), st.data())
def test_equals_measuring_every_resample_from_scratch(
    id_scores: list[float], ood_scores: list[float], n_ood: int, data: st.DataObject
) -> None:
    knobs = {
        "positive": data.draw(st.sampled_from(["id", "ood"])),
        "recall": data.draw(st.sampled_from([0.1, 0.8, 0.95])),
        "fpr_rule": data.draw(st.sampled_from(["nearest", "first"])),
        "aupr": data.draw(st.sampled_from(["average_precision", "trapezoid"])),
    }
    expect = resampled_and_measured(np.array(id_scores), np.array(ood_scores), n_ood, 5, knobs)
    got = bootstrap_intervals(id_scores, ood_scores, Convention(**knobs), Resampling(5, 0.9, 3, n_ood))
    for key, bounds in expect.items():
        assert got[key] == pytest.approx(bounds, abs=1e-12), key


def test_width_is_that_of_the_asymptotic_theory() -> None:
    """DeLong et al. (1988): var(AUROC) = var(V10) / n_id + var(V01) / n_ood, V being an image's own share of pairs."""
    rng = np.random.default_rng(0)
    id_scores, ood_scores = rng.normal(1, 1, 800), rng.normal(0, 1, 500)
    wins = id_scores[:, None] > ood_scores[None]
    deviation = np.sqrt(wins.mean(1).var(ddof=1) / 800 + wins.mean(0).var(ddof=1) / 500)
    low, high = bootstrap_intervals(id_scores, ood_scores, resampling=Resampling(resamples=2000))["auroc"]
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.08)
    assert (low + high) / 2 == pytest.approx(wins.mean(), abs=0.2 * deviation)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """80 % intervals of AUROC over 200 tests of two normal classes: 160 covered, give or take 6 (one deviation)."""
    rng = np.random.default_rng(1)
    truth, covered = 0.7602499, 0  # Phi(1 / sqrt 2)
    for seed in range(200):
        sample = rng.normal(1, 1, 120), rng.normal(0, 1, 120)
        low, high = bootstrap_intervals(*sample, resampling=Resampling(resamples=200, level=0.8, seed=seed))["auroc"]
        covered += low <= truth <= high
    assert 140 <= covered <= 178


def test_fewer_ood_images_make_wider_intervals_and_a_seed_fixes_them() -> None:
    rng = np.random.default_rng(2)
    sample = rng.normal(1, 1, 500), rng.normal(0, 1, 2000)
    every, few = (
        bootstrap_intervals(*sample, resampling=Resampling(resamples=200, n_ood=n))["auroc"] for n in (None, 50)
    )
    assert few[1] - few[0] > 1.5 * (every[1] - every[0])
    assert bootstrap_intervals(*sample, resampling=Resampling(resamples=200))["auroc"] == every
    assert bootstrap_intervals(*sample, resampling=Resampling(resamples=200, n_ood=2000))["auroc"] == every
    assert bootstrap_intervals(*sample, resampling=Resampling(resamples=200, seed=1))["auroc"] != every


def test_constant_scores_leave_nothing_open() -> None:
    got = bootstrap_intervals([1.0] * 6, [1.0] * 2, resampling=Resampling(resamples=10))
    assert got == {"fpr95": (1.0, 1.0), "auroc": (0.5, 0.5), "aupr": (0.75, 0.75)}


@pytest.mark.parametrize(
    "knob", [{"resamples": 1}, {"level": 1.0}, {"level": 0}, {"n_ood": 0}, {"positive": "x"}, {"aupr": "x"}]
)
def test_impossible_requests_are_refused(knob: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(knob))):
        knobs = {name: value for name, value in knob.items() if name in ("positive", "aupr")}
        again = {name: value for name, value in knob.items() if name not in knobs}
        bootstrap_intervals([1.0], [0.0], Convention(**knobs), Resampling(**again))


def test_unusable_scores_are_named() -> None:
    with pytest.raises(FaroutError, match="energy of svhn hold 1 NaN"):
        bootstrap_intervals([1.0], [float("nan")], names=("energy of cifar10", "energy of svhn"))
