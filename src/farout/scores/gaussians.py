"""One Gaussian per class with a shared covariance, estimated in float64 from training features."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from farout.errors import FaroutError
from farout.scores.blocks import row_blocks

Embedding = Callable[[Tensor], Tensor]  # features (B, D) -> what the Gaussians live in, (B, D) float64


@dataclass(frozen=True)
class Gaussians:
    """Class means (C, D) and a factor (D, R) of the shared precision, factor @ factor.T, of rank R; float64."""

    means: Tensor
    factor: Tensor

    @property
    def precision(self) -> Tensor:
        """(D, D) pseudo-inverse of the covariance."""
        return self.factor @ self.factor.T

    def to(self, device: torch.device) -> "Gaussians":
        """The same on another device."""
        return Gaussians(self.means.to(device), self.factor.to(device))

    def half_distances(self, embedded: Tensor) -> Tensor:
        """(B, C): 1/2 (x - mu_c)^T precision (x - mu_c) of embedded features (B, D) float64.

        Through |a - b|^2 = |a|^2 + |b|^2 - 2 ab in whitened space, where a difference per pair would need
        (B, C, D) numbers; the common centre keeps the cancellation harmless.
        """
        centre = self.means.mean(0)
        images, means = (embedded - centre) @ self.factor, (self.means - centre) @ self.factor
        squares = images.square().sum(1, keepdim=True) + means.square().sum(1) - 2 * images @ means.T
        return squares.clamp_min(0) / 2

    def half_distance_to_closest(self, embedded: Tensor) -> Tensor:
        """(B,): that to the closest mean, written as one difference, for a clean gradient."""
        closest = self.half_distances(embedded.detach()).argmin(1)
        return ((embedded - self.means[closest]) @ self.factor).square().sum(1) / 2


@torch.inference_mode(False)  # what is estimated here takes part in gradients later
def estimate(features: Tensor, labels: Tensor, embed: Embedding, covariance: Literal["tied", "total"]) -> Gaussians:
    """Gaussians of features (N, D) with labels (N,); classes without an image have none.

    Args:
        features, labels: of the training images.
        embed: what happens to features first.
        covariance: "tied", of the deviations from the class means, divisor N; "total", of those from the mean of
            all, divisor N - 1.

    Raises FaroutError for features that do not vary.
    """
    classes, index = labels.unique(return_inverse=True)
    width = features.shape[1]
    sums = torch.zeros(len(classes), width, dtype=torch.float64, device=features.device)
    for rows in row_blocks(len(features), 3 * width):
        sums.index_add_(0, index[rows], embed(features[rows]))
    means = sums / index.bincount()[:, None]
    centres = means if covariance == "tied" else (sums.sum(0) / len(features)).expand_as(means)
    scatter = torch.zeros(width, width, dtype=torch.float64, device=features.device)
    for rows in row_blocks(len(features), 4 * width):
        deviations = embed(features[rows]) - centres[index[rows]]
        scatter += deviations.T @ deviations
    return Gaussians(means, _precision_factor(scatter / max(1, len(features) - (covariance == "total"))))


def _precision_factor(covariance: Tensor) -> Tensor:
    """(D, R) whose product with its transpose is the covariance's pseudo-inverse.

    Directions with less than D * 2^-52 of the largest variance count as empty (the rule of scipy.linalg.pinvh).
    """
    variances, directions = torch.linalg.eigh(covariance)
    kept = variances > len(variances) * torch.finfo(torch.float64).eps * variances.abs().max()
    if not bool(kept.any()):
        raise FaroutError("the training features do not vary: fit on more images, or check the weights")
    return directions[:, kept] / variances[kept].sqrt()
