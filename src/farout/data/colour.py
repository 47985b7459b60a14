"""Colour jitter and grayscale of a whole batch: every image its own factors and its own order of operations.

Brightness, contrast and saturation are one formula, factor * image + (1 - factor) * reference, with black, the image's
mean grey, or the grey of each pixel as reference. So one call blends a batch in which each image wants another of them,
and a factor of 1 changes nothing. Hue is the fourth operation and the dear one. It is computed once: an image whose
order has it after k of its blends does these k before that, and the other 3 - k behind it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
LUMA = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue


@dataclass(frozen=True)
class Jitter:
    """Colour jitter of n images.

    Attributes:
        factors: (n, 3) of brightness, contrast and saturation; 1 leaves an image as it is.
        hue: (n,) in turns of the colour circle; 0 leaves an image as it is.
        order: (n, 4) which operation comes first, second, third and last (0 to 3 as the constants above).
    """

    factors: Tensor
    hue: Tensor
    order: Tensor

    def __getitem__(self, images: slice) -> "Jitter":
        """The jitter of some of the images."""
        return Jitter(self.factors[images], self.hue[images], self.order[images])


def random_jitter(
    n: int,
    amounts: tuple[float, float, float, float],
    probability: float,
    generator: torch.Generator,
    device: torch.device,
) -> Jitter:
    """Draw as torchvision's ColorJitter(*amounts) inside RandomApply(p=probability) does, for n images.

    Factors are uniform about 1 (never below 0), the hue is uniform in [-amount, amount], all 24 orders are equally
    likely; an image that is not jittered gets factors of 1 and a hue of 0.
    """
    applied = torch.rand(n, device=device, generator=generator) < probability
    factors = torch.empty(3, n, device=device)
    for row, amount in zip(factors, amounts[:3], strict=True):
        row.uniform_(max(0.0, 1 - amount), 1 + amount, generator=generator)
    hue = torch.empty(n, device=device).uniform_(-amounts[3], amounts[3], generator=generator)
    order = torch.rand(n, 4, device=device, generator=generator).argsort(dim=1)
    return Jitter(torch.where(applied, factors, 1.0).t(), torch.where(applied, hue, 0.0), order)


def apply_jitter(images: Tensor, jitter: Jitter) -> Tensor:
    """Images (n, 3, H, W) over [0, 1], jittered; works on `images` in place and may return another tensor."""
    turn = (jitter.order == HUE).to(torch.uint8).argmax(dim=1, keepdim=True)  # (n, 1): blends before the hue
    position = torch.arange(3, device=images.device).expand(len(images), 3)
    early = position < turn
    kinds = jitter.order.gather(1, torch.where(early, position, position + 1))  # the order without the hue
    factors = jitter.factors.gather(1, kinds)
    before, after = torch.where(early, factors, 1.0), torch.where(early, 1.0, factors)
    for i in range(3):
        blend_(images, before[:, i], kinds[:, i])
    images = shift_hue(images, jitter.hue)
    for i in range(3):
        blend_(images, after[:, i], kinds[:, i])
    return images


def grey(images: Tensor) -> Tensor:
    """Luma (n, 1, H, W) of RGB images (n, 3, H, W)."""
    luma = images[:, 0:1] * LUMA[0]
    return luma.add_(images[:, 1:2], alpha=LUMA[1]).add_(images[:, 2:3], alpha=LUMA[2])


def blend_(images: Tensor, factors: Tensor, kinds: Tensor) -> Tensor:
    """Change brightness, contrast or saturation, in place: `factors` (n,) and `kinds` (n,) say how much and which."""
    factors, kinds = factors.view(-1, 1, 1, 1), kinds.view(-1, 1, 1, 1)
    luma, rest = grey(images), 1 - factors
    offset = luma.mean(dim=(2, 3), keepdim=True).mul_(rest * (kinds == CONTRAST))
    offset = torch.addcmul(offset, luma, rest * (kinds == SATURATION))
    return torch.addcmul(offset, images, factors, out=images).clamp_(0, 1)


def grayscale_(images: Tensor, chosen: Tensor) -> Tensor:
    """Make the `chosen` (n,) images grey, in place: their saturation becomes 0."""
    return blend_(images, torch.where(chosen, 0.0, 1.0), torch.full_like(chosen, SATURATION, dtype=torch.long))


def shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn every colour by `turns` (n,) of the circle at its own saturation and value; a new tensor (n, 3, H, W).

    Over the turned hue, in sixths of the circle, a channel is a trapezium: with chroma c = max - min, green and blue
    are min + c * ramp about 2 and 4, red, highest at 0, is max - c * ramp about 3, where ramp(d) = 2 - |d| cut to
    [0, 1]. This is the way through HSV and back without its six cases.
    """
    red, green, blue = images.unbind(dim=1)
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = high - low
    from_green, from_blue = (blue - red).add_(chroma, alpha=2), (red - green).add_(chroma, alpha=4)
    hue = torch.where(high == red, green - blue, torch.where(high == green, from_green, from_blue))
    hue.div_(chroma.clamp(min=1e-30)).add_(turns.view(-1, 1, 1), alpha=6).remainder_(6)
    shifted = torch.empty_like(images)
    for channel, (base, sign, centre) in enumerate(((high, -1, 3), (low, 1, 2), (low, 1, 4))):
        ramp = (hue - centre).abs_().neg_().add_(2).clamp_(0, 1)
        torch.addcmul(base, chroma, ramp, value=sign, out=shifted[:, channel])
    return torch.where(turns.view(-1, 1, 1, 1) == 0, images, shifted)  # no turn: exactly as it was
