"""Synthetic records of runs: figures are simple formulas, so that tests can check tables by hand."""

from typing import Any

PROTOCOL = {
    "name": "energy",
    "positive": "id",
    "ratio": 5,
    "redraws": 10,
    "recall": 0.95,
    "fpr_rule": "nearest",
    "bins": 15,
}
PLAIN = {**PROTOCOL, "name": "plain", "ratio": None, "redraws": 1}


def row(score: str, ood: str, fpr95: float, **more: Any) -> dict[str, Any]:
    """A result row: AUROC is 1 - fpr95 / 4, AUPR 1 - fpr95 / 20."""
    return {
        "score": score,
        "ood": ood,
        "title": ood.upper(),
        "stand_in_for": None,
        "vote": ood,
        "fpr95": fpr95,
        "auroc": 1 - fpr95 / 4,
        "aupr": 1 - fpr95 / 20,
        "n_id": 10000,
        "n_ood": 2000,
        "n_available": 5000,
        "base_rate": 5 / 6,
        "redraws": 10,
        "positive": "id",
        **more,
    }


def houses(score: str, kind: str, fpr95: float) -> dict[str, Any]:
    """Two sets of the same photos: one vote."""
    title, official = f"Houses, {kind}", "LSUN-R" if kind == "resized" else "LSUN-C"
    return row(score, f"houses_{kind}", fpr95, title=title, stand_in_for=official, vote="houses")


def record(method: str, seed: int, rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A record with one evaluation by the energy protocol; `more` updates identity, evaluation or trained."""
    tuned = method in ("oe", "energy")
    return {
        "run": f"{method}-s{seed}",
        "identity": {
            "method": {"name": method, **({"m_in": -23, "m_out": -5} if method == "energy" else {})},
            "backbone": {"name": "resnet20"},
            "id_data": "cifar10",
            "outliers": "cifar100" if tuned else None,
            "scale": "small",
            "precision": "fp32",
            "seed": seed,
            "parent": f"ce-{seed}" if tuned else None,
            **more.get("identity", {}),
        },
        "trained": {
            "device": "cpu",
            "date": "2026-11-22T10:00:00",
            "seconds": 60.0,
            "commit": "abcdef0123456",
        },
        "evaluations": [
            {
                "protocol": PROTOCOL,
                "date": "2026-11-22T11:00:00",
                "commit": "abcdef0123456",
                "device": "cpu",
                "ood_data": "stand_in",
                "id": {
                    "dataset": "cifar10",
                    "split": "test",
                    "n": 10000,
                    "accuracy": 0.92,
                    "ece": 0.04,
                    "info": {},
                },
                "rows": rows,
                "means": [],
                "missing": [],
                "controls": [],
                "duplicates": {},
                **more.get("evaluation", {}),
            }
        ],
    }


def full_table() -> list[dict[str, Any]]:
    """CE with two seeds and both scores, energy with one, OE not run; iSUN is missing."""
    missing = {"missing": [{"ood": "isun", "reason": "not in the store"}]}
    controls = [
        {"control": "resampled", "score": "msp", "auroc": 0.52, "warning": False},
        {"control": "jpeg", "score": "msp", "auroc": 0.66, "warning": True},
    ]
    records = []
    for seed, svhn in ((1, 0.50), (2, 0.46)):
        rows = [row("msp", "svhn", svhn), houses("msp", "resized", 0.30), houses("msp", "cropped", 0.10)]
        rows += [
            row("energy", "svhn", svhn - 0.1),
            houses("energy", "resized", 0.2),
            houses("energy", "cropped", 0.2),
        ]
        records.append(record("ce", seed, rows, evaluation={**missing, "controls": controls}))
    rows = [row("energy", "svhn", 0.0104), houses("energy", "resized", 0.2), houses("energy", "cropped", 0.2)]
    return [*records, record("energy", 1, rows, evaluation=missing)]
