import json
from pathlib import Path

import numpy as np
import pytest

from farout.data import open_dataset
from farout.data.synthetic import blobs, gaussian, noise, rademacher

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
