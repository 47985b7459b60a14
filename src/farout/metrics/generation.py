"""Quality of generated images: Frechet distance of features, Inception score, and the network that FID is defined by.

FID (Heusel et al., NeurIPS 2017) is the Frechet distance of one particular network's features, and the Inception score
(Salimans et al., NeurIPS 2016) is that of its probabilities. The network is the TensorFlow Inception of 2015 as the
optional package torch-fidelity rebuilds it; its weights are a file that the user provides, never downloaded here. On
the features of any other network the same formula is a Frechet distance, not FID.
"""

import importlib
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from farout.errors import FaroutError, MissingDataError

Inception = Callable[[Tensor], tuple[Tensor, Tensor]]
FeaturesLike = Tensor | NDArray[Any]

INCEPTION_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
_ROUNDING = 1e-4  # by which a softmax in float32 may miss a sum of 1


def frechet_distance(features_a: FeaturesLike, features_b: FeaturesLike) -> float:
    """Squared Wasserstein distance between Gaussians with the means and covariances of (N, D) and (M, D), in float64.

    |m_a - m_b|^2 + tr S_a + tr S_b - 2 tr (S_a S_b)^(1/2) (Dowson and Landau, 1982), covariances with N - 1. With
    S = R'R, R triangular from centred features, the last trace is the sum of the singular values of R_a R_b'. No
    covariance is formed and no matrix root taken, so singular ones (N <= D) are as exact as others. The estimate is
    biased upwards for few images: compare equal numbers.

    Raises FaroutError for other shapes, fewer than two rows, and values that are not finite.
    """
    (mean_a, root_a), (mean_b, root_b) = _gaussian(features_a, "first"), _gaussian(features_b, "second")
    if len(mean_a) != len(mean_b):
        raise FaroutError(f"features of {len(mean_a)} and {len(mean_b)} dimensions have no distance: use one network")
    shared = torch.linalg.svdvals(root_a @ root_b.T).sum()
    distance = (mean_a - mean_b).square().sum() + root_a.square().sum() + root_b.square().sum() - 2 * shared
    return max(0.0, float(distance))


def _gaussian(features: FeaturesLike, which: str) -> tuple[Tensor, Tensor]:
    """Mean (D,) and a root R (min(N, D), D) of the covariance R'R."""
    rows = _rows(features, f"the {which} features")
    if len(rows) < 2:
        raise FaroutError(f"the {which} features are of one image and have no covariance: give at least two")
    mean = rows.mean(dim=0)
    return mean, torch.linalg.qr((rows - mean) / math.sqrt(len(rows) - 1), mode="r").R


def inception_score(probabilities: FeaturesLike, splits: int = 1) -> tuple[float, float]:
    """exp of the mean KL divergence of p(y|x) (N, C) from their mean; mean and standard deviation over `splits`.

    Splits are consecutive, equal but for one image, and the deviation is that of the splits themselves (division by
    their number): shuffle images that are in an order. From 1, all predictions equal, to C.

    Raises FaroutError where rows are no probabilities, or images fewer than splits.
    """
    rows = _rows(probabilities, "the probabilities")
    if bool((rows < 0).any()) or bool(((rows.sum(dim=1) - 1).abs() > _ROUNDING).any()):
        raise FaroutError("the Inception score needs probabilities, rows that sum to 1: pass a softmax, not logits")
    if not 1 <= splits <= len(rows):
        raise FaroutError(f"splits={splits} of {len(rows)} images: give a number from 1 to {len(rows)}")
    edges = [i * len(rows) // splits for i in range(splits + 1)]
    scores = torch.stack([_score(rows[start:end]) for start, end in pairwise(edges)])
    return float(scores.mean()), float(scores.std(correction=0))


def _score(rows: Tensor) -> Tensor:
    marginal = rows.mean(dim=0)
    divergence = torch.xlogy(rows, rows).sum(dim=1) - torch.xlogy(rows, marginal).sum(dim=1)
    return divergence.mean().exp()


def _rows(values: FeaturesLike, name: str) -> Tensor:
    """(N, D) float64 on the CPU."""
    rows = (values.detach().cpu() if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))).double()
    if rows.ndim != 2 or not rows.numel():
        raise FaroutError(f"{name} must be vectors in rows (N, D), not of shape {tuple(rows.shape)}")
    if not bool(rows.isfinite().all()):
        raise FaroutError(f"{name} are not finite: the network or its images are broken")
    return rows


def load_inception(weights: Path, device: torch.device) -> Inception:
    """The network of FID and the Inception score: uint8 (B, 3, H, W) -> features (B, 2048), probabilities (B, 1008).

    Both are on the CPU, probabilities in float64; the network enlarges the images itself.

    Raises:
        FaroutError: torch-fidelity is not installed, or the file is no set of its weights.
        MissingDataError: the file is not there.
    """
    try:
        module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    except ImportError:
        raise FaroutError("IS and FID need the package torch-fidelity: pip install torch-fidelity") from None
    if not weights.is_file():
        raise MissingDataError(
            f"IS and FID need Inception's weights, and {weights} is not there: "
            f"put {INCEPTION_WEIGHTS} of torch-fidelity's release v0.2.0 in that place, or name it (--inception FILE)"
        )
    network = _network(module, weights).to(device)

    @torch.inference_mode()
    def observe(images: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = network(images.to(device))
        return features.cpu(), logits.double().softmax(dim=1).cpu()

    return observe


def _network(module: Any, weights: Path) -> Any:
    """The package unpickles whatever the file holds, so the file must first pass torch's own restricted loader."""
    try:
        torch.load(weights, weights_only=True, map_location="cpu")
        return module.FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights)
        )
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FaroutError(f"{weights} does not hold Inception's weights ({reason}): get the file again") from None
