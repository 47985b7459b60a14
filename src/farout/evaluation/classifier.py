"""Any classifier with what makes its input of pictures: one pass over a user's images serves all scores."""

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from farout.backbones.any_network import AnyNetwork, find_head, unwrapped
from farout.config.coerce import Component
from farout.data.given import Given, Inputs, Preprocess, input_batches, normalisation_std, number_of
from farout.engine.host import HostRows, to_device
from farout.engine.precision import full_fp32
from farout.engine.progress import Bar
from farout.errors import FaroutError
from farout.places import conf_file
from farout.runs.environment import choose_device
from farout.runs.scoring import Passes, score_file, skip
from farout.scores import ImageScore, Outputs, Score

PROBED = 2  # images of the pass that finds the last linear layer


class ClassifierNote(UserWarning):
    """Something about a network that its user should know."""


@dataclass(frozen=True)
class Classifier:
    """A network of your own, for `Detector.from_model` and `evaluate`; a bare model does where the defaults fit.

    Attributes:
        model: any nn.Module, images (B, C, H, W) -> logits (B, K), that ends in a linear layer. It is copied.
        transform: what makes the network's input (C, H, W) of a PIL image, e.g. torchvision's `weights.transforms()`;
            None: only the network's input itself is given, as float tensors.
        num_classes: K, to be checked; None takes what the last linear layer has.
        head: the name of the linear layer that makes the logits; None: the one that a forward pass calls last.
        classes: names by class index.
        device: auto, cpu, cuda or cuda:N.
        batch_size: images of a forward pass.
    """

    model: nn.Module
    transform: Preprocess | None = None
    num_classes: int | None = None
    head: str | None = None
    classes: Sequence[str] = ()
    device: str = "auto"
    batch_size: int = 256

    def ready(self, example: Given) -> "ReadyClassifier":
        """With its last linear layer, found by a pass over the first of these images.

        Raises FaroutError where there is none, or where it has not `num_classes` outputs.
        """
        first = next(input_batches(example, self.transform, PROBED), None)
        if first is None:
            raise FaroutError("there is no image: give some that the network is made for")
        model = unwrapped(self.model)
        head, ends_there = find_head(model, first.images[:PROBED].to(_device_of(model)), self.head)
        if not ends_there:
            what = f"{type(model).__name__} does more after its last linear layer {head}"
            warnings.warn(f"{what}: the scores take that layer's output as logits", ClassifierNote, stacklevel=3)
        return self.with_head(head)

    def with_head(self, head: str) -> "ReadyClassifier":
        """The same, where the last linear layer is known."""
        network, device = AnyNetwork(self.model, head), choose_device(self.device, "device")
        found = network.num_classes
        if self.num_classes not in (None, found):
            raise FaroutError(
                f"num_classes={self.num_classes}, but {head} makes {found} logits: name another with head="
            )
        if self.classes and len(self.classes) != found:
            raise FaroutError(f"{len(self.classes)} names of classes are given, but {head} makes {found} logits")
        names = tuple(self.classes) or tuple(str(index) for index in range(found))
        network = network.to(device).requires_grad_(False)
        return ReadyClassifier(network, self.transform, names, device, self.batch_size)


@dataclass(frozen=True)
class ReadyClassifier:
    """A network on its device, in evaluation mode, and how pictures become its input."""

    network: AnyNetwork
    transform: Preprocess | None
    classes: tuple[str, ...]
    device: torch.device
    batch_size: int

    @property
    def std(self) -> tuple[float, ...]:
        """What the transform's Normalize divides by, per channel; (1.0,), for any channels, where none is seen."""
        return normalisation_std(self.transform) or (1.0,)

    def inputs(self, given: Given) -> Iterator[Inputs]:
        """Batches of the network's input."""
        return input_batches(given, self.transform, self.batch_size)

    def passes(self, given: Given, scores: Sequence[Score] = (), title: str = "images") -> Passes:
        """Outputs of one forward pass over the images, and the scores of those that need a gradient, on the CPU.

        Raises FaroutError where there is no image, and naming the set where the network does not take its images.
        """
        logits, features, labels = HostRows(), HostRows(), list[Tensor | None]()
        slopes = {score: HostRows() for score in scores if isinstance(score, ImageScore) and "images" in score.needs}
        std = torch.tensor(self.std, device=self.device)
        with full_fp32(), Bar(f"  {title}", number_of(given)) as bar, _said_of(title):
            for batch in self.inputs(given):
                images = to_device(batch.images, self.device)
                with torch.inference_mode():
                    features.add(found := self.network.features(images))
                    logits.add(self.network.classify(found))
                for score, rows in slopes.items():
                    rows.add(score.on_images(self.network, images, std).detach())
                labels.append(batch.labels)
                bar.advance(len(images))
            if not labels:
                raise FaroutError("there is no image")
        there = [each for each in labels if each is not None]
        known = torch.cat(there) if len(there) == len(labels) else None
        return Passes(Outputs(logits.all(), features.all(), known), {s.name: rows.all() for s, rows in slopes.items()})

    def with_gradient(self, scores: Mapping[str, Score], example: Given, skipped: dict[str, str]) -> dict[str, Score]:
        """Those that this network can compute; others go to `skipped`, found on the first of these images."""
        found, std = dict(scores), torch.tensor(self.std, device=self.device)
        asking = {k: s for k, s in scores.items() if isinstance(s, ImageScore) and "images" in s.needs}
        if not asking:
            return found
        few = next(input_batches(example, self.transform, PROBED)).images[:PROBED].to(self.device)
        for name, score in asking.items():
            try:
                score.on_images(self.network, few, std)
            except FaroutError as error:
                if len(found) == 1:
                    raise
                skip(name, str(error), skipped)
                del found[name]
        return found


@contextmanager
def _said_of(title: str) -> Iterator[None]:
    """Errors within name the set of images."""
    try:
        yield
    except FaroutError as error:
        raise type(error)(f"{title}: {error}") from None


def as_classifier(model: nn.Module | Classifier, transform: Preprocess | None, num_classes: int | None) -> Classifier:
    """A bare model with its transform; a Classifier has its own, and raises FaroutError beside another."""
    if not isinstance(model, nn.Module | Classifier):
        raise FaroutError(f"{type(model).__name__} is no network: give an nn.Module, or a farout.Classifier of one")
    if isinstance(model, nn.Module):
        return Classifier(model, transform, num_classes)
    if transform is not None or num_classes is not None:
        raise FaroutError("a Classifier has its transform and num_classes: give them there")
    return model


def score_components(scores: str | Component | Sequence[str | Component]) -> list[Component]:
    """Files of conf/score by their names, "all" for those that score=all has; components pass."""
    listed = [scores] if isinstance(scores, str | Component) else list(scores)
    if not listed:
        raise FaroutError('there is no score: name at least one, e.g. scores=["msp", "energy"]')
    names = itertools.chain.from_iterable(all_scores() if each == "all" else [each] for each in listed)
    return [each if isinstance(each, Component) else score_file(each) for each in names]


def all_scores() -> list[str]:
    """Names of the files that score=all has."""
    return list(OmegaConf.load(conf_file("score/all")).defaults)


def _device_of(model: nn.Module) -> torch.device:
    return next((part.device for part in model.parameters()), torch.device("cpu"))
