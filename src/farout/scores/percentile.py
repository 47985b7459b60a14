"""Percentiles of very many numbers: exact, in little memory, on any device."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from farout.errors import ConfigError

DIGIT = 16  # bits that one pass over the values decides
BLOCK = 2**22  # values looked at together


def check_percentage(value: float, option: str) -> float:
    """`value`, if it is a percentage of [0, 100); raises ConfigError otherwise (nothing is left above 100)."""
    if not 0 <= value < 100:
        raise ConfigError(f"{option}={value} is not a percentage: give at least 0 and less than 100, e.g. 90")
    return value


def percentile_of(values: Tensor, percentage: float) -> float:
    """The `percentage`-th percentile of all entries, linear between neighbours (the rule of NumPy).

    Sorting 50,000 x 2048 activations would copy them; here each pass counts 16 more bits of the wanted value.
    """
    position = percentage / 100 * (values.numel() - 1)
    rank, fraction = math.floor(position), position - math.floor(position)
    lower = order_statistic(values, rank)
    return lower if fraction == 0 else lower + fraction * (order_statistic(values, rank + 1) - lower)


def order_statistic(values: Tensor, rank: int) -> float:
    """The entry with `rank` entries before it in ascending order (0: the smallest), by a radix selection."""
    bits = 8 * values.element_size()
    prefix = 0  # the leading bits of the wanted key; as the keys it is signed
    for shift in range(bits - DIGIT, -1, -DIGIT):
        counts = torch.zeros(2**DIGIT, dtype=torch.int64, device=values.device)
        for keys in _keys(values):
            leading = keys if shift == bits - DIGIT else keys[(keys >> (shift + DIGIT)) == prefix]
            digits = (leading >> shift) - (prefix << DIGIT) + (2 ** (DIGIT - 1) if shift == bits - DIGIT else 0)
            counts += digits.long().bincount(minlength=2**DIGIT)
        cumulative = counts.cumsum(0)
        digit = int(torch.searchsorted(cumulative, rank, right=True))
        rank -= int(cumulative[digit] - counts[digit])
        prefix = digit - 2 ** (DIGIT - 1) if shift == bits - DIGIT else (prefix << DIGIT) + digit
    key = torch.tensor([prefix], dtype=torch.int32 if bits == 32 else torch.int64)
    return _flip(key).view(values.dtype).item()


def _keys(values: Tensor) -> Iterator[Tensor]:
    """Blocks of integers that are ordered as the values are."""
    integer = torch.int32 if values.dtype == torch.float32 else torch.int64
    for block in values.reshape(-1).split(BLOCK):
        yield _flip(block.view(integer))


def _flip(patterns: Tensor) -> Tensor:
    """Bit patterns of floats <-> signed integers in the floats' order: below zero all bits but the sign turn."""
    return patterns ^ ((patterns >> (8 * patterns.element_size() - 1)) & torch.iinfo(patterns.dtype).max)
