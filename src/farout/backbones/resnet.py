"""Post-activation ResNet-18 and ResNet-34 (He et al., 2016) for small images: 3x3 stem, no max-pooling."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from farout.backbones.base import Backbone, init_fan_out


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; a 1x1 convolution with batch norm as shortcut where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            projection = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(Backbone):
    """`blocks` counts the residual blocks of the four stages; the first stage is `width` channels wide."""

    head_name = "linear"
    foreign_names: ClassVar[dict[str, str]] = {
        "encoder.": "",  # CIDER's code: encoder and classifier
        "backbone.": "",  # solo-learn
        "classifier.": "linear.",
        "fc.": "linear.",
        "conv1.0.": "conv1.",  # weiaicunzai/pytorch-cifar100
        "conv1.1.": "bn1.",
        **{f"conv{i + 1}_x.": f"layer{i}." for i in (1, 2, 3, 4)},
    }
    foreign_parts: ClassVar[dict[str, str]] = {
        ".downsample.": ".shortcut.",  # torchvision, its stem changed for CIFAR
        ".residual_function.0.": ".conv1.",
        ".residual_function.1.": ".bn1.",
        ".residual_function.3.": ".conv2.",
        ".residual_function.4.": ".bn2.",
    }

    def __init__(self, blocks: tuple[int, int, int, int], num_classes: int, width: int = 64) -> None:
        super().__init__(num_classes, 8 * width)
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._stage(blocks[0], width, width, 1)
        self.layer2 = self._stage(blocks[1], width, 2 * width, 2)
        self.layer3 = self._stage(blocks[2], 2 * width, 4 * width, 2)
        self.layer4 = self._stage(blocks[3], 4 * width, 8 * width, 2)
        self.linear = nn.Linear(8 * width, num_classes)
        init_fan_out(self)

    @staticmethod
    def _stage(blocks: int, in_channels: int, channels: int, stride: int) -> nn.Sequential:
        first = ResidualBlock(in_channels, channels, stride)
        return nn.Sequential(first, *(ResidualBlock(channels, channels, 1) for _ in range(blocks - 1)))

    def _features(self, images: Tensor) -> Tensor:
        maps = F.relu(self.bn1(self.conv1(images)))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        return F.adaptive_avg_pool2d(maps, 1).flatten(1)


class ResNet18(ResNet):
    """ResNet-18 for small images: 11,173,962 parameters for 10 classes at the default width."""

    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__((2, 2, 2, 2), num_classes, width)


class ResNet34(ResNet):
    """ResNet-34 for small images: 21,282,122 parameters for 10 classes at the default width."""

    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__((3, 4, 6, 3), num_classes, width)
