"""Exact percentiles against NumPy, and blocks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import farout.scores.blocks as blocks
import farout.scores.percentile as module
from farout.errors import ConfigError
from farout.scores.blocks import column_means, in_blocks
from farout.scores.percentile import check_percentage, order_statistic, percentile_of

FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(st.lists(FLOATS, min_size=1, max_size=40), st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=100, deadline=None)
def test_order_statistics_are_those_of_sorting(values: list[float], dtype: torch.dtype) -> None:
    tensor = torch.tensor(values, dtype=dtype)
    found = [order_statistic(tensor, rank) for rank in range(len(values))]
    assert found == tensor.sort().values.tolist()


@pytest.mark.parametrize("percentage", [0, 10, 50, 90, 99.9, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numpy(percentage: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 1000)
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(57, 83, generator=generator, dtype=dtype).relu().T - 0.1  # ties, negative, not contiguous
    expected = np.percentile(values.double().numpy(), percentage)
    assert percentile_of(values, percentage) == pytest.approx(expected, rel=1e-12)


def test_wrong_percentages() -> None:
    assert check_percentage(0, "p") == 0
    for value in (-1, 100, float("nan")):
        with pytest.raises(ConfigError, match=r"p=.* is not a percentage"):
            check_percentage(value, "p")


def test_blocks_cover_every_row_once_and_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 8 * 3 * 7)
    features = torch.arange(40.0).view(20, 2)
    sizes = []

    def score(block: torch.Tensor) -> torch.Tensor:
        sizes.append(len(block))
        return block.sum(1)

    assert in_blocks(score, features, 3).tolist() == features.sum(1).tolist()
    assert sum(sizes) == 20 and max(sizes) == 7
    assert in_blocks(score, features[:0], 3).shape == (0,)
    assert column_means(features).tolist() == features.mean(0).tolist()
    assert len(list(blocks.row_blocks(5, 10**9))) == 5  # a row that is too large is a block of its own
