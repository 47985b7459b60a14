"""The protocols: who is positive, how many OOD images a draw holds, and what a mean may be taken over."""

import hashlib
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from sklearn.metrics import auc, precision_recall_curve, roc_curve

from farout.errors import ConfigError, FaroutError
from farout.metrics import (
    Convention,
    Protocol,
    Resampling,
    bootstrap_intervals,
    both_conventions,
    detection_metrics,
    mean_over_sets,
)
from farout.metrics.protocol import apply

CONF = Path(__file__).parents[2] / "conf" / "protocol"
FILE = Path(__file__).parents[1] / "vectors" / "vectors_energy_oe.json"
TRUNCATION = json.loads(FILE.read_text())["ood_truncation"]


def load(name: str) -> Protocol:
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert values.pop("_target_") == "farout.metrics.protocol.Protocol"
    return Protocol(**values)


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_protocol_file_loads_and_is_named_after_itself(path: Path) -> None:
    assert load(path.stem).name == path.stem


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_protocol_file_sets_every_field_and_takes_overrides(path: Path) -> None:
    """A field that a file leaves out could not be set on the command line without a plus sign."""
    assert set(yaml.safe_load(path.read_text())) == {"_target_", *(field.name for field in fields(Protocol))}
    with initialize_config_dir(str(CONF.parent), version_base=None):
        overrides = [f"+protocol={path.stem}", "protocol.bootstrap=100", "protocol.max_ood=50", "protocol.both=true"]
        composed = compose(overrides=overrides).protocol
    values = OmegaConf.to_container(composed)
    assert isinstance(values, dict)
    assert values.pop("_target_") == "farout.metrics.protocol.Protocol"
    protocol = Protocol(**values)  # type: ignore[arg-type]
    assert (protocol.name, protocol.bootstrap, protocol.max_ood, protocol.both) == (path.stem, 100, 50, True)


def test_conventions_of_the_papers() -> None:
    energy, oe, plain = load("energy"), load("oe"), load("plain")
    assert (energy.positive, oe.positive) == ("id", "ood")
    assert (energy.ratio, energy.redraws, oe.ratio, oe.redraws) == (5, 10, 5, 10)
    assert (plain.ratio, plain.redraws) == (None, 1)
    jem, cider, openood = load("jem"), load("cider"), load("openood")
    assert (jem.positive, jem.ratio, jem.bins, jem.ood_count(10_000, 26_032)) == ("id", None, 20, 26_032)
    assert (cider.positive, cider.fpr_rule, cider.aupr) == ("id", "nearest", "average_precision")
    assert (openood.positive, openood.fpr_rule, openood.aupr) == ("ood", "first", "trapezoid")
    assert openood.ood_count(9_000, 35_195) == 35_195


@pytest.mark.parametrize(
    ("n_id", "available", "used"),
    [
        (10_000, 10_000, 9_728),
        (10_000, 26_032, 9_728),
        (10_000, 5_640, 5_640),
        (10_000, 8_925, 8_925),
        (5_000, 10_000, 4_608),
        (26_032, 26_032, 10_000),
        (300, 10_000, 300),
    ],
)
def test_images_that_cider_scores_with_its_neighbours(n_id: int, available: int, used: int) -> None:
    assert load("cider").ood_count(n_id, available) == used


@pytest.mark.parametrize(("available", "used"), [(5_640, 5_632), (8_925, 8_704), (26_032, 9_728), (100, 100)])
def test_images_that_cider_scores_with_its_mahalanobis_distance(available: int, used: int) -> None:
    assert replace(load("cider"), ratio=None).ood_count(10_000, available) == used


@pytest.mark.parametrize("decimals", [None, 1])
def test_openood_is_what_its_scikit_learn_calls_give(decimals: int | None) -> None:
    id_scores, ood_scores = scores(200, 150)
    if decimals is not None:
        id_scores, ood_scores = np.round(id_scores, decimals), np.round(ood_scores, decimals)
    truth = np.r_[np.zeros(200, int), np.ones(150, int)]
    pooled = np.r_[id_scores, ood_scores]
    fpr, tpr, _ = roc_curve(truth, -pooled, drop_intermediate=decimals is None)  # as there where nothing is tied
    areas = {}
    for key, y, s in (("aupr_in", 1 - truth, pooled), ("aupr_out", truth, -pooled)):
        precision, recall, _ = precision_recall_curve(y, s)
        areas[key] = auc(recall, precision)
    row = apply(load("openood"), id_scores, ood_scores, "svhn")
    assert row["fpr95"] == row["fpr95_out"] == pytest.approx(fpr[np.argmax(tpr >= 0.95)])
    assert row["auroc"] == pytest.approx(auc(fpr, tpr))
    assert {key: row[key] for key in areas} == pytest.approx(areas)
    assert row["aupr"] == row["aupr_out"]


