"""JEM's transform: what it draws, and that a test image's noise is its own."""

import numpy as np
import pytest
import torch
from scipy import stats

from farout.data.noisy import NoisyTransform, own_noise
from farout.data.transform import mirrored_index, random_crop_flip
from farout.errors import ConfigError


def transform(**changes: object) -> NoisyTransform:
    settings = {"flip": True, "crop_padding": 4, "noise_std": 0.03, "test_noise": True, **changes}
    return NoisyTransform([0.5] * 3, [0.5] * 3, **settings)  # type: ignore[arg-type]


def pictures(n: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_mirrored_crops_are_those_of_numpy_s_reflection() -> None:
    images = pictures(64)
    generator = torch.Generator().manual_seed(5)
    cropped = random_crop_flip(images, 4, False, generator, reflect=True)
    generator.manual_seed(5)
    offsets = torch.randint(0, 9, (2, 64, 1), generator=generator)[..., 0].tolist()
    for i, (top, left) in enumerate(zip(*offsets, strict=True)):
        padded = np.pad(images[i].numpy(), ((0, 0), (4, 4), (4, 4)), mode="reflect")
        np.testing.assert_array_equal(cropped[i].numpy(), padded[:, top : top + 32, left : left + 32])


def test_mirrored_index_at_both_edges() -> None:
    assert mirrored_index(torch.tensor([-3, -1, 0, 4, 5, 7]), 5).tolist() == [3, 1, 0, 4, 3, 1]


def test_training_noise_has_its_deviation_and_follows_the_generator() -> None:
    images = pictures(64)
    quiet = transform(noise_std=0.0).augmented(images, torch.Generator().manual_seed(2))
    noisy = transform().augmented(images, torch.Generator().manual_seed(2))
    assert torch.equal(noisy, transform().augmented(images, torch.Generator().manual_seed(2)))
    assert stats.kstest((noisy - quiet).flatten().numpy() / 0.03, "norm").pvalue > 1e-3


def test_test_noise_is_normal_and_independent_from_image_to_image() -> None:
    flat = own_noise(transform(test_noise=False)(pictures(64))).flatten(1)
    assert stats.kstest(flat.flatten().numpy(), "norm").pvalue > 1e-3
    between = np.corrcoef(flat.numpy())[~np.eye(64, dtype=bool)]
    assert abs(between).max() < 6 / np.sqrt(flat.shape[1])
    neighbours = (flat[:, 1:] * flat[:, :-1]).mean() * np.sqrt(flat[:, 1:].numel())
    assert abs(float(neighbours)) < 5


def test_almost_equal_images_have_unrelated_noise() -> None:
    image = torch.zeros(1, 3, 32, 32)
    other = image.clone()
    other[0, 2, 31, 31] = 1 / 127.5
    both = own_noise(torch.cat([image, other])).flatten(1).numpy()
    assert abs(np.corrcoef(both)[0, 1]) < 6 / np.sqrt(both.shape[1])


def test_a_test_image_looks_the_same_in_any_batch() -> None:
    make, images = transform(), pictures()
    together = make(images)
    assert torch.equal(together, torch.cat([make(images[:5]), make(images[5:])]))
    assert torch.equal(together.flip(0), make(images.flip(0)))
    assert torch.equal(make(images.contiguous(memory_format=torch.channels_last)), together)


def test_test_noise_can_be_left_out_and_spares_raw_images() -> None:
    images = pictures()
    assert torch.equal(transform(test_noise=False)(images), transform(noise_std=0.0)(images))
    raw = torch.randn(4, 3, 32, 32)
    assert torch.equal(transform()(raw, raw=True), raw)


def test_negative_noise_is_refused() -> None:
    with pytest.raises(ConfigError, match="noise_std=-1"):
        transform(noise_std=-1.0)
