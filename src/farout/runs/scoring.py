"""What an evaluation asks of a run's network: outputs (cached), fitted and tuned scores, scores that need gradients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from farout.backbones import Backbone
from farout.config.coerce import Component, component
from farout.config.settings import Settings
from farout.data import ImageSet
from farout.engine.cache import OutputCache, network_key, output_key
from farout.engine.evaluate import collect
from farout.engine.host import HostRows, to_device
from farout.engine.progress import Bar, say
from farout.errors import ConfigError, FaroutError
from farout.metrics import detection_metrics
from farout.metrics.vectors import finite_scores
from farout.places import conf_file, conf_names
from farout.runs.inputs import ImageSets, capped
from farout.runs.lineage import training_images, unseen_images
from farout.runs.run import Run
from farout.scores import Fitting, Head, ImageScore, Outputs, Score


def score_file(name: str) -> Component:
    """The score of a file of conf/score, as it stands there; raises ConfigError where there is none."""
    path = conf_file(f"score/{name}")
    if not path.is_file():
        raise ConfigError(f"score={name} is not there: choose from {', '.join(conf_names('score'))}")
    return component(OmegaConf.to_container(OmegaConf.load(path)), f"score.{name}")


def head_of(model: Backbone) -> Head:
    """A network's last linear layer, on the CPU."""
    weight, bias = model.head.weight.detach().cpu(), model.head.bias
    return Head(weight, weight.new_zeros(len(weight)) if bias is None else bias.detach().cpu())


def _by_images(score: Score) -> TypeGuard[ImageScore]:
    return isinstance(score, ImageScore) and "images" in score.needs


@dataclass(frozen=True)
class Passes:
    """What the network made of a set: its outputs, and (N,) by score that needed the images."""

    outputs: Outputs | None
    by_gradient: Mapping[str, Tensor]

    def values(self, scores: Mapping[str, Score]) -> dict[str, np.ndarray]:
        """(N,) float64 by score, in the order of `scores`; the network has no part in it."""
        found = {}
        for name, score in scores.items():
            if name in self.by_gradient:
                found[name] = self.by_gradient[name]
            else:
                assert self.outputs is not None
                found[name] = score(self.outputs)
        return {name: values.double().numpy() for name, values in found.items()}


class Predictor:
    """A finished run's network, loaded when a forward pass or a gradient is first needed.

    Outputs come from the cache under the run's outputs folder where it has them; then no network is loaded.
    """

    def __init__(self, run: Run, settings: Settings, device: torch.device) -> None:
        self.run, self.settings, self.device = run, settings, device
        self.cache = OutputCache(Path(settings.paths.outputs) / "cache", settings.trainer.cache_gib)
        self._key = network_key(run.weights, run.reading(), device)
        self._last: tuple[ImageSet, Outputs] | None = None

    @cached_property
    def model(self) -> Backbone:
        """In evaluation mode on the device; its parameters need no gradient, images may."""
        model = self.run.model(self.device).requires_grad_(False)
        return model.to_channels_last() if self.settings.trainer.channels_last else model

    @cached_property
    def head(self) -> Head:
        """The last linear layer, on the CPU beside the outputs."""
        return head_of(self.model)

    def outputs(self, image_set: ImageSet) -> Outputs:
        """Logits and features of a set: from the cache, else by one forward pass over it."""
        if self._last is None or self._last[0] is not image_set:
            self._last = image_set, self._outputs(image_set)
        return self._last[1]

    def _outputs(self, image_set: ImageSet) -> Outputs:
        key = output_key(self._key, image_set)
        known = self.cache.get(key, image_set.labels)
        if known is None:
            size = self.settings.trainer.eval_batch(self.device.type == "cuda")
            known = collect(self.model, self.run.transform(), image_set, self.device, size)
            self.cache.put(key, known)
        return known

    def train_images(self) -> ImageSet:
        """The ID images that the run trained on, its holdout left out."""
        return capped(training_images(self.run, self.settings.paths.data_paths()), self.settings.max_fit_images)

    def selection_images(self) -> tuple[ImageSet, str]:
        """ID images to tune on, and what they are: the run's unseen holdout where it has one, else its training's."""
        paths = self.settings.paths.data_paths()
        try:
            chosen, kind = unseen_images(self.run, paths), "holdout"
        except FaroutError:
            chosen, kind = training_images(self.run, paths), "training"
        return capped(chosen, self.settings.max_tune_images), kind

    def by_gradient(self, score: ImageScore, image_set: ImageSet) -> Tensor:
        """(N,) scores of a set that need the images, batch by batch."""
        transform, size = self.run.transform(), self.settings.trainer.eval_batch(self.device.type == "cuda")
        std, found = transform.std.flatten().to(self.device), HostRows()
        with Bar(f"  {score.name}: {image_set.name}", len(image_set)) as bar:
            for start in range(0, len(image_set), size):
                rows = to_device(image_set.images[start : start + size], self.device)
                found.add(score.on_images(self.model, transform(rows, raw=image_set.raw), std).detach())
                bar.advance(len(rows))
        return found.all()

    def passes(self, scores: Mapping[str, Score], image_set: ImageSet) -> Passes:
        """All that scores ask of the network: one forward pass, and for each that needs images its own passes.

        Where every score needs images there are no outputs.
        """
        slopes = {name: self.by_gradient(score, image_set) for name, score in scores.items() if _by_images(score)}
        outputs = self.outputs(image_set) if len(slopes) < len(scores) else None
        return Passes(outputs, slopes)

    def values(self, scores: Mapping[str, Score], image_set: ImageSet) -> dict[str, np.ndarray]:
        """(N,) float64 by score, from one forward pass (and one more with its gradient per score that needs images)."""
        return self.passes(scores, image_set).values(scores)


