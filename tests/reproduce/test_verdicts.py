"""Verdicts follow from intervals, intervals from what the records hold, and records are known by their content."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from farout.config.settings import ROOT
from farout.papers import names
from farout.papers.claims import Claim, claims_of
from farout.report.records import size_of
from farout.reproduce.ledger import read_files
from farout.reproduce.verdict_page import claim_details, matrix
from farout.reproduce.verdicts import (
    MIXED,
    NO_INTERVAL,
    NOT_REPRODUCED,
    NOT_RUN,
    PAIRED,
    REPRODUCED,
    SEEDS,
    SHARES,
    Found,
    Verdict,
    judge,
    verdicts_of,
)

Record = dict[str, Any]
SETS = ("digits", "crop", "resize")


def claim(key: str) -> Claim:
    return next(c for name in names() for c in claims_of(name) if c.key == key)


def rows(score: str, rates: tuple[float, ...]) -> list[Record]:
    return [
        {"score": score, "ood": ood, "fpr95": rate, "auroc": 1 - rate / 3, "aupr": 0.9, "base_rate": 5 / 6}
        | ({"vote": "houses"} if ood != "digits" else {})
        for ood, rate in zip(SETS, rates, strict=True)
    ]


def record(
    method: str, seed: int, scores: dict[str, tuple[float, ...]], parent: str | None = None, **more: Any
) -> Record:
    run = f"{method}-wrn_40_2-cifar10-{'11111111' if method == 'ce' else '2222aaaa'}-s{seed}"
    identity = {
        "method": {"name": method},
        "backbone": {"name": "wrn_40_2"},
        "id_data": {"name": "cifar10"},
        "outliers": None if parent is None else "cifar100",
        "transform": {"name": "cifar", "mean": [0.5], "std": [0.2]},
        "parent": parent,
        "seed": seed,
        "scale": "full",
    }
    entry = {
        "date": "2026-11-26",
        "protocol": {"name": "energy", "positive": "id"},
        "ood_data": "stand_in",
        "max_eval_images": None,
        "id": {"accuracy": 0.9 if parent is None else 0.89, "ece": 0.05, "n": 10000},
        "rows": [row for score, rates in scores.items() for row in rows(score, rates)],
    }
    return {"run": run, "identity": identity, "evaluations": [entry | more]}


def networks(seed: int = 1, shift: float = 0.0) -> list[Record]:
    parent = record("ce", seed, {"msp": (0.6, 0.5, 0.5), "energy": (0.4 + shift, 0.3, 0.2)})
    return [
        parent,
        record("oe", seed, {"msp": (0.2, 0.1, 0.2)}, "11111111"),
        record("energy", seed, {"energy": (0.1 + shift, 0.1, 0.1)}, "11111111"),
    ]


def verdict(key: str, records: list[Record], paired: list[Record] | None = None) -> Verdict:
    (found,) = [v for v in verdicts_of(records, paired or []) if v.claim.key == key and v.scale == "full"]
    return found


def only(found: Verdict) -> Found:
    (one,) = found.found
    return one


@pytest.mark.parametrize(
    ("key", "interval", "word"),
    [
        ("energy_beats_softmax", (-3.0, -1.0), REPRODUCED),
        ("energy_beats_softmax", (-3.0, 1.0), MIXED),
        ("energy_beats_softmax", (1.0, 3.0), NOT_REPRODUCED),
        ("jem_confidence_on_objects", (1.0, 3.0), REPRODUCED),
        ("jem_confidence_on_objects", (-3.0, -1.0), NOT_REPRODUCED),
        ("fine_tuning_keeps_accuracy", (-0.9, 0.5), REPRODUCED),
        ("fine_tuning_keeps_accuracy", (-1.2, 0.5), MIXED),
        ("fine_tuning_keeps_accuracy", (-3.0, -1.1), NOT_REPRODUCED),
        ("energy_beats_softmax", None, NO_INTERVAL),
    ],
)
def test_a_verdict_is_the_side_on_which_the_whole_interval_lies(
    key: str, interval: tuple[float, float] | None, word: str
) -> None:
    assert judge(claim(key), interval) == word


def test_one_seed_without_scores_per_image_has_a_difference_and_no_verdict() -> None:
    found = only(verdict("energy_beats_softmax", networks()))
    assert (found.values, found.interval) == ((pytest.approx(32.5), pytest.approx(55.0)), None)
    assert verdict("energy_beats_softmax", networks()).word == NO_INTERVAL
    assert verdict("jem_calibrated", networks()).word == NOT_RUN


def test_the_paired_interval_of_one_evaluation_counts_where_it_is_of_the_same_sets() -> None:
    records = networks()
    block = {"first": "energy", "second": "msp", "fpr95": [-0.225, -0.24, -0.21], "auroc": None, "aupr": None}
    differences = [block | {"ood": ood} for ood in ("digits", "crop", "resize", "mean")]
    records[0]["evaluations"][0]["paired"] = {"differences": differences}
    found = only(verdict("energy_beats_softmax", records))
    assert (found.interval, found.how) == (pytest.approx((-24.0, -21.0)), PAIRED)
    assert found.verdict == REPRODUCED
    differences[0] |= {"ood": "another"}
    assert only(verdict("energy_beats_softmax", records)).interval is None, "a mean over other sets"


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ({"name": "wrn_40_2", "depth": 40, "widen_factor": 2}, ""),
        ({"name": "wrn_10_2_jem", "depth": 10, "widen_factor": 1}, " of widen factor 1"),
        ({"name": "wrn_16_4", "depth": 10, "widen_factor": 16}, " of depth 10 and widen factor 16"),
        ({"name": "resnet20", "depth": 20, "width": 16}, " of width 16"),
        ({"name": "resnet20", "depth": 8, "width": 8}, " of width 8 and depth 8"),
        ({"name": "densenet100", "depth": 100, "growth_rate": 12}, ""),
        ({"name": "allconv"}, ""),
        ("resnet20", ""),
    ],
)
def test_a_size_that_the_name_does_not_say_is_said(backbone: Any, size: str) -> None:
    assert size_of(backbone) == size


def test_networks_of_another_size_are_not_compared() -> None:
    records = networks()
    records[2]["identity"]["backbone"] = {"name": "wrn_40_2", "depth": 40, "widen_factor": 1}
    assert verdict("fine_tuning_beats_oe", records).word == NOT_RUN


def test_a_network_seen_on_all_images_and_on_fewer_counts_once() -> None:
    whole, limited = networks(), networks()
    block = {"first": "energy", "second": "msp", "fpr95": [-0.2, -0.3, 0.1], "auroc": None, "aupr": None}
    paired = {"paired": {"differences": [block | {"ood": ood} for ood in (*SETS, "mean")]}}
    fewer = limited[0]["evaluations"][0] | {"max_eval_images": 2000} | paired
    records = [whole[0] | {"evaluations": [fewer, *whole[0]["evaluations"]]}]
    found = only(verdict("energy_beats_softmax", records))
    assert found.case.first[0].conditions[-1] == 2000, "the one with an interval"
    assert found.interval == (pytest.approx(-30.0), pytest.approx(10.0))
    records[0]["evaluations"][1] |= paired
    found = only(verdict("energy_beats_softmax", records))
    assert found.case.first[0].conditions[-1] is None, "both have one: that of all images"
    fewer["ood_data"] = "genuine"
    assert len(verdict("energy_beats_softmax", records).found) == 2, "another list is another comparison"


def comparison(first: Record, second: Record, figures: list[float], over: tuple[str, ...] = SETS) -> Record:
    sides = [{"runs": [r["run"]], "score": s} for r, s in ((first, "msp"), (second, "energy"))]
    return {
        "protocol": {"name": "energy"},
        "ood_data": "stand_in",
        "max_eval_images": None,
        "sides": sides,
        "differences": [
            {"first": 0, "second": 1, "ood": "mean", "over": over, "fpr95": figures, "auroc": None, "aupr": None},
            {"first": 0, "second": 1, "ood": "id", "accuracy": [0.0, -0.002, 0.001], "ece": None},
        ],
    }


def test_a_comparison_of_runs_counts_either_way_round_and_for_no_other_runs() -> None:
    records = networks()
    paired = comparison(records[1], records[2], [0.05, 0.04, 0.06])
    found = only(verdict("fine_tuning_beats_oe", records, [paired]))
    assert (found.interval, found.how, found.verdict) == (pytest.approx((-6.0, -4.0)), PAIRED, REPRODUCED)
    other = comparison(records[1], records[2], [0.05, 0.04, 0.06], ("digits",))
    assert only(verdict("fine_tuning_beats_oe", records, [other])).interval is None, "a mean over other sets"
    for change in ({"ood_data": "energy"}, {"protocol": {"name": "plain"}}):
        assert only(verdict("fine_tuning_beats_oe", records, [paired | change])).interval is None
    assert only(verdict("fine_tuning_beats_energy", records, [paired])).interval is None
    kept = comparison(records[0], records[2], [0.1, 0.1, 0.1])
    found = only(verdict("fine_tuning_keeps_accuracy", records, [kept]))
    assert (found.interval, found.how) == (pytest.approx((-0.1, 0.2)), PAIRED)


def test_seeds_give_students_interval() -> None:
    records = [r for seed, shift in ((1, 0.0), (2, 0.06), (3, 0.02)) for r in networks(seed, shift)]
    found = only(verdict("energy_beats_softmax", records))
    shifts = 100 * np.array([0.0, 0.03, 0.01])  # half of each: one of two votes
    low, high = stats.ttest_rel(32.5 + shifts, [55.0] * 3).confidence_interval(0.95)
    assert found.interval == pytest.approx((low, high))
    assert found.how.startswith(SEEDS) and found.case.seeds == [1, 2, 3]


def test_accuracies_give_newcombes_interval() -> None:
    """Newcombe (1998), table II, method 10: 56 of 70 less 48 of 80."""
    records = networks()
    records[2]["evaluations"][0]["id"] = {"accuracy": 56 / 70, "n": 70}
    records[0]["evaluations"][0]["id"] = {"accuracy": 48 / 80, "n": 80}
    found = only(verdict("fine_tuning_keeps_accuracy", records))
    assert found.how == SHARES
    assert found.interval == pytest.approx((5.24, 33.39), abs=0.01)


def test_on_every_set_means_every_set() -> None:
    records = [r for seed in (1, 2) for r in networks(seed)]
    for index, rate in ((1, 0.2), (4, 0.201)):  # a spread, so that there is an interval
        records[index]["evaluations"][0]["rows"][0]["fpr95"] = rate
    assert verdict("oe_generalises", records).word == REPRODUCED
    for index in (1, 4):
        records[index]["evaluations"][0]["rows"][2]["fpr95"] = 0.7
    found = only(verdict("oe_generalises", records))
    assert (found.verdict, found.aside) == (MIXED, "2 of 3 sets; not resize")


@pytest.mark.parametrize(("scale", "counts"), [("small", False), ("demo", True)])
def test_the_demonstration_has_none_of_the_papers_sets_so_all_of_its_own_count(scale: str, counts: bool) -> None:
    jem = record("jem", 1, {"px_grad": (0.6, 0.3, 0.3), "energy": (0.3, 0.3, 0.3)})
    jem["identity"]["scale"] = scale
    jem["evaluations"][0]["protocol"] = {"name": "jem", "positive": "id"}
    key = ("jem_mass_beats_likelihood", scale)
    (verdict,) = (each for each in verdicts_of([jem]) if (each.claim.key, each.scale) == key)
    assert [found.difference for found in verdict.found] == ([pytest.approx(-5.0)] if counts else [])


def test_a_fine_tuned_network_stands_beside_the_one_that_it_began_from() -> None:
    records = networks()
    stranger = copy.deepcopy(records[0])
    stranger["run"] = "ce-wrn_40_2-cifar10-33333333-s1"
    stranger["identity"]["schedule"] = {"epochs": 7}
    found = only(verdict("fine_tuning_beats_energy", [stranger, *records]))
    assert found.case.second[0].run == "ce-wrn_40_2-cifar10-11111111-s1"
    other = record("energy", 1, {"energy": (0.1, 0.1, 0.1)}, "11111111", ood_data="energy")
    assert verdict("fine_tuning_beats_energy", [records[0], other]).word == NOT_RUN, "evaluated on other sets"


def imported(name: str, note: str = "", better: float = 0.1) -> Record:
    own = record("imported", 0, {"msp": (0.6, 0.5, 0.5), "energy": (0.6 - better, 0.5 - better, 0.5 - better)})
    own["identity"] |= {"method": {"name": "imported", "file_sha256": name}, "scale": "imported"}
    figures = {"fpr95": [-better, -better - 0.01, -better + 0.01]}
    differences = [{"first": "energy", "second": "msp", "ood": ood, **figures} for ood in (*SETS, "mean")]
    own["evaluations"][0]["paired"] = {"differences": differences}
    return own | {"run": f"imported-{name}", "trained": {"file": f"{name}.pt", "note": note}}


def test_networks_of_the_literature_are_judged_one_by_one_and_those_with_outliers_left_out() -> None:
    def of(*records: Record) -> Verdict:
        found = verdicts_of(records)
        return next(v for v in found if (v.claim.key, v.scale) == ("energy_beats_softmax", "literature"))

    one, two, other = imported("wrn"), imported("densenet"), imported("resnet", better=-0.1)
    assert (of(one, two).word, len(of(one, two).found)) == (REPRODUCED, 2)
    assert of(one, other).word == MIXED and "mixed: reproduced on 1 of 2" in matrix([of(one, other)])
    assert "(cifar" not in matrix([of(one, two)]), "CIFAR-10 goes without saying, alone"
    two["identity"]["id_data"] = {**two["identity"]["id_data"], "name": "cifar100"}
    assert "| reproduced (cifar100) |" in matrix([of(two)])
    two["identity"]["id_data"] = {**two["identity"]["id_data"], "name": "cifar10"}
    for told in (imported("oecc_densenet"), imported("densenet", "fine-tuned with outlier exposure")):
        assert of(one, told).found[0].case.runs == ["imported-wrn"] and len(of(one, told).found) == 1
    two["trained"] |= {"note": "a copy in a repository named oecc", "outliers": "none"}
    assert len(of(one, two).found) == 2
    two["trained"] |= {"note": "", "outliers": "tiny images"}
    assert len(of(one, two).found) == 1


def test_the_plain_protocol_speaks_for_runs_alone_that_no_papers_was_used_on() -> None:
    """The classifier of CIDER's demonstration says nothing of Energy's."""
    own = record("ce", 1, {"msp": (0.6, 0.5, 0.5), "energy": (0.4, 0.3, 0.2)}, protocol={"name": "plain"})
    own["identity"]["scale"] = "demo"
    key = ("energy_beats_softmax", "demo")

    def found() -> tuple[Found, ...]:
        return next(v.found for v in verdicts_of([own]) if (v.claim.key, v.scale) == key)

    assert len(found()) == 1
    own["evaluations"].append(own["evaluations"][0] | {"protocol": {"name": "cider"}})
    assert not found()


def test_of_several_second_rows_the_first_that_was_run_counts_on_each_id_set() -> None:
    """ODIN's step is another on CIFAR-100, so its score has another name there."""
    one, other, both = (imported(name) for name in ("wrn", "densenet", "resnet"))
    for network, scores in ((one, ["odin"]), (other, ["odin_t1000_e0.002"]), (both, ["odin", "odin_t1000_e0.002"])):
        network["evaluations"][0]["rows"] += [row for score in scores for row in rows(score, (0.5, 0.5, 0.5))]
    other["identity"]["id_data"] = {**other["identity"]["id_data"], "name": "cifar100"}
    key = ("energy_beats_odin", "literature")
    found = [v for v in verdicts_of([one, other, both]) if (v.claim.key, v.scale) == key]
    assert [(v.id_data, [f.case.kinds[1].score for f in v.found]) for v in found] == [
        ("cifar10", ["odin", "odin"]),
        ("cifar100", ["odin_t1000_e0.002"]),
    ]


