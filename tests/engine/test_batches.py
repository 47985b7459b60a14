"""Batches on the device are a function of the step."""

import pytest
import torch

from farout.data.streams import EndlessShuffle, EpochShuffle, holdout_split
from farout.data.transform import Transform
from farout.engine.batches import DeviceBatches, Stream

CPU = torch.device("cpu")
PLAIN = Transform((0, 0, 0), (1, 1, 1), flip=False, crop_padding=0)
AUGMENTING = Transform((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), flip=True, crop_padding=2)


def numbered(n: int) -> torch.Tensor:
    """Image i has the value i everywhere."""
    return torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 3, 8, 8)


def make(transform: Transform, seed: int = 1, channels_last: bool = False, raw: bool = False) -> DeviceBatches:
    train, _ = holdout_split(40, 0.25)
    labelled = Stream(numbered(40), torch.arange(40) * 10, train, EpochShuffle(len(train), 7, seed, "labelled"))
    noise = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(0, 20, 2)
    outliers = Stream(
        noise if raw else numbered(20), None, rows, EndlessShuffle(10, 16, seed, "o"), outliers=True, raw=raw
    )
    return DeviceBatches({"labelled": labelled, "outliers": outliers}, transform, seed, CPU, channels_last)


def test_a_step_is_the_same_in_any_process_and_order():
    straight, jumping = make(AUGMENTING), make(AUGMENTING)
    expected = [straight(step) for step in range(6)]
    for step in (5, 2, 2, 0):
        again = jumping(step)
        for name in ("labelled", "outliers"):
            assert torch.equal(again[name].images, expected[step][name].images)
    assert torch.equal(jumping(3)["labelled"].labels, expected[3]["labelled"].labels)


def test_augmentation_differs_between_steps_and_seeds():
    """With one image in the set, only the augmentation can differ."""

    def one(seed: int) -> DeviceBatches:
        image = torch.randint(0, 256, (1, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
        stream = Stream(image, torch.zeros(1, dtype=torch.long), None, EndlessShuffle(1, 8, seed, "labelled"))
        return DeviceBatches({"labelled": stream}, AUGMENTING, seed, CPU, False)

    first = one(1)(0)["labelled"].images
    assert not torch.equal(first, one(1)(1)["labelled"].images)
    assert not torch.equal(first, one(2)(0)["labelled"].images)


def test_labels_belong_to_their_images_and_held_out_rows_never_appear():
    batches, (train, held) = make(PLAIN), holdout_split(40, 0.25)
    seen = []
    for step in range(5):  # 30 images in batches of 7: one epoch
        batch = batches(step)["labelled"]
        values = (batch.images[:, 0, 0, 0] * 255).round().long()
        assert torch.equal(batch.labels, values * 10)
        seen += values.tolist()
    assert sorted(seen) == sorted(train.tolist())
    assert not set(seen) & set(held.tolist())


def test_outliers_come_from_their_rows_without_labels():
    for step in range(4):
        batch = make(PLAIN)(step)["outliers"]
        values = (batch.images[:, 0, 0, 0] * 255).round().long()
        assert len(values) == 16
        assert (values % 2 == 0).all()
        assert batch.labels is None


def test_raw_streams_are_not_normalised():
    batch = make(AUGMENTING, raw=True)(0)["outliers"].images
    noise = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert all(any(torch.equal(image, original) for original in noise) for image in batch)


@pytest.mark.parametrize("channels_last", [False, True])
def test_memory_format(channels_last):
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    assert make(AUGMENTING, channels_last=channels_last)(0)["labelled"].images.is_contiguous(memory_format=wanted)
