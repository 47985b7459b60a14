"""Calibration measures against the official values and against their definitions."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from farout.errors import ConfigError, FaroutError
from farout.metrics import (
    ReliabilityCurve,
    calibration_error,
    expected_calibration_error,
    reliability_curve,
    rescale_confidence,
    soft_f1,
    tune_temperature,
)

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS = json.loads((FOLDER / "vectors_energy_oe.json").read_text())["calibration"]
JEM = json.loads((FOLDER / "vectors_jem_cider.json").read_text())["jem"]["ece"]["cases"]
CASES = {case["name"]: case for case in VECTORS["cases"]}
NORMS = {"p_2": "rms", "p_1": "mad", "p_max": "max"}


def official_input(name: str) -> tuple[np.ndarray, np.ndarray]:
    if name == "n12000":
        rs = np.random.RandomState(8)
        confidence = rs.uniform(0.1, 1, 12000)
        return confidence, (rs.uniform(size=12000) < confidence**1.5).astype(int)
    n = int(name[1:])
    given_input = CASES["n250"]["input"]
    return np.array(given_input["confidence"])[:n], np.array(given_input["correct"])[:n]


@pytest.mark.parametrize("name", CASES)
def test_official_values(name: str) -> None:
    confidence, correct = official_input(name)
    expect = CASES[name]["expect"]
    assert soft_f1(confidence, correct) == pytest.approx(expect["soft_f1"], rel=1e-9)
    for key, norm in NORMS.items():
        if isinstance(expect[key], str):  # the official code raises IndexError below 100 images
            with pytest.raises(FaroutError, match="do not fill one bin"):
                calibration_error(confidence, correct, norm=norm)
        else:
            assert calibration_error(confidence, correct, norm=norm) == pytest.approx(expect[key], rel=1e-9)


def test_counting_the_last_bin_changes_the_error() -> None:
    confidence, correct = np.full(200, 0.9), np.r_[np.ones(100), np.zeros(100)]
    assert calibration_error(confidence, correct) == pytest.approx(np.sqrt(0.5) * 0.1)
    assert calibration_error(confidence, correct, skip_last_bin=False, norm="max") == pytest.approx(0.9)
    assert calibration_error(confidence, correct, skip_last_bin=False, norm="mad") == pytest.approx(0.5)


@pytest.mark.parametrize(("seed", "spread", "index"), [(9, 2, 0), (10, 0.3, 1), (15, 2.5, 2)])
def test_official_temperatures(seed: int, spread: float, index: int) -> None:
    rs = np.random.RandomState(seed)
    logits = rs.normal(0, spread, (500, 10)).astype(np.float32)
    labels = rs.randint(0, 10, 500)
    logits[np.arange(500), labels] += 3
    case = VECTORS["tune_temp"][index]
    got = tune_temperature(torch.from_numpy(logits), torch.from_numpy(labels))
    assert got == pytest.approx(case["expect_T"], abs=case["tol"])


def test_expected_calibration_error_by_hand() -> None:
    # Two bins: (0, .5] holds .5 (right) and .3 (wrong), (.5, 1] holds .9 (right) and .7 (wrong).
    confidence, correct = [0.5, 0.3, 0.9, 0.7], [1, 0, 1, 0]
    expect = (2 * abs(0.5 - 0.4) + 2 * abs(0.5 - 0.8)) / 4
    assert expected_calibration_error(confidence, correct, bins=2) == pytest.approx(expect)
    assert expected_calibration_error([1.0, 1.0], [True, True]) == 0
    assert expected_calibration_error([0.0], [1]) == 1


def jem_input(case: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidences of a float64 softmax, and whether the prediction was right."""
    rows = np.arange(60)
    logits = 3 * np.sin(0.37 * (rows[:, None] + 1) * (np.arange(4) + 1) + np.arange(4))
    labels = (7 * rows + 3) % 4
    if case == 1:
        labels = np.where(rows % 3 == 0, labels, logits.argmax(1))
    if case == 2:
        rs = np.random.RandomState(3)
        logits = 1.6 * rs.normal(size=(500, 10))
        u, other = rs.uniform(size=500), rs.randint(0, 10, 500)
        p = softmax(logits).max(1)
        right = np.select([p < 0.5, p < 0.62, p <= 0.8], [0.75, 0.40, 0.95], 0.65)
        labels = np.where(u < right, logits.argmax(1), other)
    return softmax(logits).max(1), logits.argmax(1) == labels


def softmax(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).softmax(1).numpy()


@pytest.mark.parametrize("index", range(len(JEM)))
def test_expected_calibration_error_of_the_jem_lineage(index: int) -> None:
    case, (confidence, correct) = JEM[index], jem_input(index)
    assert (correct.mean(), confidence.mean()) == pytest.approx((case["accuracy"], case["mean_confidence"]), rel=1e-12)
    for bins, width in ((20, "0.05"), (10, "0.1")):
        got = expected_calibration_error(confidence, correct, bins)
        assert got == pytest.approx(case[f"expected_calibration_error_bin_{width}"], rel=1e-12)
    for bins in (10, 15, 20):  # a second official function, in float32
        got = expected_calibration_error(confidence, correct, bins)
        assert got == pytest.approx(case[f"ECELoss_{bins}_bins"], abs=1e-7)


images = st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=60)


