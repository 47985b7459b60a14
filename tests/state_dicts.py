"""Comparing networks, to the bit."""

import torch
from torch import Tensor


def tensors_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Bitwise equality of two state dicts."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
