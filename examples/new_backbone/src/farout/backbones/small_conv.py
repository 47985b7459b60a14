# src/farout/backbones/small_conv.py
"""Three convolutions: for problems that a ResNet would be too much for."""

from itertools import pairwise

from torch import Tensor, nn

from farout.backbones.base import Backbone


class SmallConv(Backbone):
    """(B, 3, H, W) -> features (B, 4 * width) -> logits (B, num_classes)."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__(num_classes, feature_dim=4 * width)
        sides = [3, width, 2 * width, 4 * width]
        blocks = [
            nn.Sequential(nn.Conv2d(i, o, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
            for i, o in pairwise(sides)
        ]
        self.trunk = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(self.feature_dim, num_classes)  # head_name says "fc"

    def _features(self, images: Tensor) -> Tensor:
        return self.trunk(images)