@given(images, st.integers(1, 20))
def test_reliability_curve_is_what_the_error_sums_up(pairs: list[tuple[int, bool]], bins: int) -> None:
    confidence, correct = np.array([c / 30 for c, _ in pairs]), np.array([y for _, y in pairs])
    curve = reliability_curve(confidence, correct, bins)
    assert curve.count.sum() == len(pairs)
    full = curve.count > 0
    assert np.isnan(curve.accuracy[~full]).all()
    assert np.isnan(curve.confidence[~full]).all()
    gaps = np.abs(curve.accuracy - curve.confidence)[full] * curve.count[full]
    error = expected_calibration_error(confidence, correct, bins)
    assert (gaps.sum() / len(pairs), curve.error) == pytest.approx((error, error), abs=1e-12)
    kept = ReliabilityCurve.of_bins(json.loads(json.dumps(curve.as_bins())))
    assert kept.error == pytest.approx(error, abs=1e-6) and (kept.upper == curve.upper).all()
    assert (curve.lower[full] - 1e-12 <= curve.confidence[full]).all()
    assert (curve.confidence[full] <= curve.upper[full] + 1e-12).all()


def test_reliability_curve_by_hand() -> None:
    curve = reliability_curve([0.5, 0.3, 0.9, 0.7], [1, 0, 1, 0], bins=4)
    assert curve.lower.tolist() == [0, 0.25, 0.5, 0.75]
    assert curve.upper.tolist() == [0.25, 0.5, 0.75, 1]
    assert curve.count.tolist() == [0, 2, 1, 1]
    np.testing.assert_allclose(curve.confidence, [np.nan, 0.4, 0.7, 0.9])
    np.testing.assert_allclose(curve.accuracy, [np.nan, 0.5, 0, 1])


@pytest.mark.parametrize("name", ["n250", "n150", "n12000"])
def test_reliability_curve_by_size_is_what_the_official_errors_sum_up(name: str) -> None:
    confidence, correct = official_input(name)
    curve = reliability_curve(confidence, correct, bin_size=100)
    assert curve.count.sum() == confidence.size
    assert set(curve.count[:-1]) <= {100}
    assert 100 <= curve.count[-1] < 200
    assert (np.sort(confidence)[0], np.sort(confidence)[-1]) == (curve.lower[0], curve.upper[-1])
    assert (curve.upper[:-1] <= curve.lower[1:]).all()
    gaps, weights = np.abs(curve.accuracy - curve.confidence)[:-1], curve.count[:-1] / confidence.size
    expect = CASES[name]["expect"]
    assert np.sqrt(np.sum(weights * gaps**2)) == pytest.approx(expect["p_2"], rel=1e-9)
    assert np.sum(weights * gaps) == pytest.approx(expect["p_1"], rel=1e-9)


@given(images, st.integers(1, 20))
def test_expected_calibration_error_by_definition(pairs: list[tuple[int, bool]], bins: int) -> None:
    confidence = np.array([c / 30 for c, _ in pairs])
    correct = np.array([y for _, y in pairs])
    edges, expect = np.linspace(0, 1, bins + 1), 0.0
    for lower, upper in pairwise(edges):
        inside = (confidence > lower) & (confidence <= upper) | ((lower == 0) & (confidence == 0))
        if inside.any():
            expect += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(confidence, correct, bins) == pytest.approx(expect, abs=1e-12)


def test_float32_softmax_is_accepted_and_logits_are_not() -> None:
    assert expected_calibration_error(torch.tensor([1.0 + 6e-7]), torch.tensor([True])) == pytest.approx(0)
    with pytest.raises(FaroutError, match="not logits"):
        expected_calibration_error([7.0], [1])


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [([0.5], [1, 0], "pair up"), ([], [], "empty"), ([0.5], [0.5], "0 or 1"), ([np.nan], [1], "NaN")],
)
def test_unusable_input_is_refused(confidence: Any, correct: Any, message: str) -> None:
    for measure in (expected_calibration_error, soft_f1, calibration_error, reliability_curve):
        with pytest.raises(FaroutError, match=message):
            measure(confidence, correct)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="rms, mad, max"):
        calibration_error([0.5], [1], norm="l2")
    with pytest.raises(ConfigError, match="bins"):
        expected_calibration_error([0.5], [1], bins=0)
    with pytest.raises(FaroutError, match="temperature tuning needs"):
        tune_temperature(torch.zeros(3, 2), torch.zeros(2))
    with pytest.raises(FaroutError, match="NaN or infinite logits"):
        tune_temperature(torch.full((3, 2), float("nan")), torch.zeros(3))
    with pytest.raises(ConfigError, match="bins=0"):
        reliability_curve([0.5], [1], bins=0)
    with pytest.raises(FaroutError, match="do not fill one bin of 2"):
        reliability_curve([0.5], [1], bin_size=2)
    with pytest.raises(ConfigError, match="bin_size=0"):
        reliability_curve([0.5], [1], bin_size=0)


def test_rescaling_sends_chance_to_zero_and_certainty_to_one() -> None:
    np.testing.assert_allclose(rescale_confidence([0.1, 0.55, 1.0], 10), [0, 0.5, 1], atol=1e-15)


def test_soft_f1_without_errors_or_doubts_is_zero() -> None:
    assert soft_f1([1.0, 1.0], [1, 1]) == 0