def test_both_conventions_are_means_over_the_same_draws() -> None:
    id_scores, ood_scores = scores(100, 300)
    ours = {p: Protocol("p", positive=p, ratio=5, redraws=4, both=True) for p in ("id", "ood")}
    rows = {p: apply(protocol, id_scores, ood_scores, "svhn") for p, protocol in ours.items()}
    plain = {p: apply(replace(protocol, both=False), id_scores, ood_scores, "svhn") for p, protocol in ours.items()}
    for positive, suffix in (("id", "in"), ("ood", "out")):
        for key in ("fpr95", "aupr"):
            assert rows["id"][f"{key}_{suffix}"] == rows["ood"][f"{key}_{suffix}"] == plain[positive][key]
        assert plain[positive].items() <= rows[positive].items()
    whole = apply(Protocol("p", both=True), id_scores, ood_scores)
    assert both_conventions(id_scores, ood_scores).items() <= whole.items()


def test_bootstrap_intervals_are_in_the_row_on_request() -> None:
    id_scores, ood_scores = scores(200, 60)
    protocol = Protocol("p", ratio=5, redraws=3, bootstrap=50, aupr="trapezoid")
    row = apply(protocol, id_scores, ood_scores, "svhn")
    without = apply(replace(protocol, bootstrap=0), id_scores, ood_scores, "svhn")
    intervals = row.pop("intervals")
    assert row == without
    assert (intervals.pop("level"), intervals.pop("resamples")) == (0.95, 50)
    assert json.loads(json.dumps(intervals)) == intervals
    seed = [0, int.from_bytes(hashlib.sha256(b"svhn").digest()[:8], "little")]
    expect = bootstrap_intervals(
        id_scores,
        ood_scores,
        Convention(aupr="trapezoid"),
        Resampling(resamples=50, seed=seed, n_ood=without["n_ood"]),
    )
    assert intervals == {key: list(bounds) for key, bounds in expect.items()}
    other = apply(replace(protocol, seed=1), id_scores, ood_scores, "svhn")["intervals"]
    assert other["auroc"] != intervals["auroc"]


def test_a_cut_set_is_drawn_at_random_by_name() -> None:
    id_scores, ood_scores = scores(100, 300)
    protocol = Protocol("p", max_ood=50)
    row = apply(protocol, id_scores, ood_scores, "svhn")
    assert (row["n_ood"], row["n_available"]) == (50, 300)
    assert row["auroc"] != detection_metrics(id_scores, ood_scores[:50])["auroc"]
    assert row["auroc"] != apply(protocol, id_scores, ood_scores, "isun")["auroc"]
    assert apply(protocol, id_scores, ood_scores, "svhn") == row


@pytest.mark.parametrize("name", ["svhn_id", "cifar_id"])
def test_partial_batches_are_dropped_as_in_the_official_loop(name: str) -> None:
    case = TRUNCATION[name]
    available = 26_032
    assert case["len_test"] // 5 == case["ood_num_examples"]
    assert load("oe").ood_count(case["len_test"], available) == case["actually_used"]


def test_a_small_case_of_the_truncation() -> None:
    assert Protocol("p", ratio=1, batch_size=3).ood_count(n_id=7, n_available=15) == TRUNCATION["expect"]
    assert Protocol("p", ratio=1, batch_size=30).ood_count(n_id=7, n_available=15) == 7


