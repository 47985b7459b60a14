"""Evaluate any classifier, or outputs that any framework saved: scores, a protocol, a table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from farout.config.coerce import Component
from farout.data.given import Given, Preprocess
from farout.engine.evaluate import accuracy, correct
from farout.errors import FaroutError
from farout.evaluation.classifier import Classifier, as_classifier, score_components
from farout.evaluation.results import Results, tabulated
from farout.metrics.protocol import Protocol
from farout.runs.calibration import confidence_of
from farout.runs.environment import stamp
from farout.runs.scoring import Passes, head_of, skip, skip_unmeasurable
from farout.scores import Fitting, Head, Outputs, Score

Scores = str | Component | Sequence[str | Component]
DEFAULT = ("msp", "energy")


def evaluate(
    model: nn.Module | Classifier,
    id_data: Given,
    ood_sets: Mapping[str, Given],
    scores: Scores = DEFAULT,
    protocol: str | Protocol = "plain",
    transform: Preprocess | None = None,
    train: Given = None,
) -> Results:
    """How well scores tell OOD images from ID images, on one network.

    Images are pictures (files, PIL images, arrays, tensors), folders, torch data sets or DataLoaders
    (`farout.data.given`). Each set takes one forward pass for all scores, and one more with its gradient for each
    score that needs it.

    Args:
        model: any nn.Module that ends in a linear layer, or a `Classifier` that says more of it.
        id_data: in-distribution test images; with labels there are accuracy and ECE.
        ood_sets: OOD images by name.
        scores: files of conf/score ("all": all that score=all has), or components with arguments of your own.
        protocol: a file of conf/protocol, or one of your own. "plain" takes all images, ID positive.
        transform: what makes the network's input of a PIL image; None: only the network's input itself is given.
        train: in-distribution training images, for scores that are fitted (knn, mahalanobis, vim, react, ...).

    Raises FaroutError, in one line, for what cannot be read, and where no score can be computed; one that alone cannot
    is left out, and `Results.skipped` says why.
    """
    ready = as_classifier(model, transform, None).ready(id_data)
    chosen = [component.build() for component in score_components(scores)]
    wanted = any("train" in score.needs for score in chosen) and train is not None
    outputs = ready.passes(train, title="train").outputs if wanted else None
    skipped: dict[str, str] = {}
    fitted = fitted_scores(chosen, head_of(ready.network), outputs, skipped)
    fitted = ready.with_gradient(fitted, id_data, skipped)
    passes = {
        name: ready.passes(given, list(fitted.values()), name) for name, given in _named(id_data, ood_sets).items()
    }
    return _results(type(ready.network.model).__name__, passes, fitted, protocol, skipped, ready.device)


def evaluate_outputs(
    id_test: Outputs,
    ood: Mapping[str, Outputs],
    scores: Scores = DEFAULT,
    protocol: str | Protocol = "plain",
    train: Outputs | None = None,
    head: Head | None = None,
    name: str = "outputs",
) -> Results:
    """The same from logits and features that are there already, of whatever framework; no network is needed.

    Args:
        id_test, ood: outputs of the in-distribution test images, and of OOD images by name.
        scores, protocol: as in `evaluate`; scores that need the images are left out.
        train: outputs of the in-distribution training images, for scores that are fitted on them.
        head: the last linear layer, for scores that compute logits again (react, ash, dice, vim).
        name: of the network, for the table.

    Raises FaroutError as `evaluate`.
    """
    skipped: dict[str, str] = {}
    fitted = fitted_scores([component.build() for component in score_components(scores)], head, train, skipped, False)
    passes = {key: Passes(outputs, {}) for key, outputs in _named(id_test, ood).items()}
    return _results(name, passes, fitted, protocol, skipped, torch.device("cpu"))


def _named(id_data: Any, ood_sets: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(ood_sets, Mapping):
        raise FaroutError(f'OOD sets are given by name, as {{"textures": images}}, not as {type(ood_sets).__name__}')
    if not ood_sets:
        raise FaroutError("there is no OOD set: give at least one, by name")
    if "id" in ood_sets:
        raise FaroutError("an OOD set is called id, as the ID set is: give it another name")
    return {"id": id_data, **ood_sets}


def fitted_scores(
    scores: Sequence[Score], head: Head | None, train: Outputs | None, skipped: dict[str, str], images: bool = True
) -> dict[str, Score]:
    """Scores by name, fitted; those that cannot be go to `skipped` with the reason, and are said.

    Raises FaroutError, the first reason, where none is left.
    """
    ready = {}
    for score in scores:
        try:
            _fit(score, head, train, images)
        except (FaroutError, torch.linalg.LinAlgError, np.linalg.LinAlgError) as error:
            skip(score.name, " ".join(str(error).split()), skipped)
        else:
            ready[score.name] = score
    if not ready:
        raise FaroutError(next(iter(skipped.values())))
    return ready


def _fit(score: Score, head: Head | None, train: Outputs | None, images: bool) -> None:
    if score.candidates():
        raise FaroutError(f"score {score.name} asks to be tuned: give it the values that eval.py chose")
    if "images" in score.needs and not images:
        raise FaroutError(f"score {score.name} needs the images and the network: outputs are not enough")
    if "train" in score.needs and train is None:
        raise FaroutError(f"score {score.name} is fitted on training images: give train, those of the ID set")
    if "head" in score.needs and head is None:
        raise FaroutError(f"score {score.name} needs the last linear layer: give head, its weight and bias")
    if "head" in score.needs or "train" in score.needs:
        score.fit(Fitting(head or _no_head(train), train if "train" in score.needs else None))


def _no_head(train: Outputs | None) -> Head:
    """For scores that do not ask for one."""
    classes, width = (train.logits.shape[1], train.features.shape[1]) if train is not None else (1, 1)
    return Head(torch.full((classes, width), torch.nan), torch.full((classes,), torch.nan))


def _results(
    name: str,
    passes: Mapping[str, Passes],
    scores: Mapping[str, Score],
    protocol: str | Protocol,
    skipped: dict[str, str],
    device: torch.device,
) -> Results:
    values = {key: each.values(scores) for key, each in passes.items()}
    skip_unmeasurable(values, skipped)
    outputs = passes["id"].outputs
    assert outputs is not None
    facts = {**stamp(device), "scores": {key: score.facts() for key, score in scores.items()}}
    return tabulated(name, values, protocol, skipped, facts, _id_facts(outputs))


def _id_facts(outputs: Outputs) -> dict[str, Any]:
    known: dict[str, Any] = {"dataset": "given", "n": len(outputs), "accuracy": None, "ece": None}
    if (
        outputs.labels is None
        or not 0 <= int(outputs.labels.min()) <= int(outputs.labels.max()) < outputs.logits.shape[1]
    ):
        return known
    right = {"confidence": confidence_of(outputs).numpy(), "correct": correct(outputs).numpy()}
    return {**known, "accuracy": accuracy(outputs), **right}
