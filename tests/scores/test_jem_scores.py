"""JEM's three scores and their AUROC against the official evaluation's."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from farout.metrics import detection_metrics
from farout.scores import Outputs
from farout.scores.energy import Energy
from farout.scores.msp import MSP
from farout.scores.px_grad import PxGrad

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/vectors_jem_cider.json").read_text())["jem"]
KNOWN = VECTORS["ood_auroc"]
ONE = torch.ones(3)


def tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Tiny:
    """The vectors' network: (N, 1, 2, 2) -> 5 features -> 3 logits."""

    def features(self, images: Tensor) -> Tensor:
        net = VECTORS["tiny_net"]
        hidden = images.flatten(1) @ tensor(net["hidden_weight"]).T + tensor(net["hidden_bias"])
        return F.leaky_relu(hidden, 0.2)

    def classify(self, features: Tensor) -> Tensor:
        net = VECTORS["tiny_net"]
        return features @ tensor(net["class_weight"]).T + tensor(net["class_bias"])


def images(which: str) -> Tensor:
    k = torch.arange(1, 49, dtype=torch.float64)
    return (torch.cos(0.9 * k) if which == "real" else 1.5 * torch.sin(0.31 * k)).view(12, 1, 2, 2)


def scores(name: str, which: str) -> Tensor:
    net, x = Tiny(), images(which)
    if name == "pxgrad":
        return PxGrad().on_images(net, x, ONE)
    outputs = Outputs(net.classify(net.features(x)), net.features(x))
    return Energy(1.0)(outputs) if name == "px" else MSP()(outputs)


@pytest.mark.parametrize("name", ["px", "py", "pxgrad"])
def test_scores_and_auroc_are_the_official_ones(name: str) -> None:
    real, fake = scores(name, "real"), scores(name, "fake")
    for values, which in ((real, "real"), (fake, "fake")):
        torch.testing.assert_close(values[:3].double(), tensor(KNOWN[name][f"{which}_first3"]), rtol=2e-7, atol=0)
    assert detection_metrics(real, fake)["auroc"] == pytest.approx(KNOWN[name]["auroc"], rel=1e-9)


def test_approximate_mass_of_the_recorded_images() -> None:
    known = VECTORS["energies"]
    ours = PxGrad().on_images(Tiny(), tensor(known["x"]), ONE)
    torch.testing.assert_close(ours, tensor(known["pxgrad_score=-||grad||_2"]), rtol=1e-9, atol=0)
