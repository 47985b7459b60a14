"""Plain cross-entropy training: the baseline ("softmax") of every table, and the parent of fine-tuning."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from farout.methods.base import Batch, Method


class CrossEntropy(Method):
    """Mean cross-entropy on labelled images; no knobs."""

    def loss(self, model: nn.Module, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        labelled = batches["labelled"]
        return {"total": F.cross_entropy(model(labelled.images), labelled.targets)}
