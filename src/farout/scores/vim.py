"""ViM: virtual-logit matching (Wang et al., CVPR 2022)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from farout.errors import ConfigError, FaroutError
from farout.scores.base import Fitting, Head, Outputs, Score, TrainFacts
from farout.scores.blocks import in_blocks, row_blocks
from farout.scores.fitted import fitted, train_outputs


@dataclass(frozen=True)
class Residual:
    """Origin (D,), an orthonormal basis (D, R) of what the principal space leaves out, and alpha; float64."""

    origin: Tensor
    basis: Tensor
    alpha: float

    def norms(self, features: Tensor) -> Tensor:
        """(N,) lengths of the residuals of features (N, D)."""
        origin, basis = self.origin.to(features.device), self.basis.to(features.device)
        return in_blocks(
            lambda block: torch.linalg.vector_norm((block.double() - origin) @ basis, dim=1),
            features,
            2 * sum(basis.shape),
        )


class ViM(Score):
    """log sum_k exp f_k - alpha |R^T (h - o)|: the energy score minus a virtual logit.

    o = -W^+ b is where all logits are zero. The principal space holds the `dimension` leading eigenvectors of the
    second moment of h - o over the training images, R the others; alpha = sum of the largest logits / sum of the
    residuals' lengths, over the same images, matches their scales. All of it in float64.

    Args:
        dimension: D' of the principal space. null: the official code's 1000 for D >= 2048 and 512 below, which
            leaves nothing of 512 features or fewer; so from D = 768 down, half of D, the rule of its successors.
    """

    needs = ("head", "train")

    def __init__(self, dimension: int | None = None) -> None:
        if dimension is not None and dimension < 1:
            raise ConfigError(f"dimension={dimension}: the principal space needs at least one")
        self.dimension = dimension
        self.name = "vim" if dimension is None else f"vim_d{dimension}"
        self._residual: Residual | None = None

    def fit(self, fitting: Fitting) -> None:
        """Origin, residual space and alpha; raises FaroutError where no residual is left."""
        train = train_outputs(fitting, self.name)
        dimension = self._dimension(train.features.shape[1])
        origin = zero_of(fitting.head).to(train.features.device)
        moment, length = _second_moment(train.features, origin)
        basis = torch.linalg.eigh(moment).eigenvectors[:, : len(origin) - dimension]  # eigenvalues ascend
        residual = Residual(origin, basis, 0.0)
        mean_norm = residual.norms(train.features).mean()
        if mean_norm <= 1e-6 * length:  # float32 rounding, no signal
            raise FaroutError(
                f"score {self.name}: the training features lie in the principal space of {dimension} dimensions, so "
                "set its dimension lower"
            )
        largest = train.logits.amax(1).mean(dtype=torch.float64).to(mean_norm)
        self._residual = Residual(origin, basis, float(largest / mean_norm))

    def check(self, train_facts: TrainFacts) -> None:
        """Raises FaroutError where the features leave no residual space."""
        self._dimension(train_facts.width)

    def _dimension(self, width: int) -> int:
        default = 1000 if width >= 2048 else 512 if width >= 768 else width // 2
        dimension = self.dimension or default
        if not 0 < dimension < width:
            raise FaroutError(
                f"score {self.name}: a principal space of {dimension} dimensions leaves nothing of {width} features, "
                "so set dimension lower"
            )
        return dimension

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) float64, in units of logits."""
        residual = fitted(self._residual, self.name)
        energy = in_blocks(
            lambda block: torch.logsumexp(block.double(), 1), outputs.logits, 2 * outputs.logits.shape[1]
        )
        return energy - residual.alpha * residual.norms(outputs.features)

    def facts(self) -> dict[str, Any]:
        """The dimension asked for or, once fitted, the one in use with alpha."""
        if self._residual is None:
            return {"dimension": self.dimension}
        width, rest = self._residual.basis.shape
        return {"dimension": width - rest, "alpha": self._residual.alpha}


def zero_of(head: Head) -> Tensor:
    """(D,) float64: o = -W^+ b, the smallest feature that makes every logit zero, or as near as it goes."""
    return -torch.linalg.pinv(head.weight.detach().double()) @ head.bias.detach().double()


def _second_moment(features: Tensor, origin: Tensor) -> tuple[Tensor, Tensor]:
    """(D, D) mean of (h - o)(h - o)^T, and the root mean square length of h - o."""
    moment = torch.zeros(len(origin), len(origin), dtype=torch.float64, device=features.device)
    for rows in row_blocks(len(features), 3 * len(origin)):
        centred = features[rows].double() - origin
        moment += centred.T @ centred
    moment /= len(features)
    return moment, moment.trace().sqrt()
