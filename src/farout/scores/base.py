"""What a score gets, and what it owes: one number per image, larger for in-distribution images."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

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


class Score(ABC):
    """One number per image from the outputs named in `needs` ("logits", "features")."""

    name: str
    needs: tuple[str, ...] = ("logits",)

    # Most scores have nothing to fit, so this is not abstract.
    def fit(self, train: Outputs) -> None:  # noqa: B027
        """Estimates what the score needs from the ID training set, where its paper does."""

    @abstractmethod
    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) scores, larger = more in-distribution."""
