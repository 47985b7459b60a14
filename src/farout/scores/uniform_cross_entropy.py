"""Cross entropy from the uniform distribution to the prediction (option -x of hendrycks/outlier-exposure)."""

import torch
from torch import Tensor

from farout.scores.base import Outputs, Score


class UniformCrossEntropy(Score):
    """H(U; p) = log sum_k exp(f_k) - mean_k f_k: log C for a uniform prediction, large for a confident one.

    It is the loss that Outlier Exposure lowers on outliers; the official code scores images by its negative.
    """

    name = "uniform_cross_entropy"

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,), at least log C."""
        return torch.logsumexp(outputs.logits, 1) - outputs.logits.mean(1)
