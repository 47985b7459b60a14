"""Detection metrics against the official values, and against scikit-learn on arbitrary scores with ties."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from farout.errors import ConfigError, FaroutError
from farout.metrics import both_conventions, detection_metrics
from farout.scores import Outputs, Score
from farout.scores.energy import Energy
from farout.scores.msp import MSP
from farout.scores.uniform_cross_entropy import UniformCrossEntropy

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS = json.loads((FOLDER / "vectors_energy_oe.json").read_text())
CIDER_AND_JEM = json.loads((FOLDER / "vectors_jem_cider.json").read_text())
CASES = {case["name"]: case for case in VECTORS["metrics"]}


def positives_and_negatives(name: str) -> tuple[np.ndarray, np.ndarray]:
    if "pos" in CASES[name]["input"]:
        return np.array(CASES[name]["input"]["pos"]), np.array(CASES[name]["input"]["neg"])
    rs = np.random.RandomState(1 if name == "gauss_rounded_ties" else 0)
    pos, neg = rs.normal(1, 1, 200), rs.normal(0, 1, 1000)
    if name == "gauss_rounded_ties":
        return np.round(pos, 1), np.round(neg, 1)
    return (-neg, -pos) if name == "gauss_energy_convention" else (pos, neg)


@pytest.mark.parametrize("name", CASES)
def test_official_values_in_both_conventions(name: str) -> None:
    pos, neg = positives_and_negatives(name)
    for key, value in CASES[name]["expect"].items():
        recall = int(key[3:]) / 100 if key.startswith("fpr") else 0.95
        measured = "fpr95" if key.startswith("fpr") else key
        # The official scores grow with OOD-ness: with OOD positive, ours are theirs negated.
        as_ood = detection_metrics(-neg, -pos, positive="ood", recall=recall)
        as_id = detection_metrics(pos, neg, positive="id", recall=recall)
        assert as_ood[measured] == pytest.approx(value, rel=1e-9), key
        assert as_id == as_ood


@pytest.mark.parametrize("name", VECTORS["metrics_from_logits_float32"]["expect"])
def test_official_values_from_float32_logits(name: str) -> None:
    rs = np.random.RandomState(2)
    z_in = (rs.normal(0, 1, (1000, 10)) * 3).astype(np.float32)
    z_in[np.arange(1000), rs.randint(0, 10, 1000)] += 12
    z_out = (rs.normal(0, 1, (200, 10)) * 3).astype(np.float32)
    scores: dict[str, Score] = {
        "msp": MSP(),
        "energy_T1": Energy(),
        "energy_T10": Energy(10.0),
        "xent_uniform": UniformCrossEntropy(),
    }
    id_scores, ood_scores = (scores[name](Outputs(torch.from_numpy(z), torch.from_numpy(z))) for z in (z_in, z_out))
    expect = VECTORS["metrics_from_logits_float32"]["expect"][name]
    assert -id_scores.mean().item() == pytest.approx(expect["mean_in"], rel=1e-5)
    for positive, convention in (("ood", "oe_convention"), ("id", "energy_convention")):
        got = detection_metrics(id_scores, ood_scores, positive=positive)
        assert got["fpr95"] == pytest.approx(expect[convention]["fpr95"], abs=0.005)
        assert got["auroc"] == pytest.approx(expect[convention]["auroc"], abs=1e-4)
        assert got["aupr"] == pytest.approx(expect[convention]["aupr"], abs=1e-4)


def cider_case(index: int) -> tuple[np.ndarray, np.ndarray]:
    if index == 1:
        rs = np.random.RandomState(0)
        return rs.normal(1, 1, 1000), rs.normal(0, 1, 800)
    case = CIDER_AND_JEM["cider"]["metrics"][index]
    return np.array(case["pos"]), np.array(case["neg"])


@pytest.mark.parametrize("index", [0, 1])
def test_official_values_of_cider(index: int) -> None:
    got = detection_metrics(*cider_case(index), positive="id")
    for key in ("auroc", "aupr", "fpr95"):
        assert got[key] == pytest.approx(CIDER_AND_JEM["cider"]["metrics"][index][key], rel=1e-9)


@pytest.mark.parametrize(
    ("positive", "key"), [("id", "measures_id_positive(default)"), ("ood", "measures_ood_positive(--out_as_pos)")]
)
def test_official_values_of_cider_neighbours_in_both_conventions(positive: str, key: str) -> None:
    case = CIDER_AND_JEM["cider"]["knn"]
    scores = (-np.array(case[f"{part}_kth_squared_distance"]) for part in ("id", "ood"))
    assert detection_metrics(*scores, positive=positive) == pytest.approx(case[key], rel=1e-9)


@pytest.mark.parametrize("name", ["px", "py", "pxgrad"])
def test_official_auroc_of_jem(name: str) -> None:
    case = CIDER_AND_JEM["jem"]["ood_auroc"]
    k = torch.arange(1, 49, dtype=torch.float64)
    scores = [jem_score(name, x.reshape(12, 4)) for x in (torch.cos(0.9 * k), 1.5 * torch.sin(0.31 * k))]
    assert scores[0][:3].tolist() == pytest.approx(case[name]["real_first3"], rel=1e-9)
    assert detection_metrics(*scores, positive="id")["auroc"] == pytest.approx(case[name]["auroc"], rel=1e-9)


def jem_score(name: str, x: torch.Tensor) -> torch.Tensor:
    net = CIDER_AND_JEM["jem"]["tiny_net"]
    w1, b1, w2, b2 = (
        torch.tensor(net[key], dtype=torch.float64)
        for key in ("hidden_weight", "hidden_bias", "class_weight", "class_bias")
    )
    x.requires_grad_()
    logits = torch.nn.functional.leaky_relu(x @ w1.T + b1, 0.2) @ w2.T + b2
    if name == "py":
        return logits.softmax(1).amax(1)
    log_px = logits.logsumexp(1)
    return log_px if name == "px" else -torch.autograd.grad(log_px.sum(), x)[0].norm(dim=1)


def brute_force_nearest(pos: np.ndarray, neg: np.ndarray, recall: float) -> float:
    """The rule read literally: walk down the thresholds, later ones win ties, stop at full recall."""
    best, fpr = np.inf, np.nan
    for t in sorted({*pos.tolist(), *neg.tolist()}, reverse=True):
        reached = np.count_nonzero(pos >= t) / pos.size
        if abs(reached - recall) <= best:
            best, fpr = abs(reached - recall), np.count_nonzero(neg >= t) / neg.size
        if reached == 1:
            break
    return float(fpr)


def one_pooled_sort(pos: np.ndarray, neg: np.ndarray, recall: float, rule: str) -> dict[str, float]:
    """The same numbers from one sort of the pooled scores, every distinct score of either class a step."""
    pooled = np.concatenate([pos, neg])
    order = np.argsort(pooled)[::-1]
    last = np.append(np.flatnonzero(np.diff(pooled[order])), pooled.size - 1)
    tp = np.cumsum(order < pos.size)[last]
    fp = last + 1 - tp
    if rule == "first":
        chosen = int(np.argmax(tp / pos.size >= recall))
    else:
        full = int(np.argmax(tp == pos.size))
        chosen = full - int(np.argmin(np.abs(tp[: full + 1] / pos.size - recall)[::-1]))
    twice = int(np.sum(np.diff(fp, prepend=0) * (tp + np.append(0, tp[:-1]))))
    precision = float(np.sum(np.diff(tp, prepend=0) * (tp / (tp + fp))) / pos.size)
    return {"fpr95": fp[chosen] / neg.size, "auroc": twice / (2 * pos.size * neg.size), "aupr": precision}


few_values = st.integers(-4, 4).map(float)
any_value = st.floats(-1e300, 1e300)
near_ties = st.sampled_from([1.0, np.nextafter(1.0, 2), np.nextafter(1.0, 0), 0.0, -0.0, 5e-324, -5e-324])
vectors = st.one_of(*(st.lists(values, min_size=1, max_size=40) for values in (few_values, any_value, near_ties)))
recalls = st.sampled_from([0.05, 0.5, 0.8, 0.95, 1.0])


@given(vectors, vectors, recalls)
def test_agrees_with_sklearn_and_the_literal_rule(
    id_scores: list[float], ood_scores: list[float], recall: float
) -> None:
    truth = np.r_[np.ones(len(id_scores)), np.zeros(len(ood_scores))]
    pooled = np.r_[id_scores, ood_scores]
    for positive, y, s in (("id", truth, pooled), ("ood", 1 - truth, -pooled)):
        nearest = detection_metrics(id_scores, ood_scores, positive, recall)
        first = detection_metrics(id_scores, ood_scores, positive, recall, fpr_rule="first", aupr="trapezoid")
        fpr, tpr, _ = roc_curve(y, s, drop_intermediate=False)
        precision, reached, _ = precision_recall_curve(y, s)
        assert nearest["auroc"] == pytest.approx(roc_auc_score(y, s), abs=1e-12)
        assert nearest["aupr"] == pytest.approx(average_precision_score(y, s), abs=1e-12)
        assert nearest["fpr95"] == pytest.approx(brute_force_nearest(s[y == 1], s[y == 0], recall), abs=1e-12)
        assert first["fpr95"] == pytest.approx(fpr[np.argmax(tpr >= recall)], abs=1e-12)
        assert first["aupr"] == pytest.approx(auc(reached, precision), abs=1e-12)


@given(vectors, vectors, recalls, st.sampled_from(["nearest", "first"]))
def test_equals_one_pooled_sort(id_scores: list[float], ood_scores: list[float], recall: float, rule: str) -> None:
    a, b = np.array(id_scores), np.array(ood_scores)
    for positive, (pos, neg) in {"id": (a, b), "ood": (-b, -a)}.items():
        got, expect = detection_metrics(a, b, positive, recall, rule), one_pooled_sort(pos, neg, recall, rule)
        assert (got["fpr95"], got["auroc"]) == (expect["fpr95"], expect["auroc"])
        assert got["aupr"] == pytest.approx(expect["aupr"], rel=1e-14, abs=0)


@pytest.mark.parametrize("decimals", [None, 3, 1, 0])
@pytest.mark.parametrize(("n_id", "n_ood"), [(10_000, 2_000), (3_000, 26_032), (10, 50_000), (50_000, 10)])
def test_equals_one_pooled_sort_at_the_papers_sizes(n_id: int, n_ood: int, decimals: int | None) -> None:
    rng = np.random.default_rng(n_id)
    a, b = rng.normal(1, 1, n_id), rng.normal(0, 1, n_ood)
    if decimals is not None:
        a, b = np.round(a, decimals), np.round(b, decimals)
    got, expect = detection_metrics(a, b), one_pooled_sort(a, b, 0.95, "nearest")
    assert (got["fpr95"], got["auroc"]) == (expect["fpr95"], expect["auroc"])
    assert got["aupr"] == pytest.approx(expect["aupr"], rel=1e-14, abs=0)


@given(vectors, vectors, recalls, st.sampled_from(["average_precision", "trapezoid"]))
def test_both_conventions_are_the_two(
    id_scores: list[float], ood_scores: list[float], recall: float, aupr: str
) -> None:
    both = both_conventions(id_scores, ood_scores, recall, aupr=aupr)
    for suffix, positive in (("in", "id"), ("out", "ood")):
        one = detection_metrics(id_scores, ood_scores, positive, recall, aupr=aupr)
        assert {key: both[f"{key}_{suffix}"] for key in ("fpr95", "aupr")} | {"auroc": both["auroc"]} == one


@given(vectors, vectors)
def test_exact_symmetries(id_scores: list[float], ood_scores: list[float]) -> None:
    got = detection_metrics(id_scores, ood_scores, "id")
    mirrored = detection_metrics([-s for s in ood_scores], [-s for s in id_scores], "ood")
    assert mirrored == got
    assert detection_metrics(id_scores, id_scores)["auroc"] == 0.5
    shuffled = detection_metrics(id_scores[::-1], ood_scores[::-1], "id")
    assert shuffled == got


def test_tensors_arrays_and_lists_are_the_same() -> None:
    a, b = [0.5, 0.75, 1.0, 0.25], [0.5, 0.125]
    expect = detection_metrics(a, b)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        tensors = (torch.tensor(a, dtype=dtype, requires_grad=True), torch.tensor(b, dtype=dtype))
        assert detection_metrics(*tensors) == expect
    assert detection_metrics(np.array(a, np.float32), np.array(b)) == expect


def test_short_floats_keep_their_ties() -> None:
    # 0.1 as float32 is not 0.1: with the same float64 number on the other side there is no tie, with float32 there is.
    short = np.array([0.1], np.float32)
    assert detection_metrics(short, short)["auroc"] == 0.5
    assert detection_metrics(short, [0.1])["auroc"] == 1.0
    assert detection_metrics([0.1], short)["auroc"] == 0.0
    rng = np.random.default_rng(1)
    a, b = (rng.normal(mean, 1, 5000).astype(np.float32) for mean in (1, 0))
    assert detection_metrics(a, b) == detection_metrics(a.astype(np.float64), b.astype(np.float64))
    assert detection_metrics([3, 2, 2], [2, 1])["auroc"] == 5 / 6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, -0.0, 1e30, -7.5])
def test_constant_scores_are_a_coin_toss(value: float, dtype: type) -> None:
    id_scores, ood_scores = np.full(30, value, dtype), np.full(10, value, dtype)
    for positive, rate in (("id", 0.75), ("ood", 0.25)):
        got = detection_metrics(id_scores, ood_scores, positive)
        assert got == {"fpr95": 1.0, "auroc": 0.5, "aupr": rate}
        line = detection_metrics(id_scores, ood_scores, positive, aupr="trapezoid")
        assert line["aupr"] == (1 + rate) / 2  # from precision 1 at recall 0, as scikit-learn's curve


def test_large_finite_scores_are_no_infinity() -> None:
    top = np.finfo(np.float32).max
    assert detection_metrics(np.full(50, top, np.float32), np.full(50, -top, np.float32))["auroc"] == 1.0
    assert detection_metrics([np.finfo(np.float64).max] * 3, [0.0])["auroc"] == 1.0


def test_arguments_are_left_alone() -> None:
    a, b = np.array([3.0, 1.0, 2.0]), np.array([2.0, 0.0])
    both_conventions(a, b)
    assert (a.tolist(), b.tolist()) == ([3.0, 1.0, 2.0], [2.0, 0.0])


def benchmark(*options: str) -> str:
    command = [sys.executable, str(Path(__file__).parents[2] / "scripts" / "benchmark" / "metrics.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_ten_million_scores_of_each_class_fit_in_two_gibibytes() -> None:
    """In a process of its own, inputs included: the peak above what it held before it made the scores."""
    used = int(benchmark("--own-memory", "10000000"))
    assert used > 2 * 10_000_000 * 8, "less than the inputs alone: nothing was measured"
    assert used <= 2 * 2**30


def test_takes_no_longer_than_the_peer_library() -> None:
    """The benchmark's own ratios at a tenth of its size; both lie far below 1."""
    pytest.importorskip("pytorch_ood")
    shown = benchmark("--images", "100000", "--memory-images", "1000", "--rounds", "3")
    ratios = re.findall(r"(detection_metrics|both_conventions) [\d.]+ ms \(([\d.]+)\)", shown)
    assert len(ratios) == 4
    assert all(0 < float(ratio) <= 1 for _, ratio in ratios), shown
    assert re.search(r"1,000 ID \+ 1,000 OOD float64 scores: [\d.]+ GiB, [\d.]+ of 2 GiB", shown)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "ID scores are empty"),
        ([1.0, float("nan")], "ID scores hold 1 NaN or infinite values among 2"),
        ([float("-inf")], "ID scores hold 1 NaN or infinite"),
        ([float("inf"), float("-inf"), 0.0], "ID scores hold 2 NaN or infinite values among 3"),
        (torch.tensor([float("nan")] * 2, dtype=torch.bfloat16), "ID scores hold 2 NaN"),
        (np.zeros((2, 2)), "1-D"),
    ],
)
def test_unusable_scores_are_named(bad: Any, message: str) -> None:
    with pytest.raises(FaroutError, match=message):
        detection_metrics(bad, [1.0])
    with pytest.raises(FaroutError, match="scores of svhn"):
        detection_metrics([1.0], bad, names=("ID scores", "scores of svhn"))


@pytest.mark.parametrize(
    "knob",
    [{"positive": "in"}, {"fpr_rule": "closest"}, {"recall": 0.0}, {"recall": 95}, {"aupr": "auc"}],
)
def test_unknown_conventions_are_refused(knob: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(knob))):
        detection_metrics([1.0], [0.0], **knob)
