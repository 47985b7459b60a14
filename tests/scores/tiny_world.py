"""A tiny network in float64, images of it, and what one forward pass leaves."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from farout.scores import Fitting, Head, Outputs

STD = torch.tensor([63.0, 62.1, 66.7], dtype=torch.float64) / 255
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


class TinyNet(nn.Module):
    """3 x 8 x 8 images -> 12 features -> 5 logits, in float64: no gradient's sign hangs on rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2), nn.ReLU())
        self.fc = nn.Linear(12, 5)
        self.double().eval()

    def features(self, images: Tensor) -> Tensor:
        return self.trunk(images).mean((2, 3))

    def classify(self, features: Tensor) -> Tensor:
        return self.fc(features)

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.features(images))


@dataclass(frozen=True)
class World:
    """A network, what scores may be fitted on, and test images with their outputs."""

    network: TinyNet
    fitting: Fitting
    images: Tensor
    outputs: Outputs

    @property
    def train(self) -> Outputs:
        assert self.fitting.train is not None
        return self.fitting.train


def observed(network: TinyNet, images: Tensor, labels: Tensor | None = None) -> Outputs:
    """As an evaluation makes them: in inference mode."""
    with torch.inference_mode():
        features = network.features(images)
        return Outputs(network.classify(features), features, labels)


def make_world(device: str) -> World:
    """330 training and 41 test images."""
    torch.manual_seed(0)
    network = TinyNet().to(device)
    labels = torch.randint(5, (330,))
    train = torch.randn(330, 3, 8, 8, dtype=torch.float64) + labels.view(-1, 1, 1, 1) / 4
    images = 1.3 * torch.randn(41, 3, 8, 8, dtype=torch.float64).to(device)
    fitting = Fitting(Head(network.fc.weight, network.fc.bias), observed(network, train.to(device), labels.to(device)))
    return World(network, fitting, images, observed(network, images))


def unlabelled(features: Tensor, head: Head | None = None) -> Outputs:
    """Outputs with these features, and the head's logits or zeros."""
    with torch.no_grad():
        return Outputs(features.new_zeros(len(features), 2) if head is None else head(features), features)


def fitting_on(features: Tensor, labels: Tensor | None = None) -> Fitting:
    """A fitting without a head worth the name."""
    head = Head(features.new_zeros(2, features.shape[1]), features.new_zeros(2))
    return Fitting(head, Outputs(features.new_zeros(len(features), 2), features, labels))
