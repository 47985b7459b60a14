"""One evaluation made up: scores of ten detectors on eight OOD sets, the entries of results.json, images."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from farout.metrics import class_directions, detection_metrics
from farout.metrics.protocol import Protocol, apply, mean_over_sets
from farout.report.evidence import Evidence, Pictures
from farout.runs.geometry import Space
from farout.runs.projection import PlaneProjection
from farout.scores import Outputs

SCORES = ("msp", "max_logit", "energy", "uniform_ce", "odin", "mahalanobis", "knn", "react", "ash", "vim")
TITLES = ("SVHN", "Textures", "Places365", "LSUN (cropped)", "LSUN (resized)", "iSUN", "CIFAR-100", "Gaussian noise")
CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ENERGY = Protocol("energy", "id", ratio=5, redraws=3)
OE = Protocol("oe", "ood", ratio=5, redraws=3)


def scores(n: int, names: tuple[str, ...] = SCORES, titles: tuple[str, ...] = TITLES) -> dict[str, dict[str, Any]]:
    """set -> score -> (n,): with spikes (msp), heavy tails (mahalanobis) and bells (the others)."""
    rng = np.random.default_rng(0)
    found = {"id": {name: _draw(rng, name, 2.0, n) for name in names}}
    for i, title in enumerate(titles):
        found[key(title)] = {name: _draw(rng, name, 1.6 - 0.4 * i - 0.05 * j, n) for j, name in enumerate(names)}
    return found


def key(title: str) -> str:
    """A set's name from its title."""
    return title.lower().replace(" ", "_")


def _draw(rng: np.random.Generator, name: str, shift: float, n: int) -> Any:
    z = rng.normal(shift, 1, n)
    return {"msp": 1 - np.exp(-np.exp(z)), "mahalanobis": -np.exp(6 - z)}.get(name, 8 + 3 * z)


def entry(values: dict[str, dict[str, Any]], protocol: Protocol, **more: Any) -> dict[str, Any]:
    """One of results.json's evaluations, its figures computed from the scores by the protocol."""
    titles = [title for title in TITLES if key(title) in values]
    names = list(values["id"])
    rows = [
        {
            "score": name,
            "ood": key(title),
            "title": title,
            "stand_in_for": "lsun_r" if title == "iSUN" else None,
            "vote": key(title),
            **apply(protocol, values["id"][name], values[key(title)][name], key(title)),
        }
        for name in names
        for title in titles
    ]
    halves = [(values["id"][name][::2], values["id"][name][1::2]) for name in names]
    return {
        "date": "2026-11-22",
        "commit": "abcdef012345",
        "device": "CPU (made up)",
        "torch": "2.15",
        "ood_data": "energy",
        "scale": "small",
        "max_eval_images": None,
        "missing": [{"ood": "celeba", "reason": "no pack and no archive"}],
        "duplicates": {key(title): 3 if title == "CIFAR-100" else 0 for title in titles},
        "controls": [
            {"control": c, "score": name, "auroc": detection_metrics(*half)["auroc"] + shift, "warning": shift > 0}
            for c, shift in (("resampled", 0.0), ("jpeg", 0.2))
            for name, half in zip(names, halves, strict=True)
        ],
        "protocol": asdict(protocol),
        "id": {
            "dataset": "cifar10",
            "split": "test",
            "n": len(values["id"][names[0]]),
            "accuracy": 0.9339,
            "ece": 0.0312,
            "ece_bins": 15,
            "info": {"title": "CIFAR-10", "variant": "PNG strips", "sha256": "ab" * 32},
        },
        "rows": rows,
        "means": [{"score": name, **mean_over_sets([r for r in rows if r["score"] == name])} for name in names],
        **more,
    }


def evidence(values: dict[str, dict[str, Any]], **more: Any) -> Evidence:
    """The scores with confidences, images and predictions."""
    rng = np.random.default_rng(1)
    n = len(next(iter(values["id"].values())))
    confidence = rng.beta(9, 1, n)
    correct = rng.random(n) < confidence
    labels = rng.integers(0, 10, n)
    predictions = {name: rng.integers(0, 10, n) for name in values}
    predictions["id"] = np.where(correct, labels, (labels + 1) % 10)
    pictures = {
        name: Pictures(
            rng.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8), predictions[name], labels if name == "id" else None
        )
        for name in values
    }
    return Evidence(values, confidence, correct, pictures, CLASSES, **more)


def features(titles: tuple[str, ...] = TITLES, n: int = 90, dim: int = 12) -> dict[str, Outputs]:
    """set -> features (n, dim): ten clusters for ID, and between them for OOD; one OOD feature is zero."""
    rng = torch.Generator().manual_seed(3)
    centres = torch.randn(10, dim, generator=rng)
    labels = torch.arange(n) % 10
    found = {"id": centres[labels] + 0.3 * torch.randn(n, dim, generator=rng)}
    for i, title in enumerate(titles):
        found[key(title)] = centres[(labels + i) % 10] + (0.5 + 0.2 * i) * torch.randn(n, dim, generator=rng)
    found[key(titles[0])][0] = 0
    logits = torch.zeros(n, 10)
    return {name: Outputs(logits, points, labels if name == "id" else None) for name, points in found.items()}


def measured(sets: dict[str, Outputs]) -> Space:
    """A space as an evaluation leaves it, its directions the class means of the ID features; nothing is projected."""
    known = sets["id"]
    assert known.labels is not None
    directions = class_directions(known.features, known.labels, 10)
    made = Space(
        lambda points: points, directions, torch.arange(10), "class means", plane_projection=PlaneProjection(directions)
    )
    for name, outputs in sets.items():
        made.measure(name, name, outputs)
    return made


def head(**more: Any) -> dict[str, Any]:
    """The head of results.json."""
    return {
        "run": "energy-wrn_40_2-cifar10-s1",
        "identity": {
            "method": {"name": "energy", "m_in": -23.0, "m_out": -5.0},
            "backbone": {"name": "wrn_40_2", "depth": 40},
            "outliers": {"name": "random_images_300k"},
            "schedule": {"epochs": 10, "lr": 0.001},
            "transform": {"name": "cifar"},
            "parent": "ce-wrn_40_2-cifar10-s1",
            "scale": "small",
            "seed": 7,
        },
        "trained": {
            "date": "2026-11-20",
            "device": "made-up accelerator",
            "commit": "0123456789ab",
            "seconds": 3700,
            "steps": 10,
        },
        **more,
    }
