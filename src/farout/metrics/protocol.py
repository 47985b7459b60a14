"""How a paper turns scores into a row of its table: who is positive, how many OOD images, how many draws."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farout.errors import ConfigError, FaroutError
from farout.metrics.bootstrap import Convention, Resampling, bootstrap_intervals
from farout.metrics.detection import both_conventions, check_convention, detection_metrics
from farout.metrics.vectors import ScoreVector, VectorLike, finite_scores

CONTROL_TOLERANCE = 0.05  # AUROC of a control farther than this from 0.5 is a warning
_METRICS = ("fpr95", "auroc", "aupr")
_BOTH = ("fpr95_in", "aupr_in", "fpr95_out", "aupr_out")
LEVEL = 0.95  # of the bootstrap intervals
_MOST = {"bins": 10_000, "redraws": 10_000, "bootstrap": 100_000}  # more says nothing further, and never ends


@dataclass(frozen=True)
class Protocol:
    """One file of conf/protocol.

    Attributes:
        name: what tables call it.
        positive: "id" or "ood", the positives of FPR and AUPR.
        ratio: ID images per OOD image; None takes all OOD images there are.
        redraws: how many random subsets of the OOD set are averaged.
        recall, fpr_rule, aupr: as in `detection_metrics`.
        bins: of the expected calibration error on ID images.
        batch_size: the official loops read whole batches only and drop a partial last one (5,200 instead of
            5,206 images for SVHN); None drops nothing.
        max_ood: OOD sets with more images than this are cut to it, at random; None cuts nothing.
        both: whether rows also carry FPR and AUPR with ID positive (`_in`) and with OOD positive (`_out`).
        bootstrap: resamples behind the 95 % intervals of a row; 0 makes none.
        seed: of the redraws and resamples; every OOD set has a stream of its own.
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
    aupr: str = "average_precision"
    max_ood: int | None = None
    both: bool = False
    bootstrap: int = 0

    def __post_init__(self) -> None:
        check_convention(self.positive, self.recall, self.fpr_rule, self.aupr, prefix="protocol.")
        for field in ("ratio", "redraws", "bins", "batch_size", "max_ood"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ConfigError(f"protocol.{field}={value}: it must be at least 1")
        for field, most in _MOST.items():
            if getattr(self, field) > most:
                raise ConfigError(f"protocol.{field}={getattr(self, field)}: give at most {most:,}")
        if self.seed < 0:
            raise ConfigError(f"protocol.seed={self.seed}: it must not be negative")
        if self.bootstrap < 0 or self.bootstrap == 1:
            raise ConfigError(f"protocol.bootstrap={self.bootstrap}: give 0 for no intervals, or at least 2 resamples")

    def check_sizes(self, n_id: int, n_available: Mapping[str, int]) -> None:
        """Raise FaroutError where `apply` would, for so many ID images and OOD images by set."""
        for available in n_available.values():
            self.ood_count(n_id, available)

    def ood_count(self, n_id: int, n_available: int) -> int:
        """OOD images in one draw beside `n_id` ID images; all there are (or `max_ood`) where the set is too small.

        Whole batches are counted in the number that the loop is told to read: n_id / ratio, or without a ratio
        the set itself. A number below one batch is taken as it is.
        """
        at_most = n_available if self.max_ood is None else min(n_available, self.max_ood)
        if self.ratio is None:
            return self._whole_batches(at_most)
        wanted = n_id // self.ratio
        if wanted == 0:
            raise FaroutError(
                f"protocol {self.name}: {n_id} ID images are too few for 1 OOD image in {self.ratio}: "
                "lower protocol.ratio, or raise max_eval_images"
            )
        return min(self._whole_batches(wanted), at_most)

    def _whole_batches(self, images: int) -> int:
        if self.batch_size is None or images < self.batch_size:
            return images
        return images - images % self.batch_size


def apply(
    protocol: Protocol,
    id_scores: VectorLike,
    ood_scores: VectorLike,
    ood: str = "OOD",
    score: str = "",
    id_set: str = "ID",
) -> dict[str, Any]:
    """The numbers of one table row: means over the redraws and their population standard deviations (`_sd`).

    A draw takes images without replacement. The draws depend on `protocol.seed` and the set's name `ood`, so
    that all scores see the same images. A set that one draw exhausts is measured once (`redraws` = 1).
    `n_ood` images of the `n_available` make up a draw; `base_rate` is the share of positives, on which AUPR
    depends. `protocol.both` adds means in both conventions, `protocol.bootstrap` adds `intervals`. `score` and
    `id_set` are the names of the score and of the ID set in error messages.

    Raises FaroutError as `detection_metrics`, and where the ID set is smaller than the ratio.
    """
    kind = f"{score} scores" if score else "scores"
    id_vector = finite_scores(id_scores, f"the {kind} of {id_set}")
    ood_vector = finite_scores(ood_scores, f"the {kind} of {ood}")
    n_ood = protocol.ood_count(id_vector.size, ood_vector.size)
    rows = ood_draws(protocol, id_vector.size, ood_vector.size, ood)
    draws = [_measured(protocol, id_vector, ood_vector[chosen]) for chosen in rows]
    row: dict[str, Any] = {key: float(np.mean([draw[key] for draw in draws])) for key in draws[0]}
    row |= {f"{key}_sd": float(np.std([draw[key] for draw in draws])) for key in _METRICS}
    if protocol.bootstrap:
        row["intervals"] = _intervals(protocol, id_vector, ood_vector, n_ood, ood)
    n_positive = id_vector.size if protocol.positive == "id" else n_ood
    return row | {
        "n_id": id_vector.size,
        "n_ood": n_ood,
        "n_available": ood_vector.size,
        "base_rate": n_positive / (id_vector.size + n_ood),
        "redraws": len(draws),
        "positive": protocol.positive,
    }


def table_rows(
    protocol: Protocol,
    values: Mapping[str, Mapping[str, VectorLike]],
    facts: Mapping[str, Mapping[str, Any]],
    id_set: str = "ID",
) -> list[dict[str, Any]]:
    """`apply` for every score and OOD set, scores first.

    Args:
        values: set -> score -> (N,); "id" is the ID set.
        facts: OOD set -> what a row says beside its numbers.
        id_set: the ID set's name in error messages.
    """
    return [
        {"score": score, **facts[ood], **apply(protocol, id_scores, values[ood][score], ood, score, id_set)}
        for score, id_scores in values["id"].items()
        for ood in facts
    ]


def means_by_score(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`mean_over_sets` of each score's rows, in their order."""
    scores = dict.fromkeys(row["score"] for row in rows)
    return [{"score": score, **mean_over_sets([row for row in rows if row["score"] == score])} for score in scores]


def ood_draws(protocol: Protocol, n_id: int, n_available: int, ood: str) -> Iterator[NDArray[np.int64] | slice]:
    """The OOD images of each draw as rows of the set named `ood`: the same for every score and measure."""
    n_ood = protocol.ood_count(n_id, n_available)
    if n_ood == n_available:
        yield slice(None)
        return
    stream = _stream(protocol, ood)
    for _ in range(protocol.redraws):
        yield stream.choice(n_available, n_ood, replace=False)


def _measured(protocol: Protocol, id_scores: ScoreVector, ood_scores: ScoreVector) -> dict[str, float]:
    """One draw under the protocol's convention, and under both where it asks for them."""
    rules: dict[str, Any] = {"recall": protocol.recall, "fpr_rule": protocol.fpr_rule, "aupr": protocol.aupr}
    if not protocol.both:
        return detection_metrics(id_scores, ood_scores, protocol.positive, **rules)
    both = both_conventions(id_scores, ood_scores, **rules)
    own = "in" if protocol.positive == "id" else "out"
    return {"fpr95": both[f"fpr95_{own}"], "auroc": both["auroc"], "aupr": both[f"aupr_{own}"]} | {
        key: both[key] for key in _BOTH
    }


def _intervals(
    protocol: Protocol, id_scores: ScoreVector, ood_scores: ScoreVector, n_ood: int, ood: str
) -> dict[str, Any]:
    """Bootstrap intervals of a test with as many images as one draw has, its OOD images from the whole set.

    Where a row is the mean over redraws, which varies less than one draw, they are on the wide side.
    """
    again = resampling_of(protocol, [protocol.seed, *stream_of(ood)], n_ood)
    found = bootstrap_intervals(id_scores, ood_scores, convention_of(protocol), again)
    intervals: dict[str, Any] = {key: list(bounds) for key, bounds in found.items()}
    return intervals | {"level": LEVEL, "resamples": protocol.bootstrap}


def convention_of(protocol: Protocol) -> Convention:
    """How its metrics are read off."""
    return Convention(protocol.positive, protocol.recall, protocol.fpr_rule, protocol.aupr)


def resampling_of(protocol: Protocol, seed: Sequence[int], n_ood: int) -> Resampling:
    """Its bootstrap, from this seed, with so many OOD images in a resample."""
    return Resampling(protocol.bootstrap, LEVEL, seed, n_ood)


def mean_over_sets(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The unweighted mean over the rows of one score; rows with the same `vote` count as one, their average.

    Every row needs the keys of `apply` plus `ood`, and `vote` where it differs from `ood`. AUPR is None where
    the rows' base rates differ, because an average over different base rates means nothing. Rows in both
    conventions give a mean in both. `over` names the sets.

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
    for key in (*_METRICS, *(key for key in _BOTH if all(key in row for row in rows))):
        votes = [np.mean([row[key] for row in ballot]) for ballot in ballots.values()]
        mean[key] = float(np.mean(votes)) if same_rate or not key.startswith("aupr") else None
    return mean | {"over": [row["ood"] for row in rows], "votes": len(ballots)}


def _stream(protocol: Protocol, ood: str) -> np.random.Generator:
    """The random numbers of one OOD set's redraws."""
    return np.random.default_rng([protocol.seed, *stream_of(ood)])


def stream_of(ood: str) -> list[int]:
    """What tells the random numbers of one OOD set from others'."""
    # Python's own hash() changes from process to process.
    return [int.from_bytes(hashlib.sha256(ood.encode()).digest()[:8], "little")]
