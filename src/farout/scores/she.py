"""SHE: simplified Hopfield energy (Zhang et al., ICLR 2023), an image against the stored pattern of its class."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from farout.errors import FaroutError
from farout.scores.base import Fitting, Outputs, Score
from farout.scores.blocks import row_blocks
from farout.scores.fitted import fitted, train_labels, train_outputs


@dataclass(frozen=True)
class Patterns:
    """Mean features (K, D) float64 of the classes (K,) int64 that have any."""

    means: Tensor
    classes: Tensor

    def similarity(self, outputs: Outputs) -> Tensor:
        """(N,) float64 inner products of features and the pattern of the likeliest class."""
        means, classes = self.means.to(outputs.features.device), self.classes.to(outputs.features.device)
        found = torch.empty(len(outputs), dtype=torch.float64, device=outputs.features.device)
        for rows in row_blocks(len(outputs), 3 * means.shape[1] + outputs.logits.shape[1]):
            own = outputs.logits[rows][:, classes].argmax(1)
            found[rows] = (outputs.features[rows].double() * means[own]).sum(1)
        return found


class SHE(Score):
    """<h, S_y>, h the penultimate features, y = argmax f; S_c the mean h of the training images of class c that are
    classified as c.

    The official code (zjs975584714/SHE_ood_detection) and OpenOOD agree on the inner product and on correctly
    classified images. Not here are the code's other metrics (Euclidean, cosine) and its variants with a step on the
    image or with ReAct. A class of which no training image is classified correctly has no pattern, and takes no part
    in y.
    """

    needs = ("train",)
    name = "she"

    def __init__(self) -> None:
        self._patterns: Patterns | None = None

    def fit(self, fitting: Fitting) -> None:
        """The patterns; raises FaroutError without labelled training outputs, or where all are classified wrongly."""
        train = train_outputs(fitting, self.name)
        labels = train_labels(train, self.name)
        self._patterns = _patterns(train.features, torch.where(train.logits.argmax(1) == labels, labels, -1))

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) float64."""
        return fitted(self._patterns, self.name).similarity(outputs)

    def facts(self) -> dict[str, Any]:
        """Once fitted, the number of classes with a pattern."""
        return {} if self._patterns is None else {"classes": len(self._patterns.classes)}


def _patterns(features: Tensor, labels: Tensor) -> Patterns:
    """Means of features (N, D) by label (N,); those labelled -1 are left out."""
    groups, index, counts = labels.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(groups), features.shape[1], dtype=torch.float64, device=features.device)
    for rows in row_blocks(len(features), 2 * features.shape[1]):
        sums.index_add_(0, index[rows], features[rows].double())
    kept = groups >= 0
    if not bool(kept.any()):
        raise FaroutError("score she: no training image is classified correctly, so train the classifier first")
    return Patterns((sums / counts[:, None])[kept], groups[kept])
