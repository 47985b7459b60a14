"""The thin 6n+2 ResNets of He et al. (2016), section 4.2, with parameter-free (option A) shortcuts.

Modules are named as in akamaster/pytorch_resnet_cifar10, whose trained weights load as they are.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from farout.backbones.base import Backbone, init_fan_out
from farout.errors import ConfigError


class PlainShortcutBlock(nn.Module):
    """Two 3x3 convolutions; where the shape changes, the shortcut subsamples and adds zero channels."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.extra_channels = channels - in_channels

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.extra_channels == 0:
            return x
        before = self.extra_channels // 2
        after = self.extra_channels - before
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, after))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self._shortcut(x))


class CifarResNet(Backbone):
    """ResNet-depth with stages of `width`, 2 `width` and 4 `width` channels (ResNet-20: 269,722 parameters).

    Raises ConfigError unless depth is 6n + 2.
    """

    head_name = "linear"

    def __init__(self, depth: int, num_classes: int, width: int = 16) -> None:
        if depth < 8 or (depth - 2) % 6:
            raise ConfigError(f"depth={depth} is no CIFAR ResNet: use 6n + 2, such as 20, 32, 44 or 56")
        super().__init__(num_classes, 4 * width)
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._stage(blocks, width, width, 1)
        self.layer2 = self._stage(blocks, width, 2 * width, 2)
        self.layer3 = self._stage(blocks, 2 * width, 4 * width, 2)
        self.linear = nn.Linear(4 * width, num_classes)
        init_fan_out(self)

    @staticmethod
    def _stage(blocks: int, in_channels: int, channels: int, stride: int) -> nn.Sequential:
        first = PlainShortcutBlock(in_channels, channels, stride)
        return nn.Sequential(first, *(PlainShortcutBlock(channels, channels, 1) for _ in range(blocks - 1)))

    def _features(self, images: Tensor) -> Tensor:
        maps = F.relu(self.bn1(self.conv1(images)))
        maps = self.layer3(self.layer2(self.layer1(maps)))
        return F.adaptive_avg_pool2d(maps, 1).flatten(1)
