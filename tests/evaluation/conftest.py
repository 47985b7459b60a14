"""A small network that nobody here made, its images, and its outputs."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchvision.transforms import v2

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


class Net(nn.Module):
    """The head is neither registered last nor called fc; a second linear layer comes before it."""

    def __init__(self, end: nn.Module | None = None) -> None:
        super().__init__()
        self.out = nn.Linear(12, 4)
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(4))
        self.middle = nn.Linear(96, 12)
        self.drop = nn.Dropout(0.5)
        self.end = end or nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.end(self.out(self.drop(self.middle(self.stem(images).flatten(1)).relu())))


@pytest.fixture(scope="session")
def net() -> Net:
    torch.manual_seed(3)
    return Net()


@pytest.fixture(scope="session")
def transform() -> v2.Transform:
    """Pictures -> the network's input, as torchvision's users write it."""
    parts = [v2.Resize(24), v2.CenterCrop(24), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    return v2.Compose([*parts, v2.Normalize(MEAN, STD)])


@pytest.fixture(scope="session")
def photos() -> np.ndarray:
    """uint8 (50, 30, 28, 3)."""
    return np.random.default_rng(5).integers(0, 256, (50, 30, 28, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def labelled() -> TensorDataset:
    """The network's input (80, 3, 24, 24), and labels."""
    generator = torch.Generator().manual_seed(7)
    return TensorDataset(torch.randn(80, 3, 24, 24, generator=generator), torch.arange(80) % 4)
