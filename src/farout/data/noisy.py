"""JEM's transform: crops over mirrored borders, and Gaussian noise on every image, at test time as well."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from farout.data.transform import Transform, random_crop_flip
from farout.errors import ConfigError


class NoisyTransform(Transform):
    """`Transform` with a mirrored border and noise N(0, noise_std^2) on the normalised image (wgrathwohl/JEM).

    Training draws its noise anew at every sight of an image. The official evaluation adds it to test images too, from
    an unseeded stream; here the noise of a test image follows from its pixels, so that a score is a function of the
    image, whatever its place, the batch and the device. `raw` images, which are no pictures, stay as they are.

    Args:
        noise_std: in units of the normalised image ([-1, 1] for JEM, 0.03 in the paper's runs).
        test_noise: whether test images get it.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        flip: bool,
        crop_padding: int,
        noise_std: float,
        test_noise: bool,
    ) -> None:
        super().__init__(mean, std, flip, crop_padding)
        if not 0 <= noise_std < math.inf:
            raise ConfigError(f"transform.noise_std={noise_std:g} must not be negative, the paper has 0.03")
        self.noise_std, self.test_noise = noise_std, test_noise

    def __call__(self, images: Tensor, raw: bool = False) -> Tensor:
        clean = super().__call__(images, raw)
        if raw or not self.test_noise or self.noise_std == 0:
            return clean
        return clean + self.noise_std * own_noise(clean)

    def augmented(self, images: Tensor, generator: torch.Generator, outliers: bool = False) -> Tensor:
        cropped = random_crop_flip(images, self.crop_padding, self.flip, generator, reflect=True)
        clean = super().__call__(cropped)
        if self.noise_std == 0:
            return clean
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        return clean.add_(noise, alpha=self.noise_std)


def own_noise(images: Tensor) -> Tensor:
    """Standard normal noise (B, C, H, W) that each image determines alone: the same in any batch, on any device.

    The pixels are hashed to a key; a counter mixed with the key (Steele, Lea and Flood's SplitMix64, 2014) gives two
    uniform numbers for each value, and Box and Muller's formula (1958) makes them normal.
    """
    flat = images.flatten(1)
    place = torch.arange(1, flat.shape[1] + 1, device=flat.device)
    pixels = (flat.double() * 2**20).round().long()
    key = _mix(pixels + _GOLDEN * place).sum(1, keepdim=True)
    radius = (-2 * _uniform(key, 2 * place).log()).sqrt()
    normal = radius * (2 * math.pi * _uniform(key, 2 * place + 1)).cos()
    return normal.view(images.shape).to(images.dtype)


def _signed(word: int) -> int:
    """A 64-bit word as torch's signed integers hold it."""
    return word - 2**64 if word >= 2**63 else word


_GOLDEN = _signed(0x9E3779B97F4A7C15)


def _mix(words: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64, whose overflow wraps: every bit of the input reaches every bit."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        words = (words ^ _shifted(words, shift)) * _signed(factor)
    return words ^ _shifted(words, 31)


def _shifted(words: Tensor, bits: int) -> Tensor:
    """Logical shift to the right (torch's own copies the sign)."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def _uniform(key: Tensor, counter: Tensor) -> Tensor:
    """(B, n) float64 in (0, 1) from keys (B, 1) and counters (n,)."""
    words = _shifted(_mix(key + _GOLDEN * counter), 11)
    return (words.double() + 0.5) * 2.0**-53
