"""One way into every metric: anything that looks like a list of numbers becomes a checked float64 vector."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from farout.errors import FaroutError

Vector = NDArray[np.float64]
VectorLike = NDArray[np.generic] | torch.Tensor | Sequence[float]


def finite_vector(values: VectorLike, name: str) -> Vector:
    """`values` as float64 (N,); float32 and bfloat16 convert exactly, so ties stay ties.

    Raises FaroutError that names `name` if the values are empty, not one-dimensional, NaN or infinite.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().to("cpu", torch.float64).numpy()
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1:
        raise FaroutError(f"{name} must be one number an image (1-D), not of shape {vector.shape}")
    if vector.size == 0:
        raise FaroutError(f"{name} are empty: there is nothing to measure")
    bad = int(vector.size - np.count_nonzero(np.isfinite(vector)))
    if bad:
        raise FaroutError(f"{name} hold {bad} NaN or infinite values among {vector.size}: did training diverge?")
    return vector
