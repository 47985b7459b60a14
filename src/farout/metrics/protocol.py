"""How a paper turns scores into a row of its table: who is positive, how many OOD images, how many draws."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from farout.errors import ConfigError, FaroutError
from farout.metrics.detection import FPR_RULES, POSITIVES, detection_metrics
from farout.metrics.vectors import VectorLike, finite_vector

_METRICS = ("fpr95", "auroc", "aupr")


@dataclass(frozen=True)
class Protocol:
    """One file of conf/protocol.

    Attributes:
        name: what tables call it.
        positive: "id" or "ood", the positives of FPR and AUPR.
        ratio: ID images per OOD image; None takes all OOD images there are.
        redraws: how many random subsets of the OOD set are averaged.
        recall, fpr_rule: as in `detection_metrics`.
        bins: of the expected calibration error on ID images.
        batch_size: the official loops read whole batches only and drop a partial last one (5,200 instead of
            5,206 images for SVHN); None drops nothing.
        seed: of the redraws; every OOD set has a stream of its own.
    """

    name: str
    positive: str = "id"
    ratio: int | None = None
    redraws: int = 1
    recall: float = 0.95
    fpr_rule: str = "nearest"
    bins: int = 15
    batch_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for field, allowed in (("positive", POSITIVES), ("fpr_rule", FPR_RULES)):
            if getattr(self, field) not in allowed:
                raise ConfigError(f"protocol.{field} must be one of {', '.join(allowed)}")
        for field in ("ratio", "redraws", "bins", "batch_size"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ConfigError(f"protocol.{field}={value}: it must be at least 1")
        if not 0 < self.recall <= 1:
            raise ConfigError(f"protocol.recall={self.recall}: it must be above 0 and at most 1")

    def ood_count(self, n_id: int, n_available: int) -> int:
        """OOD images in one draw beside `n_id` ID images; all there are where the set is too small."""
        if self.ratio is None:
            return n_available
        wanted = n_id // self.ratio
        if wanted == 0:
            raise FaroutError(f"protocol {self.name}: {n_id} ID images are too few for 1 OOD image in {self.ratio}")
        if self.batch_size is not None and wanted >= self.batch_size:
            wanted -= wanted % self.batch_size
        return min(wanted, n_available)


def apply(protocol: Protocol, id_scores: VectorLike, ood_scores: VectorLike, ood: str = "OOD") -> dict[str, Any]:
    """The numbers of one table row: means over the redraws and their population standard deviations (`_sd`).

    A draw takes images without replacement. The draws depend on `protocol.seed` and the set's name `ood`, so
    that all scores see the same images. A set that one draw exhausts is measured once (`redraws` = 1).
    `n_ood` images of the `n_available` make up a draw; `base_rate` is the share of positives, on which AUPR
    depends.

    Raises FaroutError as `detection_metrics`, and where the ID set is smaller than the ratio.
    """
    id_vector = finite_vector(id_scores, "the ID scores")
    ood_vector = finite_vector(ood_scores, f"the scores of {ood}")
    n_ood = protocol.ood_count(id_vector.size, ood_vector.size)
    redraws = protocol.redraws if n_ood < ood_vector.size else 1
    stream = np.random.default_rng([protocol.seed, _stable_hash(ood)])
    draws = []
    for _ in range(redraws):
        chosen = ood_vector
        if n_ood < ood_vector.size:
            chosen = ood_vector[stream.choice(ood_vector.size, n_ood, replace=False)]
        draws.append(detection_metrics(id_vector, chosen, protocol.positive, protocol.recall, protocol.fpr_rule))
    row: dict[str, Any] = {key: float(np.mean([draw[key] for draw in draws])) for key in _METRICS}
    row |= {f"{key}_sd": float(np.std([draw[key] for draw in draws])) for key in _METRICS}
    n_positive = id_vector.size if protocol.positive == "id" else n_ood
    return row | {
        "n_id": id_vector.size,
        "n_ood": n_ood,
        "n_available": ood_vector.size,
        "base_rate": n_positive / (id_vector.size + n_ood),
        "redraws": redraws,
        "positive": protocol.positive,
    }


def mean_over_sets(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The unweighted mean over the rows of one score; rows with the same `vote` count as one, their average.

    Every row needs the keys of `apply` plus `ood`, and `vote` where it differs from `ood`. AUPR is None where
    the rows' base rates differ, because an average over different base rates means nothing. `over` names the
    sets.

    Raises FaroutError for no rows at all or rows of different `positive`.
    """
    if not rows:
        raise FaroutError("there is no OOD set to average over")
    if len({row["positive"] for row in rows}) > 1:
        raise FaroutError("rows with different positives cannot be averaged: evaluate them under one protocol")
    ballots: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        ballots.setdefault(row.get("vote") or row["ood"], []).append(row)
    same_rate = len({round(row["base_rate"], 9) for row in rows}) == 1
    mean: dict[str, Any] = {}
    for key in _METRICS:
        votes = [np.mean([row[key] for row in ballot]) for ballot in ballots.values()]
        mean[key] = float(np.mean(votes)) if same_rate or key != "aupr" else None
    return mean | {"over": [row["ood"] for row in rows], "votes": len(ballots)}


def _stable_hash(name: str) -> int:
    """Python's own hash() changes from process to process."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