def scores(n_id: int, n_ood: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    return rng.normal(1, 1, n_id), rng.normal(0, 1, n_ood)


def test_row_is_the_mean_and_population_sd_of_draws_without_replacement() -> None:
    id_scores, ood_scores = scores(100, 30)
    rows = {r: apply(Protocol("p", ratio=5, redraws=r), id_scores, ood_scores, "svhn") for r in (1, 2)}
    assert rows[1]["auroc_sd"] == 0
    # The second draw of the stream follows from mean and first draw; the sd must be half their distance.
    second = 2 * rows[2]["auroc"] - rows[1]["auroc"]
    assert second != rows[1]["auroc"]
    assert rows[2]["auroc_sd"] == pytest.approx(abs(second - rows[1]["auroc"]) / 2)
    # One image less than all of distinct scores: without replacement, exactly one image is absent.
    row = apply(Protocol("p", ratio=1), ood_scores[:29], ood_scores, "svhn")
    leave_one_out = [detection_metrics(ood_scores[:29], np.delete(ood_scores, i))["auroc"] for i in range(30)]
    assert min(abs(row["auroc"] - x) for x in leave_one_out) < 1e-12


def test_row_records_what_was_used() -> None:
    row = apply(Protocol("p", positive="ood", ratio=5, redraws=3), *scores(100, 30), "svhn")
    recorded = {key: row[key] for key in ("n_id", "n_ood", "n_available", "redraws", "positive")}
    assert recorded == {"n_id": 100, "n_ood": 20, "n_available": 30, "redraws": 3, "positive": "ood"}
    assert row["base_rate"] == pytest.approx(1 / 6)
    assert apply(Protocol("p", ratio=5), *scores(100, 30))["base_rate"] == pytest.approx(5 / 6)


def test_a_set_too_small_for_the_ratio_is_used_whole_and_once() -> None:
    id_scores, ood_scores = scores(100, 13)
    row = apply(Protocol("p", ratio=5, redraws=10), id_scores, ood_scores)
    assert (row["n_ood"], row["redraws"]) == (13, 1)
    assert row["base_rate"] == pytest.approx(100 / 113)
    expect = detection_metrics(id_scores, ood_scores)
    assert {key: row[key] for key in expect} == expect
    with pytest.raises(FaroutError, match="too few"):
        apply(Protocol("p", ratio=5), id_scores[:4], ood_scores)


def test_draws_depend_on_seed_and_name_only() -> None:
    id_scores, ood_scores = scores(100, 300)
    base = apply(Protocol("a", ratio=5), id_scores, ood_scores, "svhn")
    assert apply(Protocol("b", ratio=5), id_scores, ood_scores, "svhn") == base
    assert apply(Protocol("a", ratio=5), id_scores, ood_scores, "isun")["auroc"] != base["auroc"]
    assert apply(Protocol("a", ratio=5, seed=1), id_scores, ood_scores, "svhn")["auroc"] != base["auroc"]
    # The same images for every score: an increasing transformation of the scores changes nothing.
    assert apply(Protocol("a", ratio=5), np.exp(id_scores), np.exp(ood_scores), "svhn") == base


def test_recall_and_rule_reach_the_metrics() -> None:
    id_scores, ood_scores = scores(97, 50)
    for knobs in ({"recall": 0.8}, {"fpr_rule": "first"}, {"positive": "ood"}):
        row = apply(Protocol("p", **knobs), id_scores, ood_scores)  # type: ignore[arg-type]
        expect = detection_metrics(id_scores, ood_scores, **knobs)  # type: ignore[arg-type]
        assert row["fpr95"] == expect["fpr95"]


def test_errors_name_the_set() -> None:
    with pytest.raises(FaroutError, match="scores of isun hold 1 NaN"):
        apply(Protocol("p"), [1.0], [float("nan")], "isun")
    with pytest.raises(FaroutError, match="the energy scores of isun hold 1 NaN"):
        apply(Protocol("p"), [1.0], [float("nan")], "isun", score="energy")
    with pytest.raises(FaroutError, match="the energy scores of cifar10 hold 1 NaN"):
        apply(Protocol("p"), [float("inf")], [1.0], "isun", score="energy", id_set="cifar10")
    with pytest.raises(FaroutError, match="the scores of ID are empty"):
        apply(Protocol("p"), [], [1.0], "isun")


@pytest.mark.parametrize(
    "knob",
    [
        {"positive": "in"},
        {"fpr_rule": "x"},
        {"aupr": "auc"},
        {"ratio": 0},
        {"redraws": 0},
        {"bins": -1},
        {"recall": 95},
        {"max_ood": 0},
        {"batch_size": 0},
        {"bootstrap": 1},
        {"bootstrap": -1},
        {"seed": -1},
    ],
)
def test_impossible_protocols_are_refused(knob: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"protocol.{next(iter(knob))}"):
        Protocol("p", **knob)


def row(ood: str, value: float, base_rate: float = 5 / 6, vote: str | None = None) -> dict[str, Any]:
    numbers = {"fpr95": value, "auroc": value, "aupr": value}
    return {"ood": ood, "vote": vote or ood, "base_rate": base_rate, "positive": "id"} | numbers


def test_rows_of_one_vote_count_once() -> None:
    rows = [row("faces", 0.2), row("houses_a", 0.4, vote="houses"), row("houses_b", 0.8, vote="houses")]
    mean = mean_over_sets(rows)
    assert mean["fpr95"] == pytest.approx((0.2 + 0.6) / 2)
    assert (mean["over"], mean["votes"]) == (["faces", "houses_a", "houses_b"], 2)


def test_no_mean_of_aupr_across_base_rates() -> None:
    assert mean_over_sets([row("a", 0.2), row("b", 0.4)])["aupr"] == pytest.approx(0.3)
    mixed = mean_over_sets([row("a", 0.2), row("b", 0.4, base_rate=0.9)])
    assert mixed["aupr"] is None
    assert mixed["auroc"] == pytest.approx(0.3)


def test_means_in_both_conventions() -> None:
    extra = {"fpr95_in": 0.1, "fpr95_out": 0.3, "aupr_in": 0.5, "aupr_out": 0.7}
    rows = [row("a", 0.2) | extra, row("b", 0.4) | {key: value + 0.2 for key, value in extra.items()}]
    mean = mean_over_sets(rows)
    assert {key: mean[key] for key in extra} == pytest.approx({key: value + 0.1 for key, value in extra.items()})
    rows[1]["base_rate"] = 0.5
    mixed = mean_over_sets(rows)
    assert (mixed["aupr_in"], mixed["aupr_out"]) == (None, None)
    assert mixed["fpr95_out"] == pytest.approx(0.4)
    assert "fpr95_in" not in mean_over_sets([rows[0], row("c", 0.1)])


def test_means_that_mean_nothing_are_refused() -> None:
    with pytest.raises(FaroutError, match="no OOD set"):
        mean_over_sets([])
    with pytest.raises(FaroutError, match="different positives"):
        mean_over_sets([row("a", 0.2), row("b", 0.2) | {"positive": "ood"}])
