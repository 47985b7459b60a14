"""SCALE (Xu et al., ICLR 2024): ASH-S without the pruning, then energy."""

from typing import Any

from torch import Tensor

from farout.scores.ash import expansion
from farout.scores.base import Fitting, Head, Outputs, Score
from farout.scores.fitted import fitted
from farout.scores.head_energy import head_energy
from farout.scores.percentile import check_percentage


class SCALE(Score):
    """log sum_k exp(W (r h) + b)_k with r = exp(S1 / S2), S1 the sum of an image's penultimate features h and S2 that
    of the largest (100 - p) % of them.

    All activations stay, where ASH-S drops the others; the paper finds that pruning only harms. Nothing is fitted.
    Made for features that are not negative, as ASH. A row of zeros stays zero, and at least one activation counts.

    Args:
        percentile: p. 85 is the value in the official configuration (kai422/SCALE), which names no data set. OpenOOD
            has the same, and searches 65 to 95 on OOD images for validation, as one version of the official code does
            (50 to 95); so which values are behind the paper's numbers for CIFAR cannot be read there.
    """

    needs = ("head",)

    def __init__(self, percentile: float = 85.0) -> None:
        self.percentile = check_percentage(percentile, "percentile")
        self.name = "scale" if percentile == 85 else f"scale_p{percentile:g}"
        self._head: Head | None = None

    def fit(self, fitting: Fitting) -> None:
        """Takes the head; there is nothing to estimate."""
        self._head = fitting.head

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) float64, in units of logits."""
        return head_energy(fitted(self._head, self.name), outputs.features, self.shape)

    def shape(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, D) float64."""
        features = features.double()
        width = features.shape[1]
        kept = features.topk(max(1, width - round(width * self.percentile / 100)), dim=1).values
        return features * expansion(features, kept)

    def facts(self) -> dict[str, Any]:
        """p."""
        return {"percentile": self.percentile}
