"""The protocols: who is positive, how many OOD images a draw holds, and what a mean may be taken over."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from farout.errors import ConfigError, FaroutError
from farout.metrics import Protocol, detection_metrics, mean_over_sets
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


def test_conventions_of_the_papers() -> None:
    energy, oe, plain = load("energy"), load("oe"), load("plain")
    assert (energy.positive, oe.positive) == ("id", "ood")
    assert (energy.ratio, energy.redraws, oe.ratio, oe.redraws) == (5, 10, 5, 10)
    assert (plain.ratio, plain.redraws) == (None, 1)


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


@pytest.mark.parametrize(
    "knob",
    [{"positive": "in"}, {"fpr_rule": "x"}, {"ratio": 0}, {"redraws": 0}, {"bins": -1}, {"recall": 95}],
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


def test_means_that_mean_nothing_are_refused() -> None:
    with pytest.raises(FaroutError, match="no OOD set"):
        mean_over_sets([])
    with pytest.raises(FaroutError, match="different positives"):
        mean_over_sets([row("a", 0.2), row("b", 0.2) | {"positive": "ood"}])
