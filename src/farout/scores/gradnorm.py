"""GradNorm (Huang, Geng and Li, NeurIPS 2021): how far the uniform distribution would pull the last layer."""

from typing import Any

from torch import Tensor

from farout.errors import ConfigError
from farout.scores.base import Outputs, Score
from farout.scores.blocks import row_blocks


class GradNorm(Score):
    """||d KL(U || softmax(f / T)) / dW||_1, W the weights (not the bias) of the last layer, f = W h + b.

    The gradient is the outer product of (softmax(f / T) - 1 / C) / T and h, and the L1 norm of an outer product is the
    product of the L1 norms (the paper's own analysis): |h|_1 sum_k |softmax(f / T)_k - 1 / C| / T. So nothing is
    differentiated here. The official code (deeplearning-wisc/gradnorm_ood) and OpenOOD sum the cross-entropy over the
    C classes where the equation averages: C times these values, in the same order.

    Args:
        temperature: T; 1 in the paper.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        if temperature <= 0:
            raise ConfigError(f"temperature={temperature}: GradNorm needs a temperature above 0, the paper has 1")
        self.temperature = temperature
        self.name = "gradnorm" if temperature == 1 else f"gradnorm_t{temperature:g}"

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) float64, at least 0."""
        classes, width = outputs.logits.shape[1], outputs.features.shape[1]
        found = outputs.logits.new_empty(len(outputs)).double()
        for rows in row_blocks(len(outputs), 3 * classes + 2 * width):
            probabilities = (outputs.logits[rows].double() / self.temperature).softmax(1)
            pull = (probabilities - 1 / classes).abs().sum(1) / self.temperature
            found[rows] = outputs.features[rows].double().abs().sum(1) * pull
        return found

    def facts(self) -> dict[str, Any]:
        """T."""
        return {"temperature": self.temperature}