class Fitter:
    """Fits scores on what a run was trained on, whose outputs are looked up once."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    @cached_property
    def train(self) -> Outputs:
        """Outputs of the ID training images."""
        return self.predictor.outputs(self.predictor.train_images())

    def fit(self, scores: Sequence[Score]) -> None:
        """Fit those that want it."""
        for score in scores:
            if "train" in score.needs or "head" in score.needs:
                score.fit(Fitting(self.predictor.head, self.train if "train" in score.needs else None))


def ready_scores(
    predictor: Predictor, skipped: dict[str, str] | None = None
) -> tuple[dict[str, Score], dict[str, dict[str, Any]]]:
    """Every chosen score, tuned where asked and fitted where it needs it; and the facts of each for the record.

    Where `skipped` is given, scores that cannot be fitted go there, with the reason, and the others go on; raises the
    first one's error where none is left.
    """
    scores, facts = {}, {}
    fitter = Fitter(predictor)
    first: FaroutError | None = None
    for score in [part.build() for part in predictor.settings.scores]:
        try:
            chosen, selection = _ready(score, fitter)
        except (FaroutError, torch.linalg.LinAlgError, np.linalg.LinAlgError) as error:
            reason = " ".join(str(error).split())
            first = first or (error if isinstance(error, FaroutError) else FaroutError(f"{score.name}: {reason}"))
            if skipped is None:
                raise first from None
            skip(score.name, reason, skipped)
            continue
        fitted_on = {"fitted_on": len(fitter.train)} if "train" in chosen.needs else {}
        scores[score.name], facts[score.name] = chosen, {**chosen.facts(), **fitted_on, **selection}
    if first is not None and not scores:
        raise first
    return scores, facts


def skip(score: str, reason: str, skipped: dict[str, str]) -> None:
    """Note, and say, that a score takes no part in an evaluation."""
    skipped[score] = reason
    say(f"  skipped: {reason if score in reason else f'{score} - {reason}'}")


def skip_unmeasurable(values: dict[str, dict[str, np.ndarray]], skipped: dict[str, str]) -> None:
    """Take scores that are not finite on some set out of `values` (set -> score -> (N,)), as `skip` does.

    Raises FaroutError where none is left.
    """
    for score in list(values["id"]):
        try:
            for name, by_score in values.items():
                finite_scores(by_score[score], f"the {score} scores of {name}")
        except FaroutError as error:
            if len(values["id"]) == 1:
                raise
            skip(score, str(error), skipped)
            for by_score in values.values():
                del by_score[score]


def _ready(score: Score, fitter: Fitter) -> tuple[Score, dict[str, Any]]:
    """The score as it is to be used, and how it was selected where it was."""
    if score.candidates():
        return _tuned(score, fitter)
    fitter.fit([score])
    return score, {}


def _tuned(asked: Score, fitter: Fitter) -> tuple[Score, dict[str, Any]]:
    """The candidate with the lowest mean FPR95 on the validation corruptions (the first of equals)."""
    candidates, predictor = asked.candidates(), fitter.predictor
    fitter.fit(candidates)
    images, source = predictor.selection_images()
    sets = ImageSets(predictor.settings)
    corruptions, (base, split) = sets.corruption_sets(len(images)), sets.corruption_source()
    where = f"{len(images)} {source} images and {len(corruptions)} validation corruptions of {base} ({split})"
    say(f"  {asked.name}: choosing among {len(candidates)} settings on {where}")
    rates = [_selection_fpr(candidate, predictor, images, corruptions) for candidate in candidates]
    best = min(range(len(rates)), key=rates.__getitem__)
    return candidates[best], {"tuned_on": where, "selection_fpr95": rates[best]}


def _selection_fpr(score: Score, predictor: Predictor, images: ImageSet, corruptions: Mapping[str, ImageSet]) -> float:
    id_scores = predictor.values({"": score}, images)[""]
    rows = [detection_metrics(id_scores, predictor.values({"": score}, ood)[""]) for ood in corruptions.values()]
    return float(np.mean([row["fpr95"] for row in rows]))
