"""GEN: generalised entropy of the softmax (Liu, Lochman and Zach, CVPR 2023)."""

from typing import Any

import torch
from torch import Tensor

from farout.errors import ConfigError
from farout.scores.base import Outputs, Score
from farout.scores.blocks import in_blocks


class GEN(Score):
    """-sum over the m largest p_k of p_k^gamma (1 - p_k)^gamma, p = softmax(f): 0 for a one-hot prediction.

    A small gamma makes much of small deviations from one-hot, so that the long tail of classes would outweigh the
    rest: m cuts it off (all classes count where they are fewer). Both defaults are those of the official code
    (XixiLiu95/GEN, on ImageNet) and of OpenOOD. pytorch-ood averages where these sum, and clamps p at 1e-7.

    In float64, and 1 - p of the likeliest class is the sum of the others: at gamma = 0.1 a rounding error of 1e-7 in
    it, as float32 has it, would be 0.2 in the score.

    Args:
        gamma: the exponent, above 0; the paper's range is (0, 1).
        m: how many classes count, M in the paper.
    """

    def __init__(self, gamma: float = 0.1, m: int = 100) -> None:
        if gamma <= 0:
            raise ConfigError(f"gamma={gamma}: the exponent of GEN must be above 0, the paper has 0.1")
        if m < 1:
            raise ConfigError(f"m={m}: GEN needs at least the likeliest class, the paper has 100")
        self.gamma, self.m = gamma, m
        self.name = "gen" if (gamma, m) == (0.1, 100) else f"gen_g{gamma:g}_m{m}"

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) float64, at most 0."""
        return in_blocks(self._score, outputs.logits, 6 * outputs.logits.shape[1])

    def _score(self, logits: Tensor) -> Tensor:
        probabilities = logits.double().softmax(1)
        largest, classes = probabilities.topk(min(self.m, logits.shape[1]), dim=1)
        others = probabilities.scatter(1, classes[:, :1], 0).sum(1, keepdim=True)
        rest = torch.cat([others, 1 - largest[:, 1:]], 1)
        return -(largest * rest).pow(self.gamma).sum(1)

    def facts(self) -> dict[str, Any]:
        """gamma and m."""
        return {"gamma": self.gamma, "m": self.m}
