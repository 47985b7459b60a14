"""ResNets with a projection head: the networks of CIDER (Ming et al., ICLR 2023) and SupCon, and a thin relative.

Losses see `embed`, unit vectors on a sphere; KNN and Mahalanobis scores see `features`, the encoder's output, as the
papers have it. The linear classifier is there because every network here has one: the official training never touches
it, so logits mean nothing until it has been fitted (a linear probe).
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from farout.backbones.base import Backbone
from farout.backbones.cifar_resnet import CifarResNet
from farout.backbones.resnet import ResNet

Projection = Literal["mlp", "linear"]


def projection_head(dim: int, projection_dim: int, projection: Projection) -> nn.Module:
    """Features (B, dim) -> (B, projection_dim): linear, or linear, ReLU, linear with `dim` hidden units (mlp).

    The layers keep PyTorch's initialisation, as in the official code.
    """
    last = nn.Linear(dim, projection_dim)
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), last) if projection == "mlp" else last


class Projected(Backbone):
    """A network whose features also become points on a sphere; subclasses give it a `projection`."""

    added_heads = ("projection",)
    projection: nn.Module

    def project(self, features: Tensor) -> Tensor:
        """Unit vectors (B, projection_dim) of features (B, D), in full precision."""
        with torch.autocast(features.device.type, enabled=False):
            return F.normalize(self.projection(features), dim=1)

    def embed(self, images: Tensor) -> Tensor:
        """Unit vectors (B, projection_dim) of images (B, 3, H, W)."""
        return self.project(self.features(images))


class ProjectedResNet(Projected, ResNet):
    """Encoder -> features (B, 8 width) -> projection -> unit vectors (B, projection_dim).

    Args:
        blocks, num_classes, width: as of `ResNet`.
        projection_dim: dimension of the sphere's space (128 in CIDER).
        projection: "mlp" (linear, ReLU, linear, as wide as the features) or "linear".
    """

    foreign_names: ClassVar[dict[str, str]] = {
        "backbone.fc.": "linear.",  # OpenOOD's CIDER
        "backbone.": "",
        "encoder.": "",
        "head.": "projection.",
        "fc.": "linear.",
    }

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        num_classes: int,
        width: int = 64,
        projection_dim: int = 128,
        projection: Projection = "mlp",
    ) -> None:
        super().__init__(blocks, num_classes, width)
        self.projection = projection_head(self.feature_dim, projection_dim, projection)


class ProjectedResNet18(ProjectedResNet):
    """CIDER's network for CIFAR-10: 11,502,282 parameters with the unused classifier of 10 classes."""

    def __init__(
        self, num_classes: int, width: int = 64, projection_dim: int = 128, projection: Projection = "mlp"
    ) -> None:
        super().__init__((2, 2, 2, 2), num_classes, width, projection_dim, projection)


class ProjectedResNet34(ProjectedResNet):
    """CIDER's network for CIFAR-100: 21,656,612 parameters with the unused classifier of 100 classes."""

    def __init__(
        self, num_classes: int, width: int = 64, projection_dim: int = 128, projection: Projection = "mlp"
    ) -> None:
        super().__init__((3, 4, 6, 3), num_classes, width, projection_dim, projection)


class ProjectedCifarResNet(Projected, CifarResNet):
    """A CIFAR ResNet with the head: for networks trained as classifiers, which CIDER then goes on with.

    ResNet-20: 282,202 parameters with the classifier of 10 classes. Arguments as of `CifarResNet` and
    `ProjectedResNet`; raises ConfigError as the former.
    """

    def __init__(
        self,
        depth: int,
        num_classes: int,
        width: int = 16,
        projection_dim: int = 128,
        projection: Projection = "mlp",
    ) -> None:
        super().__init__(depth, num_classes, width)
        self.projection = projection_head(self.feature_dim, projection_dim, projection)
