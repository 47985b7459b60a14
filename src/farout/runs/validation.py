"""What a network is worth on its holdout: a curve to watch, and what sweeps minimise and margins are chosen by."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from farout.backbones import Backbone
from farout.config.settings import Settings
from farout.engine.batches import PASS_SIZE
from farout.engine.evaluate import accuracy, collect, share_correct
from farout.engine.fit import Measure
from farout.methods import Method
from farout.metrics import detection_metrics
from farout.runs.geometry import nearest_class_accuracy
from farout.runs.inputs import ImageSets, TrainingData, capped, spread
from farout.runs.scoring import head_of, score_file
from farout.scores import Fitting

Report = Callable[[int, float], None]  # to a sweep: the how manieth look it is, the figure; may raise Pruned
POINTS = 50  # of the accuracy curve, about


def accuracy_watch(settings: Settings, data: TrainingData, device: torch.device, total_steps: int) -> Measure | None:
    """Accuracy on a few images of the holdout, always the same, some fifty times a run and at its end; None: no curve.

    Where there is no holdout, none of the classifier's training, or `logger.accuracy_images=0`. Like `ImageLog`, at
    steps that follow from the run's length. It draws no random number, and chooses nothing.
    """
    count, every = settings.logger.accuracy_images, settings.trainer.log_every
    if not count or not len(data.holdout_rows) or not settings.method.kind.trains_classifier:
        return None
    images = data.labelled.subset(data.holdout_rows[spread(len(data.holdout_rows), count)])
    transform, interval = settings.transform.build(), every * max(1, round(total_steps / (POINTS * every)))

    def measure(step: int, model: nn.Module) -> Mapping[str, float]:
        if step % interval and step != total_steps:
            return {}
        return {"holdout/accuracy": share_correct(cast(Backbone, model), transform, images, device, PASS_SIZE)}

    return measure


def validate(
    model: Backbone, method: Method, settings: Settings, data: TrainingData, device: torch.device
) -> dict[str, Any]:
    """Accuracy on the holdout, and the method's own score against the validation corruptions (never a test set).

    ID is positive and all images count; `fpr95` is the mean over the corruptions, by which the papers chose margins.
    A score that is fitted sees the images that trained. An untrained classifier has no accuracy; the nearest class
    mean's stands beside it, by that name, where training outputs are at hand.
    """
    size = settings.trainer.eval_batch(device.type == "cuda")
    observe = partial(collect, model, settings.transform.build(), device=device, batch_size=size)
    score = score_file(settings.method_score).build()
    train = None
    if "train" in score.needs:
        train = observe(capped(data.labelled.subset(data.train_rows), settings.max_fit_images))
    score.fit(Fitting(head_of(model), train))
    holdout = capped(data.labelled.subset(data.holdout_rows), settings.max_eval_images)
    id_outputs = observe(holdout)
    id_scores = score(id_outputs)
    rows = {}
    for kind, image_set in ImageSets(settings).corruption_sets(len(holdout)).items():
        ood_scores = score(observe(image_set))
        names = (f"{settings.method_score} scores of the holdout", f"{settings.method_score} scores of {kind}")
        rows[kind] = detection_metrics(id_scores, ood_scores, names=names)
    return {
        "score": settings.method_score,
        "n": len(holdout),
        "accuracy": accuracy(id_outputs) if method.trains_classifier else None,
        **({} if train is None else {"nearest_class_accuracy": nearest_class_accuracy(train, id_outputs)}),
        **{metric: float(np.mean([row[metric] for row in rows.values()])) for metric in ("fpr95", "auroc")},
        "corruptions": rows,
    }


def validation_steps(total: int, times: int) -> dict[int, int]:
    """After which updates of `total` the holdout is looked at while training goes on, evenly spaced: update -> look.

    Looks count from 1, so that runs of other lengths compare. What falls together, or on the end, is left out.
    """
    steps = {round(total * k / (times + 1)): k for k in range(times, 0, -1)}
    return {step: look for step, look in sorted(steps.items()) if 0 < step < total}


def logged(validation: Mapping[str, Any]) -> dict[str, float]:
    """The figures as curves and W&B's summary have them."""
    known = {metric: validation.get(metric) for metric in ("fpr95", "auroc", "accuracy")}
    return {f"validation/{metric}": float(value) for metric, value in known.items() if value is not None}
