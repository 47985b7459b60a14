"""SupCon: supervised contrastive learning (Khosla et al., NeurIPS 2020), the baseline beside CIDER."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from farout.errors import ConfigError, FaroutError
from farout.methods.base import Batch, Method
from farout.methods.sphere import at_least_float32, embed


def supcon_loss(features: Tensor, labels: Tensor, temperature: float, base_temperature: float = 0.07) -> Tensor:
    """Each view against all others, those of the same label being its positives (equation 2 of the paper) -> scalar.

    features are unit vectors: (B, V, D), V views of B images with labels (B,), or (N, D), views one after the other
    (all first ones, then all second ones) with labels (N,), or (N / 2,) for two views. Mean over the anchors of the
    mean over positives of -log softmax over all others, times temperature / base_temperature. An anchor without a
    positive has nothing to be pulled to and is left out; if none has one, the loss is 0.

    Raises:
        FaroutError: shapes do not fit.
    """
    flat, repeated = _flat_views(features, labels)
    with torch.autocast(flat.device.type, enabled=False):
        itself = torch.eye(len(flat), dtype=torch.bool, device=flat.device)
        positives = (repeated[:, None] == repeated) & ~itself
        # A finite least value: a single view has no others, and infinities would make its gradient NaN.
        similarity = (flat @ flat.T / temperature).masked_fill(itself, torch.finfo(flat.dtype).min)
        log_probability = similarity - torch.logsumexp(similarity, dim=1, keepdim=True)
        counts = positives.sum(dim=1)
        anchors = torch.where(positives, log_probability, 0).sum(dim=1) / counts.clamp(min=1)
        return -temperature / base_temperature * anchors.sum() / (counts > 0).sum().clamp(min=1)


def _flat_views(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(N, D) features in float32 or better and (N,) labels, views one after the other."""
    flat = at_least_float32(features)
    if features.ndim == 3 and labels.shape == features.shape[:1]:
        return flat.transpose(0, 1).flatten(0, 1), labels.repeat(features.shape[1])
    if features.ndim == 2 and labels.ndim == 1:
        if len(labels) == len(features):
            return flat, labels
        if 2 * len(labels) == len(features):
            return flat, labels.repeat(2)
    raise FaroutError(
        f"features {tuple(features.shape)} and labels {tuple(labels.shape)} do not fit: "
        "give (B, views, D) with (B,), or (2B, D) with (B,) or (2B,)"
    )


class SupCon(Method):
    """The supervised contrastive loss alone, on the batches that CIDER has; no classifier is trained.

    Args:
        temperature: 0.1 in CIDER's comparison.
        base_temperature: the loss is scaled by temperature / base_temperature (0.07 in the official code).
    """

    trains_classifier, embeds = False, True

    def __init__(self, temperature: float, base_temperature: float) -> None:
        super().__init__()
        for name, value in (("temperature", temperature), ("base_temperature", base_temperature)):
            if not 0 < value < math.inf:
                raise ConfigError(f"{name}={value:g} must be positive, e.g. 0.1")
        self.temperature, self.base_temperature = temperature, base_temperature

    def loss(self, model: nn.Module, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        labelled = batches["labelled"]
        embeddings = embed(model, labelled.images)
        return {"total": supcon_loss(embeddings, labelled.targets, self.temperature, self.base_temperature)}
