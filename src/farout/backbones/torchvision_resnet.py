"""torchvision's ResNet-18, -34 and -50 (He et al., 2016) as they are: 7x7 stem of stride 2 and max-pooling.

For images of ImageNet's size; modules, their order and their initialisation are torchvision's own, so its files load.
"""

from collections.abc import Callable
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor
from torchvision.models import ResNet, resnet18, resnet34, resnet50

from farout.backbones.base import Backbone
from farout.errors import ConfigError


class TorchvisionResNet(Backbone):
    """images (B, 3, H, W) -> features (B, 512; of ResNet-50 2048), averaged over the last map -> logits (B, C).

    Args:
        depth: 18, 34 or 50.
        num_classes: C.

    Raises ConfigError for another depth.
    """

    # torchvision's own names, or an encoder and a classifier beside each other
    foreign_names: ClassVar[dict[str, str]] = {"encoder.": "", "backbone.": "", "classifier.": "fc.", "linear.": "fc."}
    networks: ClassVar[dict[int, Callable[..., ResNet]]] = {18: resnet18, 34: resnet34, 50: resnet50}

    def __init__(self, depth: int, num_classes: int) -> None:
        if depth not in self.networks:
            raise ConfigError(f"depth={depth} is not here: choose from {', '.join(map(str, self.networks))}")
        network = self.networks[depth](num_classes=max(1, num_classes))
        super().__init__(num_classes, network.fc.in_features)
        self.conv1, self.bn1 = network.conv1, network.bn1
        self.layer1, self.layer2 = network.layer1, network.layer2
        self.layer3, self.layer4 = network.layer3, network.layer4
        self.fc = network.fc

    def _features(self, images: Tensor) -> Tensor:
        maps = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, stride=2, padding=1)
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        return F.adaptive_avg_pool2d(maps, 1).flatten(1)
