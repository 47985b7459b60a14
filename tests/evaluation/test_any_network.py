"""Which layer makes the logits of a network that nobody here made, and what it is given."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from farout.backbones.any_network import AnyNetwork, find_head
from farout.errors import FaroutError
from farout.evaluation.classifier import Classifier, ClassifierNote

IMAGES = torch.randn(5, 3, 24, 24, generator=torch.Generator().manual_seed(1))


class Ended(nn.Module):
    """A network with something after it."""

    def __init__(self, net: nn.Module, end: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.net, self.end = net, end

    def forward(self, images: torch.Tensor) -> object:
        return self.end(self.net(images))


def test_the_layer_called_last_is_found_and_its_input_are_the_features(net: nn.Module) -> None:
    net.train()
    assert find_head(net, IMAGES) == ("out", True)
    assert net.training and net.drop.training, "the model is as it was"
    network = AnyNetwork(net, "out")
    with torch.no_grad():
        features = network.features(IMAGES)
        assert torch.equal(network.classify(features), net.eval()(IMAGES)), "dropout is off"
        assert torch.equal(features, net.middle(net.stem(IMAGES).flatten(1)).relu())
    assert (network.num_classes, network.feature_dim, network.head.weight.shape) == (4, 12, (4, 12))


def test_the_given_model_is_left_alone(net: nn.Module) -> None:
    net.train()
    ready = Classifier(net, device="cpu").ready(IMAGES)
    assert net.training and all(part.requires_grad for part in net.parameters())
    assert not any(part.requires_grad for part in ready.network.parameters())
    before = ready.network.features(IMAGES)
    with torch.no_grad():
        net.middle.bias += 1
    assert torch.equal(ready.network.features(IMAGES), before)
    with torch.no_grad():
        net.middle.bias -= 1


def test_what_is_wrapped_around_a_model_is_left_away(net: nn.Module) -> None:
    for wrapped in (nn.DataParallel(net), torch.compile(net)):
        assert Classifier(wrapped, device="cpu").ready(IMAGES).network.head_path == "out"


@pytest.mark.parametrize(
    "end", [lambda x: {"logits": x}, lambda x: (x, 1), lambda x: [x]], ids=["dict", "tuple", "list"]
)
def test_logits_are_taken_out_of_what_a_model_returns(net: nn.Module, end: Callable) -> None:
    assert find_head(Ended(net, end).eval(), IMAGES) == ("net.out", True)


def test_a_softmax_after_the_logits_is_left_away_and_said(net: nn.Module) -> None:
    with pytest.warns(ClassifierNote, match=r"does more after its last linear layer net\.out"):
        ready = Classifier(Ended(net, lambda x: x.softmax(1)), device="cpu").ready(IMAGES)
    assert torch.equal(ready.network(IMAGES), net.eval()(IMAGES))


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (lambda x: -x, "largest output is not that of its last linear layer net.out"),
        (lambda x: x[:, :2], r"returns \(5, 2\), its last linear layer net.out \(5, 4\)"),
        (lambda x: "cat", "returns str"),
    ],
)
def test_other_ends_are_refused(net: nn.Module, end: Callable, said: str) -> None:
    with pytest.raises(FaroutError, match=said):
        find_head(Ended(net, end), IMAGES)


def test_a_named_head_and_wrong_names(net: nn.Module) -> None:
    with pytest.raises(FaroutError, match=r"head=stem .* middle \(96 -> 12\)"):
        Classifier(net, head="stem").ready(IMAGES)
    with pytest.raises(FaroutError, match=r"returns \(5, 4\), its last linear layer middle \(5, 12\)"):
        find_head(net, IMAGES, "middle")
    with pytest.raises(FaroutError, match="num_classes=10, but out makes 4 logits"):
        Classifier(net, num_classes=10).ready(IMAGES)
    with pytest.raises(FaroutError, match="2 names of classes are given, but out makes 4"):
        Classifier(net, classes=["cat", "dog"]).ready(IMAGES)
    with pytest.raises(FaroutError, match="no linear layer makes the logits of Conv2d"):
        find_head(nn.Conv2d(3, 4, 3), IMAGES)
    with pytest.raises(FaroutError, match=r"does not take input of shape \(5, 3, 24, 24\)"):
        find_head(nn.Linear(7, 3), IMAGES)
    with pytest.raises(FaroutError, match=r"does not take input of shape \(5, 3, 24, 24\): Wrong image height! .*32"):
        find_head(VisionTransformer(32, 8, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8), IMAGES)
    tokens = nn.Sequential(nn.Flatten(2), nn.Linear(576, 4))
    with pytest.raises(FaroutError, match="not one vector an image"):
        find_head(tokens, IMAGES)


def test_half_precision_weights_become_float32(net: nn.Module) -> None:
    network = AnyNetwork(Ended(net, lambda x: x).half(), "net.out")
    net.float()
    assert {part.dtype for part in network.parameters()} == {torch.float32}
