"""Batches on the device are a function of the step."""

import pytest
import torch

from farout.data.streams import EndlessShuffle, EpochShuffle, holdout_split
from farout.data.transform import Transform
from farout.data.views import ViewTransform
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


@pytest.mark.parametrize("views", [None, 2])
def test_a_training_pass_has_every_row_that_takes_part_once_unaugmented(views, monkeypatch):
    monkeypatch.setattr("farout.engine.batches.PASS_SIZE", 7)
    colours = {"crop_scale": (0.2, 1), "crop_ratio": (0.75, 1.33), "flip": True, "jitter": (0.4, 0.4, 0.4, 0.1)}
    two = ViewTransform(
        (0.5,) * 3, (0.5,) * 3, views=2, size=None, jitter_probability=0.8, grayscale_probability=0.2, **colours
    )
    batches, (train, _) = make(two if views else AUGMENTING, channels_last=True), holdout_split(40, 0.25)
    before = batches(3)["labelled"].images
    passed = list(batches.train_images())
    assert [len(batch.images) for batch in passed] == [7, 7, 7, 7, 2]
    assert torch.equal(torch.cat([batch.targets for batch in passed]), train * 10)
    expected = ((numbered(40)[train] / 255) - 0.5) / 0.5
    assert torch.allclose(torch.cat([batch.images for batch in passed]), expected, atol=1e-6)
    assert all(batch.images.is_contiguous(memory_format=torch.channels_last) for batch in passed)
    assert torch.equal(batches(3)["labelled"].images, before), "the pass draws nothing"
    if views:
        assert len(before) == 14, "training steps do have two views"
