import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from farout.data import open_dataset
from farout.data.synthetic import blobs, gaussian, noise, odin_gaussian, odin_uniform, rademacher

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "vectors_energy_oe.json").read_text())


def test_noise_sets_are_those_of_the_official_code():
    rng = np.random.RandomState(0)  # one stream, in this order
    drawn = {"gaussian": gaussian(3, rng), "rademacher": rademacher(3, rng), "blob": blobs(3, rng)}
    for name, expected in VECTORS["noise_sets"]["expect"].items():
        images = drawn[name]
        assert images.shape == (3, 3, 32, 32) and images.dtype == np.float32
        values = images.astype(np.float64)
        assert values.sum() == pytest.approx(expected["sum"], rel=1e-5, abs=2e-3)
        assert (values**2).sum() == pytest.approx(expected["sumsq"], rel=1e-6)
        assert images.ravel()[:4].tolist() == pytest.approx(expected["first4"], abs=1e-6)
    assert (drawn["blob"] == -1).mean() == pytest.approx(
        VECTORS["noise_sets"]["expect"]["blob"]["frac_minus1"], abs=1e-6
    )


def test_pieces_give_the_same_stream(here):
    whole = gaussian(2100, np.random.RandomState(5))
    assert np.array_equal(noise("test", here, "gaussian", 2100, 5).images, whole)


def test_noise_is_raw_and_a_smaller_set_starts_like_a_larger_one(here):
    few, more = open_dataset("rademacher@5", "test", here), open_dataset("rademacher@9", "test", here)
    assert few.raw and few.labels is None and len(few) == 5
    assert np.array_equal(few.images.numpy(), more.images.numpy()[:5])


def test_odins_noise_has_its_distribution_in_grey_levels():
    drawn = odin_gaussian(200, np.random.RandomState(0))
    assert drawn.dtype == np.uint8 and drawn.shape == (200, 3, 32, 32)
    # N(0.5, 1): below 0 (rounded: 0.5 / 255), above 1 and of all moments what the clipped normal has.
    below = 0.5 * (1 + math.erf((-0.5 + 0.5 / 255) / math.sqrt(2)))
    assert (drawn == 0).mean() == pytest.approx(below, abs=0.003)
    assert (drawn == 255).mean() == pytest.approx(below, abs=0.003)
    values = drawn / 255
    assert values.mean() == pytest.approx(0.5, abs=0.003)
    x = np.linspace(-6, 7, 1_000_001)
    weight = np.exp(-((x - 0.5) ** 2) / 2)
    variance = (weight * (np.clip(x, 0, 1) - 0.5) ** 2).sum() / weight.sum()
    assert values.var() == pytest.approx(variance, abs=0.002)
    flat = odin_uniform(200, np.random.RandomState(0))
    counts = np.bincount(flat.ravel(), minlength=256) / flat.size * 255
    assert flat.dtype == np.uint8 and counts[1:-1] == pytest.approx(np.ones(254), abs=0.1)
    assert counts[[0, -1]] == pytest.approx([0.5, 0.5], abs=0.1)


def test_odins_noise_is_normalised_like_images(here):
    few, more = open_dataset("odin_uniform@5", "test", here), open_dataset("odin_uniform@9", "test", here)
    assert not few.raw and few.images.dtype == torch.uint8
    assert torch.equal(few.images, more.images[:5])
    assert len(open_dataset("odin_gaussian@7", "test", here)) == 7
