"""JEM's interpolated images."""

import numpy as np
import torch

from farout.data.image_set import ImageSet
from farout.data.synthetic import interpolation


def made(monkeypatch, noise_std):
    images = np.random.default_rng(1).integers(0, 256, (400, 3, 8, 8), dtype=np.uint8)
    source = ImageSet("base", "test", torch.from_numpy(images), None, (), False, {"sha256": "0" * 64})
    monkeypatch.setattr("farout.data.synthetic.open_dataset", lambda *_: source)
    return images, interpolation("test", None, "base", noise_std)


def test_every_image_is_the_mean_of_two_others_of_the_base(monkeypatch):
    images, decoded = made(monkeypatch, 0.0)
    assert decoded.images.shape == (300, 3, 8, 8)
    assert decoded.images.dtype == np.uint8
    order = np.random.default_rng(0).permutation(400)
    first, second = images[order[:300]].astype(float), images[order[100:]].astype(float)
    assert np.abs(decoded.images - (first + second) / 2).max() <= 0.5
    assert (order[:300] != order[100:]).all()


def test_the_noise_is_what_the_network_s_own_transform_leaves_to_add(monkeypatch):
    """1.5 sigma^2 in all on [-1, 1], of which the transform adds sigma^2."""
    _, clean = made(monkeypatch, 0.0)
    _, noisy = made(monkeypatch, 0.03)
    inner = (clean.images > 20) & (clean.images < 235)  # away from the clip
    grey = (noisy.images.astype(float) - clean.images)[inner]
    rounding = 2 / 12  # of both
    assert abs(grey.var() - rounding - 0.03**2 / 2 * 127.5**2) < 0.15