def test_verdicts_of_the_ledger_do_not_depend_on_file_names_or_order() -> None:
    records = read_files(ROOT / "results")
    expect = [(v.claim.key, v.scale, v.id_data, v.word) for v in verdicts_of(records)]
    renamed = [{**r, "file": f"{i}.json"} for i, r in enumerate(reversed(records))]
    assert [(v.claim.key, v.scale, v.id_data, v.word) for v in verdicts_of(renamed)] == expect
    assert any(word == REPRODUCED for *_, word in expect)


def test_every_claim_names_sources_of_its_paper_and_nonsense_is_refused() -> None:
    from farout.papers import load

    for name in names():
        for own in claims_of(name):
            assert set(own.source) <= set(load(name).sources), own.key
            assert own.certainty == "unknown" or own.source, own.key
    with pytest.raises(ValueError, match="'luck' is none of"):
        replace(claim("jem_calibrated"), measure="luck")


def test_two_baselines_of_one_method_are_weighed_both_and_told_apart() -> None:
    """A claim that holds against one setting of cross-entropy and not against another is mixed, whichever is newer."""
    records = read_files(ROOT / "results")
    key = ("cider_beats_ce_knn", "from_trained")
    (found,) = (v for v in verdicts_of(records) if (v.claim.key, v.scale) == key)
    sides = {f.case.second[0].code: f.values[1] > f.values[0] for f in found.found}
    assert sides == {"0e9924c8": False, "fef426c7": True}
    text = claim_details([found])
    assert all(f"resnet20, 20a12978 against {code}: " in text for code in sides)
    alone = [r for r in records if "0e9924c8" not in r["run"]]
    (usual,) = (v for v in verdicts_of(alone) if (v.claim.key, v.scale) == key)
    assert "resnet20: " in claim_details([usual]) and " against " not in claim_details([usual]).split("|---")[-1]


