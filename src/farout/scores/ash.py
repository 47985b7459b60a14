"""ASH (Djurisic et al., ICLR 2023): activation shaping, image by image, then energy."""

from typing import Any, Literal

import torch
from torch import Tensor

from farout.scores.base import Fitting, Head, Outputs, Score
from farout.scores.fitted import fitted
from farout.scores.head_energy import head_energy
from farout.scores.percentile import check_percentage

Variant = Literal["s", "b", "p"]


class ASH(Score):
    """log sum_k exp(W s(h) + b)_k, where s keeps the largest (100 - p) % of an image's own activations h.

    With S1 the sum of h and S2 the sum of what is kept: ASH-P sets the others to zero; ASH-B also sets the n kept
    ones to S1 / n; ASH-S multiplies the kept ones by exp(S1 / S2). Nothing is fitted.

    It acts on the pooled penultimate features. So does the official code (andrijazz/ash) in its CIFAR DenseNet and
    ImageNet ResNet; implementations that shape the feature maps before pooling keep other activations and give other
    numbers. Made for features that are not negative: elsewhere S2 may be near zero. A row of zeros stays zero.

    Args:
        variant: s, b or p.
        percentile: p; the official configurations for CIFAR-10, CIFAR-100 and ImageNet have s at 90.
    """

    needs = ("head",)

    def __init__(self, variant: Variant = "s", percentile: float = 90.0) -> None:
        self.variant, self.percentile = variant, check_percentage(percentile, "percentile")
        self.name = "ash" if (variant, percentile) == ("s", 90) else f"ash_{variant}_p{percentile:g}"
        self._head: Head | None = None

    def fit(self, fitting: Fitting) -> None:
        """Takes the head; there is nothing to estimate."""
        self._head = fitting.head

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) float64, in units of logits."""
        return head_energy(fitted(self._head, self.name), outputs.features, self.shape)

    def shape(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, D) float64: at p = 99 ASH-S multiplies by up to exp(100), too much for float32."""
        features = features.double()
        width = features.shape[1]
        kept, where = features.topk(width - round(width * self.percentile / 100), dim=1)
        if self.variant == "b":
            kept = (features.sum(1, keepdim=True) / kept.shape[1]).expand_as(kept)
        elif self.variant == "s":
            kept = kept * expansion(features, kept)
        return torch.zeros_like(features).scatter(1, where, kept)

    def facts(self) -> dict[str, Any]:
        """Variant and p."""
        return {"variant": self.variant, "percentile": self.percentile}


def expansion(features: Tensor, kept: Tensor) -> Tensor:
    """(B, 1): exp(S1 / S2) of features (B, D) and of what is kept of them (B, K); 1 where S2 is 0."""
    whole, rest = features.sum(1, keepdim=True), kept.sum(1, keepdim=True)
    return torch.where(rest == 0, 0, whole / rest).exp()
