"""Paired intervals: equal to resampling images and measuring anew, and narrower than intervals that ignore pairing."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farout.errors import FaroutError
from farout.metrics import Convention, Resampling, bootstrap_intervals, detection_metrics, paired_intervals
from farout.metrics.bootstrap import resampled_metrics
from farout.metrics.calibration import calibration_error
from farout.metrics.paired import paired_differences, paired_pooled_calibration, pairs_within
from farout.metrics.protocol import Protocol, apply, mean_over_sets, stream_of

KEYS = ("fpr95", "auroc", "aupr")
Test = tuple[np.ndarray, np.ndarray]


def drawn_images(size: int, wanted: int, resamples: int, seed: Sequence[int]) -> list[np.ndarray]:
    """(wanted,) images of each resample."""
    generator = np.random.default_rng(seed)
    return [generator.integers(0, size, wanted) for _ in range(resamples)]


def measured_anew(tests: Sequence[Test], id_rows: np.ndarray, ood_rows: np.ndarray, **knobs: Any) -> np.ndarray:
    """(C, 3) metrics of the drawn images, from scratch."""
    found = [detection_metrics(of_id[id_rows], of_ood[ood_rows], **knobs) for of_id, of_ood in tests]
    return np.array([[measured[key] for key in KEYS] for measured in found])


sizes = st.integers(1, 15)
knobs_of = st.fixed_dictionaries(
    {
        "positive": st.sampled_from(["id", "ood"]),
        "recall": st.sampled_from([0.1, 0.8, 0.95, 1.0]),
        "fpr_rule": st.sampled_from(["nearest", "first"]),
        "aupr": st.sampled_from(["average_precision", "trapezoid"]),
    }
)


@settings(max_examples=60, deadline=None)
@given(st.tuples(sizes, sizes, sizes), st.integers(0, 2**32 - 1), knobs_of)
def test_equals_measuring_every_resample_from_scratch(
    numbers: tuple[int, int, int], seed: int, knobs: dict[str, Any]
) -> None:
    """Few values, so that there are ties."""
    n_id, n_ood, wanted = numbers
    rng = np.random.default_rng(seed)
    tests = [tuple(rng.integers(-3, 4, n).astype(float) for n in (n_id, n_ood)) for _ in range(2)]
    images = zip(drawn_images(n_id, n_id, 5, [3]), drawn_images(n_ood, wanted, 5, [3, 1]), strict=True)
    found = np.array([measured_anew(tests, of_id, of_ood, **knobs) for of_id, of_ood in images])
    how, again = Convention(**knobs), Resampling(5, 0.9, 3, wanted)
    columns = [list(column) for column in zip(*tests, strict=True)]
    assert np.array_equal(resampled_metrics(columns[0], columns[1], how, again), found)
    low, high = np.quantile(found[:, 0] - found[:, 1], [(1 - 0.9) / 2, (1 + 0.9) / 2], axis=0)
    assert paired_intervals(*tests, how, again) == {key: (low[i], high[i]) for i, key in enumerate(KEYS)}


def some_sets(ties: bool) -> dict[str, dict[str, np.ndarray]]:
    """Three columns of scores on 120 ID images and three OOD sets, two of which share a vote."""
    rng, sizes = np.random.default_rng(0), {"id": 120, "svhn": 70, "crop": 24, "resize": 30}
    found = {}
    for name, size in sizes.items():
        common = rng.normal(1.5 * (name == "id"), 1, size)
        columns = {column: common + rng.normal(0, 0.4, size) for column in ("a", "b", "c")}
        found[name] = {column: np.round(values) if ties else values for column, values in columns.items()}
    return found


def rows_of(protocol: Protocol, given: Mapping[str, Mapping[str, np.ndarray]]) -> dict[tuple[str, str], dict[str, Any]]:
    votes = {"crop": "houses", "resize": "houses"}
    return {
        (column, name): {"ood": name, "vote": votes.get(name), **apply(protocol, given["id"][column], values, name)}
        for name, by_column in given.items()
        if name != "id"
        for column, values in by_column.items()
    }


@pytest.mark.parametrize("positive", ["id", "ood"])
@pytest.mark.parametrize("ties", [False, True])
def test_sets_and_their_mean_equal_the_protocol_carried_out_on_every_resample(positive: str, ties: bool) -> None:
    """ID images are the same in a resample of every set; each set has its own OOD images; votes share their weight."""
    protocol = Protocol("p", positive, ratio=5, redraws=3, bootstrap=20, seed=4)
    given = some_sets(ties)
    rows = rows_of(protocol, given)
    side = ("b", "c")
    ((*on_sets, of_mean),) = paired_differences(protocol, given, rows, [(("a",), side)])
    by_set = {}
    for name in ("svhn", "crop", "resize"):
        own = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        tests = [(given["id"][column], given[name][column]) for column in ("a", "b", "c")]
        n_ood = 24  # a fifth of 120; "crop" has no more
        images = zip(
            drawn_images(120, 120, 20, [4]), drawn_images(len(tests[0][1]), n_ood, 20, [4, own, 1]), strict=True
        )
        found = np.array([measured_anew(tests, *rows_, positive=positive) for rows_ in images])
        by_set[name] = found[:, 0] - found[:, 1:].mean(axis=1)
    by_set["mean"] = (by_set["svhn"] + (by_set["crop"] + by_set["resize"]) / 2) / 2
    for got in (*on_sets, of_mean):
        low, high = np.quantile(by_set[got["ood"]], [0.025, 0.975], axis=0)
        for i, key in enumerate(KEYS):
            assert got[key][1:] == pytest.approx([low[i], high[i]], abs=1e-12), (got["ood"], key)
    for got in on_sets:
        for key in KEYS:
            sides = [rows[column, got["ood"]][key] for column in ("a", "b", "c")]
            assert got[key][0] == pytest.approx(sides[0] - (sides[1] + sides[2]) / 2)
    means = [mean_over_sets([row for (own, _), row in rows.items() if own == column]) for column in ("a", "b", "c")]
    assert of_mean["ood"] == "mean"
    assert of_mean["fpr95"][0] == pytest.approx(means[0]["fpr95"] - (means[1]["fpr95"] + means[2]["fpr95"]) / 2)


def test_what_is_common_to_both_does_not_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    common = rng.normal(1.5, 1, 500), rng.normal(0, 1, 500)
    first, second = ([x + rng.normal(0, 0.1, 500) for x in common] for _ in range(2))
    low, high = paired_intervals((first[0], first[1]), (second[0], second[1]), resampling=Resampling(300))["auroc"]
    alone = bootstrap_intervals(*first, resampling=Resampling(300))["auroc"]
    assert high - low < (alone[1] - alone[0]) / 3


def test_width_is_that_of_the_theory_of_paired_curves() -> None:
    """DeLong et al. (1988), section 2: the same variance as of one AUROC, of the difference of an image's shares."""
    rng = np.random.default_rng(2)
    tests = [(rng.normal(1, 1, 700), rng.normal(0, 1, 500))]
    tests.append((tests[0][0] + rng.normal(0, 1, 700), tests[0][1] + rng.normal(0, 1, 500)))
    wins = [of_id[:, None] > of_ood[None] for of_id, of_ood in tests]
    by_id, by_ood = (wins[0].mean(axis) - wins[1].mean(axis) for axis in (1, 0))
    deviation = np.sqrt(by_id.var(ddof=1) / 700 + by_ood.var(ddof=1) / 500)
    low, high = paired_intervals(*tests, resampling=Resampling(2000))["auroc"]
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.08)


