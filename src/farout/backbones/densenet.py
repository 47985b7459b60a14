"""DenseNet-BC (Huang et al., CVPR 2017), the network of ODIN: every layer sees the maps of all layers before it.

Modules are named and registered as in facebookresearch/odin (code/densenet.py), whose trained weights load as they are.

A layer appends 12 channels to hundreds; written plainly, most time and memory goes into copies of those hundreds. So
there are three ways to the same maps: training keeps what autograd needs; gradients of a network in evaluation mode
(ODIN's step on the image) keep what each layer appends and compute the rest again; and evaluation on a CPU fills one
array in place. Both of the latter take a few images at a time there. Against the plain way, on one thread of a busy AMD
EPYC CPU with 128 images (best of 2, 2026-11-26, commit 09c51309b1): 48 against 19 images a second of CPU time, and 66
against 823 MiB.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from farout.backbones.base import Backbone, init_fan_out, window_average
from farout.errors import ConfigError

BOTTLENECK = 4  # a layer's 1x1 convolution has four times as many channels as the layer adds
CPU_IMAGES = 16  # at a time: what a block holds of them stays near the processor


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 1x1 conv, batch norm, ReLU, 3x3 conv: what one layer adds to the maps before it."""

    def __init__(self, in_channels: int, growth_rate: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, BOTTLENECK * growth_rate, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(BOTTLENECK * growth_rate)
        self.conv2 = nn.Conv2d(BOTTLENECK * growth_rate, growth_rate, 3, padding=1, bias=False)

    def forward(self, *maps: Tensor) -> Tensor:
        """Maps (B, C_i, H, W) with C channels together -> (B, growth_rate, H, W)."""
        out = self.conv1(F.relu(self.bn1(torch.cat(maps, 1))))
        return self.conv2(F.relu(self.bn2(out)))

    def added(self, rows: Tensor, height: int, width: int) -> Tensor:
        """The same of pixels (B * H * W, C), in evaluation mode: -> (B * H * W, growth_rate)."""
        scale, shift = _affine(self.bn2)  # of a linear map's outputs, so its weights can carry it
        weight = self.conv1.weight.flatten(1) * scale[:, None]
        out = torch.addmm(shift, _normalised(self.bn1, rows), weight.t()).relu_()
        return _rows(self.conv2(_maps(out, height, width)))


class DenseBlock(nn.Module):
    """Layers that each append `growth_rate` channels."""

    def __init__(self, layers: int, in_channels: int, growth_rate: int) -> None:
        super().__init__()
        self.growth_rate = growth_rate
        self.layer = nn.Sequential(*(DenseLayer(in_channels + i * growth_rate, growth_rate) for i in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C + layers * growth_rate, H, W)."""
        maps = [x]
        for layer in self.layer:
            if self.training:
                maps.append(layer(*maps))
            else:  # nothing in it is random or counts batches, so it may be computed twice
                maps.append(checkpoint(layer, *maps, use_reentrant=False, preserve_rng_state=False))
        return torch.cat(maps, 1)

    def in_place(self, x: Tensor) -> Tensor:
        """The same in evaluation mode and without gradients: one array that the layers fill."""
        count, channels, height, width = x.shape
        rows = x.new_empty(count * height * width, channels + len(self.layer) * self.growth_rate)
        rows[:, :channels] = _rows(x)
        for layer in self.layer:
            after = channels + self.growth_rate
            rows[:, channels:after] = layer.added(rows[:, :channels], height, width)  # type: ignore[operator]
            channels = after
        return _maps(rows, height, width)


class Transition(nn.Module):
    """Batch norm, ReLU, 1x1 conv and 2x2 average pooling, which is done first: both are linear, and it leaves less."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H / 2, W / 2)."""
        return self.conv1(F.avg_pool2d(F.relu(self.bn1(x)), 2))


class DenseNet(Backbone):
    """DenseNet-BC-depth with three blocks; depth 100 and growth rate 12 have 769,162 parameters for 10 classes.

    Args:
        depth: 6n + 4 with n layers in each block.
        growth_rate: the channels that a layer adds.
        num_classes: C, the number of logits.
        compression: share of a block's channels that the transition after it keeps.
        pool: side of the fixed window of the last average pooling (8 for 32x32 images).

    Raises ConfigError for a depth, growth rate or compression that does not exist; FaroutError at the first batch if
    the window does not fit the last map.
    """

    def __init__(self, depth: int, growth_rate: int, num_classes: int, compression: float = 0.5, pool: int = 8) -> None:
        if depth < 10 or (depth - 4) % 6:
            raise ConfigError(f"depth={depth} is no DenseNet-BC: use 6n + 4, such as 40, 100 or 190")
        if growth_rate < 1 or not 0 < compression <= 1:
            raise ConfigError(f"growth_rate={growth_rate}, compression={compression:g}: use at least 1, and 0.5 to 1")
        layers, first = (depth - 4) // 6, 2 * growth_rate
        wide1 = first + layers * growth_rate
        wide2 = int(wide1 * compression) + layers * growth_rate
        wide3 = int(wide2 * compression) + layers * growth_rate
        super().__init__(num_classes, wide3)
        self.pool = pool
        self.conv1 = nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.block1 = DenseBlock(layers, first, growth_rate)
        self.trans1 = Transition(wide1, int(wide1 * compression))
        self.block2 = DenseBlock(layers, int(wide1 * compression), growth_rate)
        self.trans2 = Transition(wide2, int(wide2 * compression))
        self.block3 = DenseBlock(layers, int(wide2 * compression), growth_rate)
        self.bn1 = nn.BatchNorm2d(wide3)
        self.fc = nn.Linear(wide3, num_classes)
        init_fan_out(self)

    def _features(self, images: Tensor) -> Tensor:
        if self.training or images.device.type != "cpu":
            return self._layer_by_layer(images)
        in_place = not torch.is_grad_enabled() and self.autocast_dtype is None
        way = self._in_place if in_place else self._layer_by_layer
        return torch.cat([way(part) for part in images.split(CPU_IMAGES)])

    def _layer_by_layer(self, images: Tensor) -> Tensor:
        maps = self.trans1(self.block1(self.conv1(images)))
        return self._pooled(self.block3(self.trans2(self.block2(maps))))

    def _in_place(self, images: Tensor) -> Tensor:
        maps = self.conv1(images.contiguous(memory_format=torch.channels_last))
        maps = self.trans1(self.block1.in_place(maps))
        return self._pooled(self.block3.in_place(self.trans2(self.block2.in_place(maps))))

    def _pooled(self, maps: Tensor) -> Tensor:
        return window_average(F.relu(self.bn1(maps)), self.pool)


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What batch norm multiplies by and adds in evaluation mode, each (C,)."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale


def _normalised(norm: nn.BatchNorm2d, rows: Tensor) -> Tensor:
    """Batch norm in evaluation mode and ReLU of pixels (N, C)."""
    scale, shift = _affine(norm)
    return torch.addcmul(shift, rows, scale).relu_()


def _rows(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B * H * W, C); no copy of maps in channels_last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _maps(rows: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `_rows`, in channels_last."""
    return rows.view(-1, height, width, rows.shape[1]).permute(0, 3, 1, 2)