def test_like_precision_is_compared_with_like_where_there_is_any() -> None:
    """Networks trained again in fp32 stand beside the fp32 ones of others, not beside each one that was bf16."""

    def network(row: str, precision: str, rate: float) -> Record:
        scores = {"knn_k300": (rate, rate, rate)}
        made = record(row, 1, scores, geometry={}, protocol={"name": "cider", "positive": "id"})
        made["run"] = f"{row}-resnet18_cider-cifar10-{precision}0000-s1"
        made["identity"] |= {"precision": precision, "backbone": {"name": "resnet18_cider"}, "scale": "small"}
        made["identity"]["id_data"] = {"name": "cifar100"}
        return made

    def compared(*records: Record) -> list[tuple[str, str]]:
        (found,) = (v for v in verdicts_of(records) if (v.claim.key, v.scale) == ("cider_beats_supcon", "small"))
        codes = [(each.case.first[0].code, each.case.second[0].code) for each in found.found]
        return sorted(codes)

    slow, fast = network("cider", "fp32", 0.4), network("cider", "bf16", 0.5)
    assert compared(slow, fast, network("supcon", "bf16", 0.6)) == [("bf160000", "bf160000"), ("fp320000", "bf160000")]
    both = network("supcon", "bf16", 0.6), network("supcon", "fp32", 0.7)
    assert compared(slow, fast, *both) == [("bf160000", "bf160000"), ("fp320000", "fp320000")]