def test_calibration_with_ood_images_is_resampled_image_by_image() -> None:
    """Against a plain loop over drawn images, one draw for both networks."""
    rng, protocol = np.random.default_rng(3), Protocol("oe", bootstrap=9, seed=4)
    sure = {c: rng.uniform(0.5, 1, 250) for c in "ab"}
    right = {c: rng.random(250) < sure[c] ** (1 + (c == "b")) for c in "ab"}
    others = {ood: {c: rng.uniform(0.1, 1, n) for c in "ab"} for ood, n in (("x", 60), ("y", 90))}
    errors = {(c, ood): rng.random() for c in "ab" for ood in "xy"}
    predictions = {c: (sure[c], right[c].astype(float)) for c in "ab"}
    (found,) = paired_pooled_calibration(protocol, predictions, others, errors, [(("a",), ("b",))])
    every = {}
    for ood, own in others.items():
        of_id, of_ood = np.random.default_rng([4]), np.random.default_rng([4, *stream_of(ood), 1])
        every[ood] = np.empty(9)
        for i in range(9):
            n_ood = len(own["a"])
            rows, chosen = of_id.integers(0, 250, 250), of_ood.integers(0, n_ood, n_ood)
            a, b = (
                calibration_error(
                    np.concatenate([sure[c][rows], own[c][chosen]]), np.concatenate([right[c][rows], 0 * chosen])
                )
                for c in "ab"
            )
            every[ood][i] = a - b
    every["mean"] = (every["x"] + every["y"]) / 2
    assert [d["ood"] for d in found] == ["x", "y", "mean"]
    for d in found:
        difference, *bounds = d["rms"]
        assert bounds == pytest.approx(list(np.quantile(every[d["ood"]], [0.025, 0.975])))
        sets = "xy" if d["ood"] == "mean" else d["ood"]
        assert difference == pytest.approx(np.mean([errors["a", o] - errors["b", o] for o in sets]))
    with pytest.raises(FaroutError, match="same images"):
        short = {"x": {"a": others["x"]["a"], "b": others["x"]["b"][:9]}}
        paired_pooled_calibration(protocol, predictions, short, errors, [(("a",), ("b",))])


def test_scores_of_other_images_are_refused() -> None:
    with pytest.raises(FaroutError, match=r"same images, not of \[\(2, 1\), \(3, 1\)\]"):
        paired_intervals(([1.0, 2.0], [0.0]), ([1.0, 2.0, 3.0], [0.0]))


def test_every_score_meets_each_reference_once() -> None:
    pairs = pairs_within(["msp", "energy", "knn"], ["msp", "energy", "absent"])
    assert pairs == [(("energy",), ("msp",)), (("knn",), ("msp",)), (("knn",), ("energy",))]
