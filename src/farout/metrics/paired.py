"""Differences of scores, or of networks, on the same images: what one has more than another, with its interval."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farout.errors import FaroutError
from farout.metrics.bootstrap import METRICS, Resampling, interval_of, middle_of, resampled_metrics, times_drawn
from farout.metrics.calibration import calibration_error, expected_calibration_error
from farout.metrics.pooled import BIN
from farout.metrics.protocol import LEVEL, Protocol, convention_of, mean_over_sets, resampling_of, stream_of
from farout.metrics.vectors import VectorLike

Side = tuple[str, ...]  # columns, whose metrics are averaged: one score of one network, or of its trainings
Rows = Mapping[tuple[str, str], Mapping[str, Any]]  # (column, OOD set) -> row of farout.metrics.protocol.apply
MEAN = "mean"  # the mean over the OOD sets, among their names


def paired_differences(
    protocol: Protocol,
    scores: Mapping[str, Mapping[str, VectorLike]],
    rows: Rows,
    pairs: Sequence[tuple[Side, Side]],
) -> list[list[dict[str, Any]]]:
    """For every pair, what its first side has more than its second on each OOD set, and in the mean over the sets.

    A resample (`protocol.bootstrap` of them) has the same images for all columns: ID images are drawn once for all
    sets, OOD images of every set on their own, as many as one draw of the protocol has. The mean is that of
    `mean_over_sets`, taken within each resample. The differences themselves are those of the rows, which are means over
    redraws, and vary less than one: intervals are on the wide side.

    Args:
        scores: set ("id" is the ID set) -> column -> (N,), with the same image at the same place of all columns.
        rows: of every column on every OOD set; they bring their votes.

    Returns for each pair a list of {"ood", "fpr95", "auroc", "aupr"}, the last of them for the mean, as fractions:
    [difference, low, high]; AUPR of the mean is None where base rates differ. Raises FaroutError where the columns of a
    set are not of the same images.
    """
    columns = list(scores["id"])
    sets = [name for name in scores if name != "id"]
    found = {name: _resampled(protocol, scores, name, columns) for name in sets}
    ballots: dict[str, list[str]] = {}
    for name in sets:
        ballots.setdefault(rows[columns[0], name].get("vote") or name, []).append(name)
    found[MEAN] = _mean([_mean([found[name] for name in ballot]) for ballot in ballots.values()])
    points = {(column, name): rows[column, name] for column in columns for name in sets}
    points |= {(column, MEAN): mean_over_sets([rows[column, name] for name in sets]) for column in columns}
    place = {column: i for i, column in enumerate(columns)}
    return [
        [_difference(pair, name, values, points, place) for name, values in found.items()]
        for pair in pairs
    ]  # fmt: skip


def paired_calibration(
    protocol: Protocol,
    predictions: Mapping[str, tuple[VectorLike, VectorLike]],
    facts: Mapping[str, Mapping[str, Any]],
    pairs: Sequence[tuple[Side, Side]],
) -> list[dict[str, Any]]:
    """What the first side of each pair has more in accuracy and ECE, on the ID images alone.

    `predictions` are (confidence, correct) of every column, (N,) each, `facts` its accuracy and ECE as recorded.
    Returns {"ood": "id", "accuracy", "ece"} for each pair, as fractions: [difference, low, high].
    """
    columns = list(predictions)
    sure, right = ([predictions[column][i] for column in columns] for i in (0, 1))
    again = resampling_of(protocol, [protocol.seed], 1)
    values = _resampled_calibration(sure, right, protocol.bins, again)
    found = []
    for pair in pairs:
        first, second = (values[:, [columns.index(column) for column in side]].mean(axis=1) for side in pair)
        bounds = middle_of(first - second, LEVEL)
        points = [[np.mean([facts[column][key] for column in side]) for side in pair] for key in ("accuracy", "ece")]
        both = {
            key: [float(a - b), *bound]
            for key, (a, b), bound in zip(("accuracy", "ece"), points, bounds, strict=True)
        }  # fmt: skip
        found.append({"ood": "id", **both})
    return found


def paired_pooled_calibration(
    protocol: Protocol,
    predictions: Mapping[str, tuple[VectorLike, VectorLike]],
    confidences: Mapping[str, Mapping[str, VectorLike]],
    errors: Mapping[tuple[str, str], float],
    pairs: Sequence[tuple[Side, Side]],
) -> list[list[dict[str, Any]]]:
    """What the first side of each pair has more in RMS calibration error over ID and OOD images together.

    Resamples are those of `paired_differences`; every OOD prediction is wrong, as in `pooled_calibration`. The mean is
    over sets, each as one, as Outlier Exposure (Hendrycks et al., ICLR 2019) takes it.

    Args:
        predictions: (confidence, correct) of every column on the ID images, (N_id,) each.
        confidences: OOD set -> column -> (N,); errors: (column, set) -> RMS error as recorded.

    Returns for each pair a list of {"ood", "rms"}, the last for the mean, as fractions: [difference, low, high]. Raises
    FaroutError where the columns are not of the same images.
    """
    columns = list(predictions)
    sure, right = ([np.asarray(predictions[c][i], dtype=np.float64) for c in columns] for i in (0, 1))
    found = {
        name: _resampled_rms(protocol, sure, right, [np.asarray(own[c], dtype=np.float64) for c in columns], name)
        for name, own in confidences.items()
    }
    found[MEAN] = _mean(list(found.values()))
    points = dict(errors) | {(c, MEAN): float(np.mean([errors[c, name] for name in confidences])) for c in columns}
    made = []
    for pair in pairs:
        of_pair = []
        for name, values in found.items():
            first, second = (values[:, [columns.index(c) for c in side]].mean(axis=1) for side in pair)
            ((low, high),) = middle_of((first - second)[:, None], LEVEL)
            difference = np.mean([points[c, name] for c in pair[0]]) - np.mean([points[c, name] for c in pair[1]])
            of_pair.append({"ood": name, "rms": [float(difference), low, high]})
        made.append(of_pair)
    return made


def pairs_within(scores: Iterable[str], references: Iterable[str]) -> list[tuple[Side, Side]]:
    """Every score of a network against each reference among them: no pair twice, none the other way round."""
    names = list(scores)
    taken: dict[frozenset[str], tuple[Side, Side]] = {}
    for reference in references:
        for score in names:
            if reference in names and score != reference:
                taken.setdefault(frozenset((score, reference)), ((score,), (reference,)))
    return list(taken.values())


def paired_facts(protocol: Protocol) -> dict[str, Any]:
    """What made the intervals, for a record."""
    return {"level": LEVEL, "resamples": protocol.bootstrap, "seed": protocol.seed}


def _resampled(
    protocol: Protocol, scores: Mapping[str, Mapping[str, VectorLike]], name: str, columns: Sequence[str]
) -> NDArray[np.float64]:
    """(resamples, columns, 3) of one OOD set."""
    id_scores, ood_scores = ([scores[which][column] for column in columns] for which in ("id", name))
    n_ood = protocol.ood_count(len(id_scores[0]), len(ood_scores[0]))
    again = resampling_of(protocol, [protocol.seed], n_ood)
    return resampled_metrics(id_scores, ood_scores, convention_of(protocol), again, stream_of(name))


def _mean(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.mean(values, axis=0)


def _difference(
    pair: tuple[Side, Side], name: str, values: NDArray[np.float64], points: Rows, place: Mapping[str, int]
) -> dict[str, Any]:
    first, second = (values[:, [place[column] for column in side]].mean(axis=1) for side in pair)
    bounds = interval_of(first - second, LEVEL)
    found: dict[str, Any] = {"ood": name}
    for key in METRICS:
        sides = [[points[column, name][key] for column in side] for side in pair]
        known = all(value is not None for side in sides for value in side)
        found[key] = [float(np.mean(sides[0]) - np.mean(sides[1])), *bounds[key]] if known else None
    return found


def _resampled_calibration(
    confidence: Sequence[VectorLike], correct: Sequence[VectorLike], bins: int, again: Resampling
) -> NDArray[np.float64]:
    """Accuracy and ECE of C networks in every resample of the same ID images, those of `resampled_metrics`.

    `confidence` and `correct` are C vectors (N,). Returns (resamples, C, 2). Raises as `expected_calibration_error`.
    """
    sure, right = ([np.asarray(values, dtype=np.float64) for values in both] for both in (confidence, correct))
    images = sure[0].size
    if {values.size for values in (*sure, *right)} != {images}:
        raise FaroutError("paired predictions must be of the same images")
    generator = np.random.default_rng([again.seed] if isinstance(again.seed, int) else [*again.seed])
    found = np.empty((again.resamples, len(sure), 2))
    for row in found:
        drawn = np.repeat(np.arange(images), times_drawn(images, images, generator))
        for place, (x, y) in zip(row, zip(sure, right, strict=True), strict=True):
            place[:] = y[drawn].mean(), expected_calibration_error(x[drawn], y[drawn], bins)
    return found


def _resampled_rms(
    protocol: Protocol,
    sure: Sequence[NDArray[np.float64]],
    right: Sequence[NDArray[np.float64]],
    others: Sequence[NDArray[np.float64]],
    name: str,
) -> NDArray[np.float64]:
    """(resamples, columns) RMS calibration error of ID images with those of one OOD set, of the images that
    `_resampled` draws."""
    images, available = sure[0].size, others[0].size
    if {v.size for v in (*sure, *right)} != {images} or {v.size for v in others} != {available}:
        raise FaroutError(f"paired predictions must be of the same images ({name})")
    n_ood = protocol.ood_count(images, available)
    again = resampling_of(protocol, [protocol.seed], n_ood)
    of_id, of_ood = np.random.default_rng([protocol.seed]), np.random.default_rng([protocol.seed, *stream_of(name), 1])
    found, wrong = np.empty((again.resamples, len(sure))), np.zeros(n_ood)
    for row in found:
        drawn = np.repeat(np.arange(images), times_drawn(images, images, of_id))
        chosen = np.repeat(np.arange(available), times_drawn(available, n_ood, of_ood))
        for c, (x, y, z) in enumerate(zip(sure, right, others, strict=True)):
            confidence, correct = np.concatenate([x[drawn], z[chosen]]), np.concatenate([y[drawn], wrong])
            row[c] = calibration_error(confidence, correct, bin_size=BIN, norm="rms")
    return found
