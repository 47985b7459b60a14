"""Detection metrics against the official values, and against scikit-learn on arbitrary scores with ties."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from farout.errors import ConfigError, FaroutError
from farout.metrics import detection_metrics
from farout.scores import Outputs, Score
from farout.scores.energy import Energy
from farout.scores.msp import MSP
from farout.scores.uniform_cross_entropy import UniformCrossEntropy

FILE = Path(__file__).parents[1] / "vectors" / "vectors_energy_oe.json"
VECTORS = json.loads(FILE.read_text())
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


few_values = st.integers(-4, 4).map(float)
any_value = st.floats(-1e300, 1e300)
vectors = st.lists(few_values, min_size=1, max_size=40) | st.lists(any_value, min_size=1, max_size=40)


@given(vectors, vectors, st.sampled_from([0.05, 0.5, 0.8, 0.95, 1.0]))
def test_agrees_with_sklearn_and_the_literal_rule(
    id_scores: list[float], ood_scores: list[float], recall: float
) -> None:
    truth = np.r_[np.ones(len(id_scores)), np.zeros(len(ood_scores))]
    pooled = np.r_[id_scores, ood_scores]
    for positive, y, s in (("id", truth, pooled), ("ood", 1 - truth, -pooled)):
        nearest = detection_metrics(id_scores, ood_scores, positive, recall)
        first = detection_metrics(id_scores, ood_scores, positive, recall, fpr_rule="first")
        fpr, tpr, _ = roc_curve(y, s, drop_intermediate=False)
        assert nearest["auroc"] == pytest.approx(roc_auc_score(y, s), abs=1e-12)
        assert nearest["aupr"] == pytest.approx(average_precision_score(y, s), abs=1e-12)
        assert nearest["fpr95"] == pytest.approx(brute_force_nearest(s[y == 1], s[y == 0], recall), abs=1e-12)
        assert first["fpr95"] == pytest.approx(fpr[np.argmax(tpr >= recall)], abs=1e-12)


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


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "ID scores are empty"),
        ([1.0, float("nan")], "ID scores hold 1 NaN or infinite values among 2"),
        ([float("-inf")], "ID scores hold 1 NaN or infinite"),
        (np.zeros((2, 2)), "1-D"),
    ],
)
def test_unusable_scores_are_named(bad: Any, message: str) -> None:
    with pytest.raises(FaroutError, match=message):
        detection_metrics(bad, [1.0])
    with pytest.raises(FaroutError, match="scores of svhn"):
        detection_metrics([1.0], bad, names=("ID scores", "scores of svhn"))


@pytest.mark.parametrize("knob", [{"positive": "in"}, {"fpr_rule": "closest"}, {"recall": 0.0}, {"recall": 95}])
def test_unknown_conventions_are_refused(knob: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(knob))):
        detection_metrics([1.0], [0.0], **knob)
