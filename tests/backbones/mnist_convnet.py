"""The small MNIST network of hendrycks/outlier-exposure (its MNIST folder)."""

import torch.nn.functional as F
from torch import Tensor, nn

from farout.backbones.allconv import SigmoidGELU
from farout.backbones.base import Backbone


class MnistConvNet(Backbone):
    """Two 5x5 convolutions and two linear layers for images (B, 1, 28, 28); 21,840 parameters for 10 classes.

    Every layer keeps PyTorch's default initialisation.
    """

    head_name = "fc2"

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes, 50)
        self.conv1 = nn.Conv2d(1, 10, 5)
        self.conv2 = nn.Conv2d(10, 20, 5)
        self.drop = nn.Dropout2d(0.5)
        self.activation = SigmoidGELU()
        self.fc1 = nn.Linear(320, 50)
        self.fc2 = nn.Linear(50, num_classes)

    def _features(self, images: Tensor) -> Tensor:
        maps = self.activation(F.max_pool2d(self.conv1(images), 2))
        maps = self.activation(F.max_pool2d(self.drop(self.conv2(maps)), 2))
        return self.activation(self.fc1(maps.flatten(1)))
