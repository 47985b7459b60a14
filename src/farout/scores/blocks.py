"""Rows in blocks, so that what a score computes on the way stays small whatever the data set's size."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

BLOCK_BYTES = 64 * 2**20


def row_blocks(rows: int, numbers: int) -> Iterator[slice]:
    """Slices of `rows` rows, each row needing `numbers` float64 numbers on the way; at most BLOCK_BYTES together."""
    step = max(1, BLOCK_BYTES // (8 * max(1, numbers)))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def in_blocks(score: Callable[[Tensor], Tensor], features: Tensor, numbers: int) -> Tensor:
    """(N,) `score` of features (N, D), block by block; `numbers` as in `row_blocks`."""
    # One result to write into: small results between large blocks would leave the heap in pieces that do not fit.
    found = score(features[:0]).new_empty(len(features))
    for rows in row_blocks(len(features), numbers):
        found[rows] = score(features[rows])
    return found


def column_means(features: Tensor) -> Tensor:
    """(D,) float64 means of features (N, D). Block by block, since torch copies all of a tensor that it sums wider."""
    sums = torch.zeros(features.shape[1], dtype=torch.float64, device=features.device)
    for rows in row_blocks(len(features), features.shape[1]):
        sums += features[rows].sum(0, dtype=torch.float64)
    return sums / len(features)
