"""Mahalanobis distance as deeplearning-wisc/cider (Ming et al., ICLR 2023) measures it; with SupCon it is SSD+."""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from farout.scores.mahalanobis import Mahalanobis


class MahalanobisCIDER(Mahalanobis):
    """-min_c 1/2 (z - mu_c)^T P (z - mu_c) with z = h / |h|, in float64.

    It differs from the Energy code's variant in three ways: features are normalised (class means are not, again);
    P is the pseudo-inverse of the covariance of all features about their one mean, divisor n - 1, so the scatter
    between classes counts as well; there is no step on the image.
    """

    plain_name = "mahalanobis_cider"
    covariance: Literal["tied", "total"] = "total"

    def __init__(self) -> None:
        super().__init__()

    def embed(self, features: Tensor) -> Tensor:
        """(B, D) float64 unit vectors."""
        return F.normalize(features.double(), dim=1)
