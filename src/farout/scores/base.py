"""What a score gets, and what it owes: one number per image, larger for in-distribution images."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from farout.errors import FaroutError


@dataclass(frozen=True)
class Outputs:
    """What one forward pass over a data set leaves for all scores.

    Attributes:
        logits: (N, C) float32 or better.
        features: (N, D) float32 or better, the input of the last linear layer.
        labels: (N,) int64, or None where there are none.

    Raises FaroutError for half precision (energies would collapse onto a few values) and for unequal lengths.
    """

    logits: Tensor
    features: Tensor
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("logits", "features"):
            dtype = getattr(self, name).dtype
            if dtype in (torch.float16, torch.bfloat16):
                raise FaroutError(f"{name} are {dtype}: scores need float32, so let the last layer run in float32")
        lengths = {len(t) for t in (self.logits, self.features, self.labels) if t is not None}
        if len(lengths) > 1:
            raise FaroutError(f"outputs of unequal lengths {sorted(lengths)}: they must describe the same images")

    def __len__(self) -> int:
        return len(self.logits)


@dataclass(frozen=True)
class Head:
    """The last linear layer: logits = features @ weight.T + bias; weight (C, D) and bias (C,), float32 or better."""

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Logits (N, C) of features (N, D)."""
        return torch.nn.functional.linear(features, self.weight, self.bias)


@dataclass(frozen=True)
class Fitting:
    """What a score may learn from: the head, and the outputs of the ID training images (never of a test set).

    `train` is None for scores that do not name it in `needs`. Its images went through the test transform, its
    order is the data set's.
    """

    head: Head
    train: Outputs | None = None


@dataclass(frozen=True)
class TrainFacts:
    """What is known of the training images and the network before either is there.

    Attributes:
        images: how many training images it would be fitted on.
        width: D, of the penultimate features.
        classes: C.
    """

    images: int
    width: int
    classes: int


class Network(Protocol):
    """A differentiable classifier of normalised images, in evaluation mode."""

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D)."""

    def classify(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, C)."""


class Score(ABC):
    """One number per image.

    Attributes:
        name: as in tables; it carries a parameter where two settings may stand side by side (energy_t10).
        needs: what it needs besides an image's outputs: "head" and "train" (see `Fitting`; `fit` is called
            before the first image), "images" (see `ImageScore`).
        ways: its arguments that say how it is computed and change no figure. No evaluation depends on them, and what
            the attribute of that name holds is not saved with the score.
    """

    name: str
    needs: Sequence[str] = ()
    ways: ClassVar[Sequence[str]] = ()

    # Most scores have nothing to fit, so this is not abstract.
    def fit(self, fitting: Fitting) -> None:  # noqa: B027
        """Estimates what the score needs, where its paper does."""

    def check(self, train_facts: TrainFacts) -> None:  # noqa: B027
        """Raises FaroutError where `fit` on such training images would: known before anything is trained."""

    @abstractmethod
    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) scores, larger = more in-distribution."""

    def candidates(self) -> "Sequence[Score]":
        """The grid that its paper searches on validation data, where tuning was asked for; () to be taken as it is.

        Whoever evaluates keeps the candidate with the lowest FPR95 on the validation corruptions.
        """
        return ()

    def facts(self) -> dict[str, Any]:
        """Parameters in use, for the record."""
        return {}


class ImageScore(Score):
    """A score that needs the image again, for a gradient: `on_images` runs a batch through the network."""

    needs: Sequence[str] = ("images",)

    @abstractmethod
    def on_images(self, network: Network, images: Tensor, std: Tensor) -> Tensor:
        """(B,) scores of normalised images (B, 3, H, W) on the network's device.

        `std` (3,) is what the normalisation divided by: a step of eps in pixels of [0, 1] is eps / std here.
        """

    def __call__(self, outputs: Outputs) -> Tensor:
        raise FaroutError(f"score {self.name} needs the images: outputs are not enough")
