"""Which images a step sees: complete passes, the official offsets and splits, and nothing but (seed, step)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from farout.data.streams import (
    ContiguousWindow,
    EndlessShuffle,
    EpochShuffle,
    holdout_split,
    outlier_stream,
    stable_seed,
    subset_rows,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "vectors_energy_oe.json").read_text())


@pytest.mark.parametrize(("n", "batch"), [(10, 3), (12, 3), (5, 8), (1, 1)])
def test_every_epoch_sees_every_image_once(n, batch):
    order = EpochShuffle(n, batch, seed=1, name="labelled")
    assert order.steps_per_epoch == -(-n // batch)
    for epoch in range(3):
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        parts = [order.indices(step) for step in steps]
        assert sorted(torch.cat(parts).tolist()) == list(range(n))
        assert [len(part) for part in parts[:-1]] == [batch] * (len(parts) - 1)
        assert len(parts[-1]) == n - batch * (len(parts) - 1)


def test_epochs_seeds_and_streams_differ():
    base = EpochShuffle(50, 50, 1, "labelled")
    others = [base.indices(1), EpochShuffle(50, 50, 2, "labelled").indices(0), EpochShuffle(50, 50, 1, "x").indices(0)]
    for other in others:
        assert not torch.equal(base.indices(0), other)


@pytest.mark.parametrize("make", [EpochShuffle, EndlessShuffle])
def test_order_of_asking_does_not_matter(make):
    straight = make(10, 3, 1, "s")
    expected = [straight.indices(step) for step in range(15)]
    jumping = make(10, 3, 1, "s")
    for step in (14, 0, 7, 7, 3, 11):
        assert torch.equal(jumping.indices(step), expected[step])


@pytest.mark.parametrize(("n", "batch"), [(10, 4), (3, 8), (8, 8), (7, 1)])
def test_endless_batches_are_full_and_passes_complete(n, batch):
    order = EndlessShuffle(n, batch, 1, "outliers")
    parts = [order.indices(step) for step in range(n * 3)]
    assert {len(part) for part in parts} == {batch}
    stream = torch.cat(parts)
    for start in range(0, len(stream) - n + 1, n):
        assert sorted(stream[start : start + n].tolist()) == list(range(n))


@pytest.mark.parametrize("seed", [1, 2, 8, 100, 107])
def test_window_offsets_are_the_official_ones(seed):
    window = ContiguousWindow(79302017, 256, seed, steps_per_epoch=391)
    assert [window.offset(epoch) for epoch in range(10)] == VECTORS["tiny_images"]["epoch_offsets"][f"seed_{seed}"]


def test_first_offset_of_the_official_loop():
    drawn = {case["expect"].get("outlier_offset_drawn") for case in VECTORS["train_steps"]["cases"]} - {None}
    assert drawn == {ContiguousWindow(79302017, 8, 1, 3).offset(0)}


def test_window_is_contiguous_modulo_one_less_than_the_length():
    n, batch, per_epoch = 23, 4, 5
    window = ContiguousWindow(n, batch, seed=3, steps_per_epoch=per_epoch)
    for step in range(3 * per_epoch):
        epoch, position = divmod(step, per_epoch)
        expected = [(position * batch + item + window.offset(epoch)) % (n - 1) for item in range(batch)]
        assert window.indices(step).tolist() == expected


NOT_EXCLUDED = [
    case
    for case in VECTORS["tiny_images"]["index_map"]
    if case["image_index"] == (case["index"] + case["offset"]) % 79302016
]


@pytest.mark.parametrize("case", NOT_EXCLUDED)
def test_window_index(case):
    """Where the official loader meets no excluded image (it redraws those), its index is ours."""
    window = ContiguousWindow(79302017, 1, seed=0, steps_per_epoch=79302017)
    window.offset = lambda epoch: case["offset"]  # type: ignore[method-assign]
    assert window.indices(case["index"]).tolist() == [case["image_index"]]


def test_outlier_stream_follows_the_setting():
    assert isinstance(outlier_stream(10, 2, 1, "shuffle", 5), EndlessShuffle)
    assert isinstance(outlier_stream(10, 2, 1, "window", 5), ContiguousWindow)


def test_holdout_of_image_folders():
    expected = VECTORS["validation_split"]["tiny_imagenet_folder"]
    train, held = holdout_split(100_000, 0.1)
    assert (len(train), len(held)) == (expected["train"], expected["val"])
    assert train[:5].tolist() == expected["first5_train"]
    assert held[:5].tolist() == expected["first5_val"]
    assert sorted(torch.cat([train, held]).tolist()) == list(range(100_000))


@pytest.mark.parametrize(("name", "n"), [("cifar", 50_000), ("mnist", 60_000), ("svhn", 604_388)])
def test_holdout_of_official_archives_is_their_end(name, n):
    expected = VECTORS["validation_split"][name]
    train, held = holdout_split(n, expected["val"] / n, "last")
    assert (len(train), len(held), held[0].item()) == (expected["train"], expected["val"], expected["first_val"])
    assert held[-1] == n - 1


def test_no_holdout_keeps_everything_and_the_split_knows_no_seed():
    train, held = holdout_split(100, 0.0)
    assert (len(train), len(held)) == (100, 0)
    torch.manual_seed(5)
    first = holdout_split(100, 0.2)
    torch.manual_seed(6)
    assert all(torch.equal(a, b) for a, b in zip(first, holdout_split(100, 0.2), strict=True))


def test_stable_seed_is_the_same_everywhere():
    """Pinned: a change would give every run other batches."""
    assert stable_seed(1, "labelled", 0) == 3039235051642160865
    assert stable_seed(1, "step", 0) != stable_seed(1, "step", 1)
    assert 0 <= stable_seed("x") < 2**63


def test_a_smaller_subset_lies_within_a_larger_one():
    small, large, other = subset_rows(1000, 10, 1), subset_rows(1000, 100, 1), subset_rows(1000, 10, 2)
    assert len(small) == 10 and set(small) < set(large) and (np.diff(large) > 0).all()
    assert set(small) != set(other)
    assert (subset_rows(7, None, 1) == np.arange(7)).all() and (subset_rows(7, 8, 1) == np.arange(7)).all()
