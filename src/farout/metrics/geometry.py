"""Dispersion, compactness and separability of embeddings on the unit sphere (CIDER, Ming et al., ICLR 2023, section 5).

Every measure is in degrees: the angle of a mean cosine, arccos(mean), as the paper's figures are, and not the mean of
angles. Vectors are normalised here, so unit vectors pass unchanged; all arithmetic is in float64.
"""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from farout.errors import FaroutError

VectorsLike = Tensor | NDArray[Any]


def dispersion_degrees(prototypes: VectorsLike) -> float:
    """Angle between prototypes (C, D): arccos of the mean cosine over pairs of classes. Larger is better.

    Raises FaroutError for fewer than two prototypes.
    """
    units = _units(prototypes, "prototypes")
    count = len(units)
    if count < 2:
        raise FaroutError(f"dispersion is an angle between prototypes, and there are only {count}: give at least two")
    cosines = units @ units.T
    return _degrees((cosines.sum() - cosines.trace()) / (count * (count - 1)))


def compactness_degrees(features: VectorsLike, prototypes: VectorsLike, labels: VectorsLike) -> float:
    """Angle of embeddings (N, D) to their class's prototype (C, D), labels (N,). Smaller is better.

    arccos of the mean over classes of the class's mean cosine; classes without an image are left out. Raises
    FaroutError where a label has no prototype.
    """
    points, units = _units(features, "features"), _units(prototypes, "prototypes")
    classes = _labels(labels, len(points), len(units))
    own = (points * units[classes]).sum(dim=1)
    counts = torch.bincount(classes, minlength=len(units))
    sums = torch.zeros(len(units), dtype=own.dtype).index_add_(0, classes, own)
    return _degrees((sums / counts)[counts > 0].mean())


def nearest_degrees(features: VectorsLike, prototypes: VectorsLike) -> float:
    """Angle of embeddings (N, D) to the nearest prototype (C, D): arccos of the mean of the largest cosines."""
    return _degrees((_units(features, "features") @ _units(prototypes, "prototypes").T).amax(dim=1).mean())


def separability_degrees(id_features: VectorsLike, ood_features: VectorsLike, prototypes: VectorsLike) -> float:
    """How much farther OOD embeddings lie from the nearest prototype than ID ones. Larger is better.

    `nearest_degrees` of OOD (M, D) minus that of ID (N, D).
    """
    return nearest_degrees(ood_features, prototypes) - nearest_degrees(id_features, prototypes)


def class_directions(features: VectorsLike, labels: VectorsLike, num_classes: int) -> Tensor:
    """Normalised class means (C, D) of normalised embeddings: prototypes for networks that have none.

    Raises FaroutError for a class without images, whose mean has no direction.
    """
    points = _units(features, "features")
    classes = _labels(labels, len(points), num_classes)
    sums = torch.zeros(num_classes, points.shape[1], dtype=points.dtype).index_add_(0, classes, points)
    return _units(sums, "class means")


def _units(vectors: VectorsLike, name: str) -> Tensor:
    """Rows at length 1, float64 on the CPU; raises FaroutError for other shapes and rows without a direction."""
    rows = (vectors.detach().cpu() if isinstance(vectors, Tensor) else torch.as_tensor(np.asarray(vectors))).double()
    if rows.ndim != 2 or not len(rows):
        raise FaroutError(f"{name} must be vectors in rows, at least one (N, D), not of shape {tuple(rows.shape)}")
    lengths = torch.linalg.vector_norm(rows, dim=1)
    bad = int((~lengths.isfinite() | (lengths == 0)).sum())
    if bad:
        raise FaroutError(f"{bad} of {len(rows)} {name} are zero or not finite and have no direction: leave them out")
    return F.normalize(rows, dim=1)


def _labels(labels: VectorsLike, count: int, num_classes: int) -> Tensor:
    """Labels (N,) on the CPU, checked; raises FaroutError."""
    classes = (labels.detach().cpu() if isinstance(labels, Tensor) else torch.as_tensor(np.asarray(labels))).long()
    if classes.shape != (count,):
        raise FaroutError(f"{count} features need as many labels, not labels of shape {tuple(classes.shape)}")
    if int(classes.min()) < 0 or int(classes.max()) >= num_classes:
        raise FaroutError(f"labels reach from {int(classes.min())} to {int(classes.max())}, not within {num_classes}")
    return classes


def _degrees(cosine: Tensor) -> float:
    return math.degrees(math.acos(min(1.0, max(-1.0, float(cosine)))))
