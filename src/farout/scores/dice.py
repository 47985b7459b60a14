"""DICE (Sun and Li, ECCV 2022): directed sparsification of the last layer, then energy."""

from typing import Any

import torch
from torch import Tensor

from farout.scores.base import Fitting, Head, Outputs, Score
from farout.scores.blocks import column_means
from farout.scores.fitted import fitted, train_outputs
from farout.scores.head_energy import head_energy
from farout.scores.percentile import check_percentage, percentile_of


class DICE(Score):
    """log sum_k exp((M * W) h + b)_k; M keeps the weights whose contribution is above the p-th percentile of all.

    A weight's contribution is V = W_kd * E[h_d], with the mean penultimate feature of the training images: units
    that matter little to ID classes add mostly noise to an OOD image's logits. As in the official code
    (deeplearning-wisc/dice) one threshold serves all classes, and the comparison is strict.

    Args:
        p: the sparsity in percent; 90 in the official scripts for both CIFARs.
    """

    needs = ("head", "train")

    def __init__(self, p: float = 90.0) -> None:
        self.p = check_percentage(p, "p")
        self.name = "dice" if p == 90 else f"dice_p{p:g}"
        self._sparse: Head | None = None

    def fit(self, fitting: Fitting) -> None:
        """Masks the head's weights."""
        mean = column_means(train_outputs(fitting, self.name).features)
        weight, bias = fitting.head.weight.detach().to(mean.device), fitting.head.bias.detach().to(mean.device)
        contributions = weight * mean  # float64, (C, D)
        kept = contributions > percentile_of(contributions, self.p)
        self._sparse = Head(torch.where(kept, weight, 0), bias)

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,), in units of logits."""
        return head_energy(fitted(self._sparse, self.name), outputs.features, lambda block: block)

    def facts(self) -> dict[str, Any]:
        """p and, once fitted, the number of weights kept."""
        kept = {} if self._sparse is None else {"weights_kept": int(self._sparse.weight.count_nonzero())}
        return {"p": self.p, **kept}
