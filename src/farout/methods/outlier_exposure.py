"""Outlier Exposure (Hendrycks et al., ICLR 2019): outliers should get the uniform distribution."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from farout.errors import ConfigError
from farout.methods.base import Batch, Method, joint_logits


def uniform_cross_entropy(logits: Tensor) -> Tensor:
    """Cross-entropy from the uniform distribution to softmax(logits), mean over the batch (B, C) -> scalar.

    H(U; p) = logsumexp_k z_k - mean_k z_k, the classification form of the OE objective (ICLR 2019, section 4.3).
    """
    return (torch.logsumexp(logits, dim=1) - logits.mean(dim=1)).mean()


class OutlierExposure(Method):
    """Cross-entropy on ID images plus `oe_weight` times the uniform cross-entropy on outliers (0.5 for images)."""

    streams: ClassVar[tuple[str, ...]] = ("labelled", "outliers")

    def __init__(self, oe_weight: float) -> None:
        super().__init__()
        if oe_weight < 0:
            raise ConfigError(f"oe_weight={oe_weight:g} is negative: it weighs a loss, the paper's value is 0.5")
        self.oe_weight = oe_weight

    def loss(self, model: nn.Module, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        id_logits, outlier_logits = joint_logits(model, batches["labelled"], batches["outliers"])
        cross_entropy = F.cross_entropy(id_logits, batches["labelled"].targets)
        uniform = uniform_cross_entropy(outlier_logits)
        return {
            "total": cross_entropy + self.oe_weight * uniform,
            "cross_entropy": cross_entropy,
            "oe": uniform,
        }
