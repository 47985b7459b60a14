"""The input check of all metrics: an array, tensor or list of numbers becomes a checked vector, or is refused."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from farout.errors import FaroutError

Vector = NDArray[np.float64]
ScoreVector = NDArray[np.floating[Any]]  # float32 or float64
if TYPE_CHECKING:  # arrays and lists are measured without PyTorch
    import torch

    VectorLike = NDArray[np.generic] | torch.Tensor | Sequence[float]
else:
    VectorLike = Any


def finite_vector(values: VectorLike, name: str) -> Vector:
    """`values` as float64 (N,); float32 and bfloat16 convert exactly, so ties stay ties.

    Raises FaroutError that names `name` if the values are empty, not one-dimensional, NaN or infinite.
    """
    return finite_scores(values, name).astype(np.float64, copy=False)


def finite_scores(values: VectorLike, name: str) -> ScoreVector:
    """`values` as float32 (N,) where they are float32 or shorter, else as float64: half the memory, the same ties.

    May share memory with `values`. Raises as `finite_vector`.
    """
    vector = _as_floats(values)
    if vector.ndim != 1:
        raise FaroutError(f"{name} must be one number an image (1-D), not of shape {vector.shape}")
    if vector.size == 0:
        raise FaroutError(f"{name} are empty: there is nothing to measure")
    # A finite sum proves finite terms and needs no array of flags; an overflowing one proves nothing.
    with np.errstate(over="ignore", invalid="ignore"):
        proven = np.isfinite(np.sum(vector))
    bad = 0 if proven else int(vector.size - np.count_nonzero(np.isfinite(vector)))
    if bad:
        raise FaroutError(f"{name} hold {bad} NaN or infinite values among {vector.size}: did training diverge?")
    return vector


def _as_floats(values: VectorLike) -> NDArray[Any]:
    given: Any = values
    torch = sys.modules.get("torch")  # who has a tensor has loaded it
    if torch is not None and isinstance(given, torch.Tensor):
        given = given.detach().cpu()
        given = (given.float() if given.dtype in (torch.float16, torch.bfloat16) else given).numpy()
    vector = np.asarray(given)
    short = vector.dtype in (np.dtype(np.float16), np.dtype(np.float32))
    return vector.astype(np.float32 if short else np.float64, copy=False)
