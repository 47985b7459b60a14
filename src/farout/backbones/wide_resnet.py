"""Pre-activation Wide ResNet (Zagoruyko and Komodakis, 2016) as Outlier Exposure and Energy train it.

Modules are named and registered as in hendrycks/outlier-exposure and wetliu/energy_ood, so their weights
load as they are.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from farout.backbones.base import Backbone, init_fan_out, window_average
from farout.errors import ConfigError


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)


class WideBlock(nn.Module):
    """Batch norm, ReLU, conv, batch norm, ReLU, dropout, conv, plus the shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = _conv(in_channels, channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3)
        self.convShortcut = None if in_channels == channels else _conv(in_channels, channels, 1, stride)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H / stride, W / stride)."""
        activated = F.relu(self.bn1(x))
        out = F.relu(self.bn2(self.conv1(activated)))
        out = F.dropout(out, self.dropout, self.training)
        # Where the width changes, both branches start from the activated input; elsewhere x itself is added.
        shortcut = x if self.convShortcut is None else self.convShortcut(activated)
        return shortcut + self.conv2(out)


class WideGroup(nn.Module):
    """A group of blocks of one width; the first one may halve the resolution."""

    def __init__(self, blocks: int, in_channels: int, channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        first = WideBlock(in_channels, channels, stride, dropout)
        rest = [WideBlock(channels, channels, 1, dropout) for _ in range(blocks - 1)]
        self.layer = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H / stride, W / stride)."""
        return self.layer(x)


class WideResNet(Backbone):
    """WRN-depth-widen_factor; WRN-40-2 has 2,243,546 parameters for 10 classes.

    Args:
        depth: 6n + 4 with n blocks in each of the three groups.
        widen_factor: the groups have 16, 32 and 64 times as many channels.
        num_classes: C, the number of logits.
        dropout: probability of the element-wise dropout inside each block (0.3 for CIFAR, 0.4 for SVHN).
        norm: the normalisation; "batch" is the only one there is.
        pool: side of the fixed window of the last average pooling (8 for 32x32 images, 16 for 64x64).

    Raises ConfigError for a depth or norm that does not exist; FaroutError at the first batch if the window
    does not fit the last map.
    """

    def __init__(
        self,
        depth: int,
        widen_factor: int,
        num_classes: int,
        dropout: float = 0.0,
        norm: str = "batch",
        pool: int = 8,
    ) -> None:
        if depth < 10 or (depth - 4) % 6:
            raise ConfigError(f"depth={depth} is no Wide ResNet: use 6n + 4, such as 10, 16, 28 or 40")
        if norm != "batch":
            raise ConfigError(f"norm={norm!r} is no normalisation of WideResNet; the one it has is batch")
        blocks = (depth - 4) // 6
        widths = [16 * widen_factor, 32 * widen_factor, 64 * widen_factor]
        super().__init__(num_classes, widths[2])
        self.pool = pool
        self.conv1 = _conv(3, 16, 3)
        self.block1 = WideGroup(blocks, 16, widths[0], 1, dropout)
        self.block2 = WideGroup(blocks, widths[0], widths[1], 2, dropout)
        self.block3 = WideGroup(blocks, widths[1], widths[2], 2, dropout)
        self.bn1 = nn.BatchNorm2d(widths[2])
        self.fc = nn.Linear(widths[2], num_classes)
        init_fan_out(self)

    def _features(self, images: Tensor) -> Tensor:
        maps = self.block3(self.block2(self.block1(self.conv1(images))))
        return window_average(F.relu(self.bn1(maps)), self.pool)
