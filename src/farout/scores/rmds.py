"""Relative Mahalanobis distance (Ren et al., arXiv 2106.09022, 2021); RMDS in OpenOOD, RMD in pytorch-ood."""

from typing import Any

import torch
from torch import Tensor

from farout.scores.base import Fitting, Outputs, Score
from farout.scores.blocks import in_blocks
from farout.scores.fitted import fitted, train_labels, train_outputs
from farout.scores.gaussians import Gaussians, estimate


class RMDS(Score):
    """-min_c (MD_c(h) - MD_0(h)) with MD_c(h) = (h - mu_c)^T P (h - mu_c) and MD_0(h) = (h - mu_0)^T P_0 (h - mu_0).

    h are the penultimate features, mu_c and P the class means and the shared precision of `Mahalanobis`, mu_0 and P_0
    mean and precision of one Gaussian over all training features, whatever their class; divisors n. What makes an
    image unlike all training images, in directions that tell no class from another, is in both distances and
    cancels. Precisions are pseudo-inverses, in float64.

    OpenOOD has the same with pseudo-inverses in float32. pytorch-ood takes sums for covariances and adds 1e-6 to
    their diagonals, so its values are these over n, nearly.
    """

    needs = ("train",)
    name = "rmds"

    def __init__(self) -> None:
        self._gaussians: tuple[Gaussians, Gaussians] | None = None  # by class; of all

    def fit(self, fitting: Fitting) -> None:
        """Means and precisions; raises FaroutError without labelled training outputs."""
        train = train_outputs(fitting, self.name)
        labels = train_labels(train, self.name)
        by_class = estimate(train.features, labels, Tensor.double, "tied")
        self._gaussians = by_class, estimate(train.features, torch.zeros_like(labels), Tensor.double, "tied")

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) float64; of either sign."""
        device = outputs.features.device
        by_class, of_all = (gaussians.to(device) for gaussians in fitted(self._gaussians, self.name))

        def score(block: Tensor) -> Tensor:
            features = block.double()
            return 2 * (of_all.half_distances(features)[:, 0] - by_class.half_distances(features).amin(1))

        return in_blocks(score, outputs.features, 3 * outputs.features.shape[1] + 2 * len(by_class.means))

    def facts(self) -> dict[str, Any]:
        """Once fitted, the number of classes and the ranks of both precisions."""
        if self._gaussians is None:
            return {}
        by_class, of_all = self._gaussians
        return {"classes": len(by_class.means), "rank": by_class.factor.shape[1], "rank_all": of_all.factor.shape[1]}
