"""Wide ResNet without any normalisation, the energy-based classifier of JEM (Grathwohl et al., ICLR 2020).

Batch statistics would make the energy of one image depend on the others of its batch, so there are none. Apart from
that it differs from `wide_resnet` in what its authors chose: biases in every convolution, leaky ReLU, the stride in a
block's second convolution, and shortcuts that start from the raw input. Modules are named and registered as in
wgrathwohl/JEM, so that its weights load.
"""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from farout.backbones.base import Backbone, window_average
from farout.errors import ConfigError

SLOPE = 0.2  # of leaky ReLU below zero


class PlainWideBlock(nn.Module):
    """Leaky ReLU, conv, leaky ReLU, conv (with the stride), plus the shortcut from the raw input."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H / stride, W / stride)."""
        out = self.conv1(F.leaky_relu(x, SLOPE))
        return self.conv2(F.leaky_relu(out, SLOPE)) + self.shortcut(x)


class PlainWideResNet(Backbone):
    """WRN-depth-widen_factor without normalisation; WRN-28-10 has 36,471,338 parameters for 10 classes.

    Nothing in it is random or depends on the batch: training and evaluation mode compute the same. Every layer keeps
    PyTorch's default initialisation.

    Args:
        depth: 6n + 4 with n blocks in each of the three stages.
        widen_factor: the stages have 16, 32 and 64 times as many channels.
        num_classes: C, the number of logits.
        pool: side of the fixed window of the last average pooling (8 for 32x32 images, 4 behind a stem of stride 2).
        stem_stride: of the first convolution; 2 quarters the work of all others, for CPUs (the paper's network: 1).

    Raises ConfigError for a depth that does not exist; FaroutError at the first batch if the window does not fit.
    """

    foreign_names: ClassVar[dict[str, str]] = {"f.": "", "class_output.": "fc."}
    foreign_unused: ClassVar[tuple[str, ...]] = ("f.linear.", "energy_output.")

    def __init__(self, depth: int, widen_factor: int, num_classes: int, pool: int = 8, stem_stride: int = 1) -> None:
        if depth < 10 or (depth - 4) % 6:
            raise ConfigError(f"depth={depth} is no Wide ResNet: use 6n + 4, such as 10, 16, 28 or 40")
        blocks = (depth - 4) // 6
        widths = [16 * widen_factor, 32 * widen_factor, 64 * widen_factor]
        super().__init__(num_classes, widths[2])
        self.pool = pool
        self.conv1 = nn.Conv2d(3, 16, 3, stem_stride, padding=1)
        self.layer1 = self._stage(blocks, 16, widths[0], 1)
        self.layer2 = self._stage(blocks, widths[0], widths[1], 2)
        self.layer3 = self._stage(blocks, widths[1], widths[2], 2)
        self.fc = nn.Linear(widths[2], num_classes)

    @staticmethod
    def _stage(blocks: int, in_channels: int, channels: int, stride: int) -> nn.Sequential:
        first = PlainWideBlock(in_channels, channels, stride)
        return nn.Sequential(first, *(PlainWideBlock(channels, channels, 1) for _ in range(blocks - 1)))

    def _features(self, images: Tensor) -> Tensor:
        maps = self.layer3(self.layer2(self.layer1(self.conv1(images))))
        return window_average(F.leaky_relu(maps, SLOPE), self.pool)
