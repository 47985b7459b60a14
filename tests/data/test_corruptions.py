import json
from pathlib import Path

import numpy as np
import pytest

from farout.data import open_dataset
from farout.data.corruptions import KINDS, geometric, ghost, invert, jigsaw, mean, pixelate, speckle, uniform

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "vectors_energy_oe.json").read_text())
MAPS = VECTORS["validation_corruptions"]


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), np.uint8)


def test_jigsaw_map():
    position = np.broadcast_to(np.arange(1024, dtype=np.int64).reshape(1, 1, 32, 32), (1, 3, 32, 32))
    moved = jigsaw(position)
    for place, source in MAPS["jigsaw"].items():
        row, column = map(int, place.strip("()").split(","))
        assert moved[0, 0, row, column] == source


def test_pixelate():
    image = np.random.RandomState(14).randint(0, 256, (32, 32, 3)).astype(np.uint8)
    got = pixelate(image.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0)
    expected = MAPS["pixelate"]
    assert got.sum() == expected["sum"] and got[0, 0].tolist() == expected["first"]
    assert got[16, 16].tolist() == expected["mid"]
    assert len(np.unique(got[:, 0], axis=0)) == expected["unique_rows"]


def test_channels(images):
    shifted = ghost(images)
    for out, (source, flipped) in enumerate(
        zip(MAPS["rgb_shift_channel_sources"], MAPS["rgb_shift_flipped"], strict=True)
    ):
        channel = images[:, source]
        assert np.array_equal(shifted[:, out], channel[:, :, ::-1] if flipped else channel)
    inverted = invert(images)
    assert np.array_equal(inverted[:, 0], images[:, 0]) and np.array_equal(inverted[:, 1:], 255 - images[:, 1:])


def test_pairs_and_noise(images):
    rng = np.random.default_rng
    partner = images[(np.arange(6) + rng(1).integers(1, 6, size=6)) % 6].astype(float)
    assert (partner != images).any(axis=(1, 2, 3)).all()  # never an image with itself
    assert np.abs(mean(images, rng(1)) - (images + partner) / 2).max() <= 0.5
    assert np.abs(geometric(images, rng(1)) - np.sqrt(images * partner)).max() <= 0.5 + 1e-4
    grey = np.full((40, 3, 32, 32), 60, np.uint8)
    speckled = speckle(grey, rng(0)).astype(float)
    assert speckled.min() == 0 and np.median(speckled) == pytest.approx(60, abs=1)
    assert (speckled == 0).mean() == pytest.approx(0.159, abs=0.005)  # N(0, 1) below -1
    noise = uniform(images, rng(0))
    assert noise.dtype == np.float32 and noise.min() >= -1 and noise.max() <= 1 and abs(noise.mean()) < 0.02


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_is_a_data_set_of_any_base(here, kind):
    images = open_dataset(f"corruption_{kind}@digits", "test", here)
    base = open_dataset("digits", "test", here)
    assert images.images.shape == base.images.shape and images.raw == (kind == "uniform")
    assert images.info["base_sha256"] == base.info["sha256"] and images.labels is None
    if kind != "uniform":
        assert (images.images != base.images).any()
