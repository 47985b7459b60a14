"""ReAct (Sun, Guo and Li, NeurIPS 2021): rectified activations, then energy."""

from typing import Any

from torch import Tensor

from farout.scores.base import Fitting, Head, Outputs, Score
from farout.scores.fitted import fitted, train_outputs
from farout.scores.head_energy import head_energy
from farout.scores.percentile import check_percentage, percentile_of


class ReAct(Score):
    """log sum_k exp(W min(h, c) + b)_k, h the penultimate features; c the p-th percentile of all ID activations.

    OOD images excite few units very strongly, so that clipping lowers their energy score most. The official code
    (deeplearning-wisc/react) estimates c on some 2,000 images of the ID validation set; here it is the exact
    percentile over the training images.

    Args:
        percentile: p; 90 in the paper.
    """

    needs = ("head", "train")

    def __init__(self, percentile: float = 90.0) -> None:
        self.percentile = check_percentage(percentile, "percentile")
        self.name = "react" if percentile == 90 else f"react_p{percentile:g}"
        self._fitted: tuple[Head, float] | None = None

    def fit(self, fitting: Fitting) -> None:
        """Estimates the threshold c."""
        features = train_outputs(fitting, self.name).features
        self._fitted = fitting.head, percentile_of(features, self.percentile)

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,), in units of logits."""
        head, threshold = fitted(self._fitted, self.name)
        return head_energy(head, outputs.features, lambda block: block.clamp_max(threshold))

    def facts(self) -> dict[str, Any]:
        """p and, once fitted, c."""
        threshold = {} if self._fitted is None else {"threshold": self._fitted[1]}
        return {"percentile": self.percentile, **threshold}
