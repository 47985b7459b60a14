"""Random views of contrastive training, made on the device from whole batches: crop, flip, colour jitter, grayscale."""

from collections.abc import Sequence
from dataclasses import InitVar, dataclass

import torch
from torch import Tensor

from farout.data.colour import apply_jitter, grayscale_, random_jitter
from farout.data.crop import crop_and_resize, random_crop_boxes
from farout.data.draws import Draws
from farout.data.transform import Transform
from farout.errors import ConfigError
from farout.kernels import runs_triton

# Values that are worked on at a time: on a CPU what its caches hold, elsewhere what memory may hold several times.
CHUNK_ON_CPU, CHUNK_ELSEWHERE = 2**18, 2**26


@dataclass(eq=False, repr=False)
class ViewTransform(Transform):
    """uint8 images -> `views` random views of each; at test time the normalisation alone.

    Each view is drawn as torchvision's RandomResizedCrop, RandomHorizontalFlip, RandomApply([ColorJitter]) and
    RandomGrayscale draw theirs, with parameters per image, and computed with torchvision's formulas for tensors over
    [0, 1]: in float32, without the rounding to whole grey levels after each step that Pillow images undergo.

    Args:
        mean, std: per channel, over [0, 1].
        views: how many of each image; training gets all first views, then all second ones, and so on.
        size: side of the views in pixels; None: the images' own height and width.
        crop_scale: share of the image's area that a crop may have, from and to.
        crop_ratio: width over height of a crop, from and to.
        flip: mirror with probability one half.
        jitter: the most that brightness, contrast, saturation and hue (in turns) change.
        jitter_probability: of an image to be jittered at all.
        grayscale_probability: of an image to lose its colour.

    Raises:
        ConfigError: a value that means nothing.
    """

    mean: InitVar[Sequence[float]]
    std: InitVar[Sequence[float]]
    views: int
    size: int | None
    crop_scale: tuple[float, float]
    crop_ratio: tuple[float, float]
    flip: bool
    jitter: tuple[float, float, float, float]
    jitter_probability: float
    grayscale_probability: float

    def __post_init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(mean, std, flip=self.flip, crop_padding=0)
        if self.views < 1 or (self.size is not None and self.size < 1):
            raise ConfigError(f"transform.views={self.views} and transform.size={self.size} must be at least 1")
        given = list(self.crop_scale)
        self.crop_scale, self.crop_ratio = _range("crop_scale", given), _range("crop_ratio", self.crop_ratio)
        if self.crop_scale[1] > 1:
            raise ConfigError(f"transform.crop_scale={given} must not exceed 1, the whole image")
        self.jitter = _amounts(self.jitter)
        self.jitter_probability = _probability("jitter_probability", self.jitter_probability)
        self.grayscale_probability = _probability("grayscale_probability", self.grayscale_probability)

    def augmented(
        self, images: Tensor, generator: torch.Generator, outliers: bool = False, cropped: bool = False
    ) -> Tensor:
        """Training input (views * B, 3, *size) of images (B, 3, H, W): all first views, then all second ones.

        Everything random comes from `generator` (on the images' device); nothing waits for the device. Outliers are
        treated as ID images are. `cropped` images (views * B, 3, *size) are such views already, of pictures that were
        cropped where they were decoded.
        """
        height, width = images.shape[2:]
        n = len(images) if cropped else self.views * len(images)
        draws = self.draw(n, height, width, generator, images.device, cropped)
        size = (height, width) if self.size is None or cropped else (self.size, self.size)
        if runs_triton(images.device):
            from farout.data.views_kernel import fits, make_views  # Triton is not everywhere

            if fits(images, size):
                statistics = torch.cat(self._statistics(images.device)).view(2, 3)
                return make_views(images, n, draws, size, statistics)
        return self.assembled(images.repeat(n // len(images), 1, 1, 1), draws, size)

    def assembled(self, images: Tensor, draws: Draws, size: tuple[int, int]) -> Tensor:
        """The normalised views (n, 3, *size) that `draws` say of images (n, 3, H, W), some of them at a time."""
        n, channels, height, width = images.shape
        result = torch.empty(n, channels, *size, device=images.device)
        budget = CHUNK_ON_CPU if images.device.type == "cpu" else CHUNK_ELSEWHERE
        step = max(1, budget // (channels * max(height * width, size[0] * size[1])))
        for start in range(0, n, step):
            part = slice(start, start + step)
            result[part] = self(self.changed(images[part], draws[part], size))
        return result

    def draw(
        self, n: int, height: int, width: int, generator: torch.Generator, device: torch.device, cropped: bool = False
    ) -> Draws:
        """Draw the crops, flips and colours of n views of images of this height and width."""
        boxes = None
        if not cropped:
            boxes = random_crop_boxes(n, height, width, self.crop_scale, self.crop_ratio, generator, device)
        mirrored = torch.rand(n, device=device, generator=generator) < 0.5 if self.flip else None
        jitter = grey = None
        if self.jitter_probability > 0 and max(self.jitter) > 0:
            jitter = random_jitter(n, self.jitter, self.jitter_probability, generator, device)
        if self.grayscale_probability > 0:
            grey = torch.rand(n, device=device, generator=generator) < self.grayscale_probability
        return Draws(boxes, mirrored, jitter, grey)

    @staticmethod
    def changed(images: Tensor, draws: Draws, size: tuple[int, int]) -> Tensor:
        """The views that `draws` say, over [0, 1] and not yet normalised: (n, 3, H, W) -> (n, 3, *size) float32."""
        pixels = images.to(torch.float32).div_(255) if images.dtype == torch.uint8 else images.float()
        if draws.boxes is not None:
            pixels = crop_and_resize(pixels, draws.boxes, size, draws.mirrored)
        elif draws.mirrored is not None:
            pixels = torch.where(draws.mirrored.view(-1, 1, 1, 1), pixels.flip(3), pixels)
        if draws.jitter is not None:
            pixels = apply_jitter(pixels, draws.jitter)
        return pixels if draws.grey is None else grayscale_(pixels, draws.grey)


def _range(name: str, values: Sequence[float]) -> tuple[float, float]:
    if len(values) != 2 or not 0 < values[0] <= values[1]:
        raise ConfigError(f"transform.{name}={list(values)} must be two values above 0, the smaller first")
    return values[0], values[1]


def _amounts(values: Sequence[float]) -> tuple[float, float, float, float]:
    if len(values) != 4 or min(values) < 0 or values[3] > 0.5:
        raise ConfigError(
            f"transform.jitter={list(values)} must be brightness, contrast, saturation and hue: "
            "four values of at least 0, hue at most 0.5"
        )
    brightness, contrast, saturation, hue = values
    return brightness, contrast, saturation, hue


def _probability(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ConfigError(f"transform.{name}={value:g} must be in [0, 1]")
    return value
