"""The energy score of features that were changed on their way into the last layer."""

from collections.abc import Callable

import torch
from torch import Tensor

from farout.scores.base import Head
from farout.scores.blocks import in_blocks


def head_energy(head: Head, features: Tensor, shape: Callable[[Tensor], Tensor]) -> Tensor:
    """(N,): log sum_k exp of the head's logits of `shape`(features), in the dtype that `shape` returns.

    Args:
        head: weight (C, D) and bias (C,), on any device.
        features: (N, D), on the device where all is computed.
        shape: (B, D) -> (B, D), for each row on its own.
    """

    def energy(block: Tensor) -> Tensor:
        shaped = shape(block)
        moved = Head(head.weight.detach().to(shaped), head.bias.detach().to(shaped))
        return torch.logsumexp(moved(shaped), 1)

    return in_blocks(energy, features, 2 * sum(head.weight.shape))
