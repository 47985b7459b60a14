"""AllConv (after Springenberg et al., 2015), the second network of Outlier Exposure.

Modules are numbered as in hendrycks/outlier-exposure; its weights load with `features` read as `layers`.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from farout.backbones.base import Backbone, init_fan_out, window_average
from farout.errors import ConfigError

_VARIANTS = ("cifar", "tiny_imagenet")


class SigmoidGELU(nn.Module):
    """x * sigmoid(1.702 x), the logistic approximation of GELU (Hendrycks and Gimpel, 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        """Element-wise; the shape stays."""
        return x * torch.sigmoid(1.702 * x)


class AllConv(Backbone):
    """Nine convolutions, each with bias, batch norm and activation (1,409,674 parameters for 10 classes).

    The two 1x1 convolutions pad by 1, so a 32x32 image ends in a 10x10 map; its top-left 8x8 is averaged.

    Args:
        num_classes: C, the number of logits.
        variant: "cifar" for 32x32 images; "tiny_imagenet" for 64x64, with ReLU and four 8x8 windows averaged.
    """

    head_name = "classifier"
    foreign_names: ClassVar[dict[str, str]] = {"features.": "layers."}

    def __init__(self, num_classes: int, variant: str = "cifar") -> None:
        if variant not in _VARIANTS:
            raise ConfigError(f"variant={variant!r} is not an AllConv; choose one of {', '.join(_VARIANTS)}")
        super().__init__(num_classes, 192)
        self.variant = variant
        layers: list[nn.Module] = []
        for in_channels, channels, kernel, padding in (
            (3, 96, 3, 1), (96, 96, 3, 1), (96, 96, 3, 1),
            (96, 192, 3, 1), (192, 192, 3, 1), (192, 192, 3, 1),
            (192, 192, 3, 0), (192, 192, 1, 1), (192, 192, 1, 1),
        ):  # fmt: skip
            activation = SigmoidGELU() if variant == "cifar" else nn.ReLU()
            convolution = nn.Conv2d(in_channels, channels, kernel, padding=padding)
            layers += [convolution, nn.BatchNorm2d(channels), activation]
            if len(layers) in (9, 20):  # the ends of the first two groups of three
                layers += [nn.MaxPool2d(2), nn.Dropout(0.5)]
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(192, num_classes)
        init_fan_out(self)

    def _features(self, images: Tensor) -> Tensor:
        maps = self.layers(images)
        if self.variant == "tiny_imagenet":
            maps = F.avg_pool2d(maps, 8)
            return window_average(maps, 2)
        return window_average(maps, 8)
