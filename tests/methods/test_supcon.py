"""SupCon against the official function's numbers, a loop, and its edges."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from farout.errors import ConfigError, FaroutError
from farout.methods import Batch, CrossEntropy
from farout.methods.supcon import SupCon, supcon_loss

CASE = json.loads((Path(__file__).parents[1] / "vectors" / "vectors_jem_cider.json").read_text())["cider"][
    "supcon_loss"
]
LABELS = torch.tensor(CASE["labels"])


def views() -> Tensor:
    """The vector's 8x4 features, first views first."""
    i, j = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(4, dtype=torch.float64)
    return F.normalize(torch.sin(1.1 * (i + 1) + 0.8 * (j + 1) * (i + 1) + 0.25 * j), dim=1)


def by_definition(features: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Equation 2 anchor by anchor, without the official factor; anchors without a positive left out."""
    terms = []
    for i in range(len(features)):
        others = [j for j in range(len(features)) if j != i]
        positives = [j for j in others if labels[j] == labels[i]]
        if positives:
            denominator = sum(torch.exp(features[i] @ features[j] / temperature) for j in others)
            logs = [torch.log(torch.exp(features[i] @ features[j] / temperature) / denominator) for j in positives]
            terms.append(-sum(logs) / len(logs))
    return sum(terms) / len(terms)


class Given(nn.Module):
    """A network whose images are the embeddings already."""

    def embed(self, images: Tensor) -> Tensor:
        return images


@pytest.mark.parametrize("form", ["views in rows", "labels repeated", "views in a dimension", "method"])
def test_matches_the_official_function(form):
    rows = views().requires_grad_()
    if form == "views in rows":
        loss = supcon_loss(rows, LABELS, CASE["temperature"], CASE["base_temperature"])
    elif form == "labels repeated":
        loss = supcon_loss(rows, LABELS.repeat(2), CASE["temperature"])
    elif form == "views in a dimension":
        loss = supcon_loss(torch.stack([rows[:4], rows[4:]], dim=1), LABELS, CASE["temperature"])
    else:
        losses = SupCon(CASE["temperature"], CASE["base_temperature"]).loss(
            Given(), {"labelled": Batch(rows, LABELS.repeat(2))}
        )
        assert list(losses) == ["total"]
        loss = losses["total"]
    loss.backward()
    assert loss.item() == pytest.approx(CASE["loss_float64"], rel=1e-9)
    expected = torch.tensor(CASE["grad_wrt_features_[sample][view][dim]"], dtype=torch.float64)
    assert torch.allclose(torch.stack([rows.grad[:4], rows.grad[4:]], dim=1), expected, rtol=1e-9, atol=1e-12)


def test_equals_the_definition_with_anchors_that_have_no_positive():
    generator = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(9, 5, generator=generator, dtype=torch.float64), dim=1)
    labels = torch.tensor([0, 1, 1, 2, 0, 0, 3, 1, 4])
    ours, other = features.clone().requires_grad_(), features.clone().requires_grad_()
    loss, expected = supcon_loss(ours, labels, 0.3, 0.3), by_definition(other, labels, 0.3)
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert torch.allclose(ours.grad, other.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_without_any_positive_the_loss_is_zero(count):
    features = F.normalize(torch.randn(count, 4), dim=1).requires_grad_()
    loss = supcon_loss(features, torch.arange(count), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(features.grad, torch.zeros(count, 4))


def test_stable_and_in_full_precision():
    features = F.normalize(torch.randn(16, 8, generator=torch.manual_seed(0)), dim=1)
    features[8:] = -features[:8]
    sharp = features.clone().requires_grad_()
    loss = supcon_loss(sharp, torch.arange(8), 1e-3)
    loss.backward()
    assert loss.isfinite() and sharp.grad.isfinite().all()
    half = features.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = supcon_loss(half, torch.arange(8), 0.1)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(supcon_loss(half.double(), torch.arange(8), 0.1).item(), rel=1e-5)


def test_wrong_shapes_and_settings_are_named():
    for features, labels in ((views(), LABELS[:3]), (views()[None], LABELS), (views(), LABELS[None])):
        with pytest.raises(FaroutError, match="do not fit"):
            supcon_loss(features, labels, 0.1)
    with pytest.raises(ConfigError, match="temperature=0 must be positive"):
        SupCon(0.0, 0.07)
    with pytest.raises(ConfigError, match="projection head"):
        SupCon(0.1, 0.07).loss(nn.Identity(), {"labelled": Batch(views(), LABELS.repeat(2))})
    assert list(SupCon(0.1, 0.07).parameters()) == list(CrossEntropy().parameters()) == []
