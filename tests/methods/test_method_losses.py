"""Losses against the official codes' numbers, and the joint forward pass."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from farout.errors import ConfigError
from farout.methods import Batch, CrossEntropy, EnergyFineTuning, Method, OutlierExposure
from farout.methods.energy import energy_margin_loss, free_energy
from farout.methods.outlier_exposure import uniform_cross_entropy

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "vectors_energy_oe.json").read_text())["losses"]
OE_VARIANTS = ("oe_repo_oe_tune", "oe_repo_oe_scratch", "energy_repo_OE")
CASES = [(case, variant) for case in VECTORS for variant in (*OE_VARIANTS, "energy_repo_energy")]
NAMES = [f"{case['name']}-{variant}" for case, variant in CASES]


class GivenLogits(nn.Module):
    """A network whose images are the logits already."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


def given(case: dict) -> tuple[torch.Tensor, torch.Tensor, int]:
    logits = torch.tensor(case["input"]["logits"], dtype=torch.float64, requires_grad=True)
    return logits, torch.tensor(case["input"]["target"]), case["input"]["n_in"]


def assert_matches(loss: torch.Tensor, logits: torch.Tensor, expected: dict) -> None:
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-9)
    # Expected values are rounded to 12 digits.
    assert logits.grad[0].tolist() == pytest.approx(expected["grad_row0"], rel=1e-9, abs=1e-15)
    assert logits.grad[-1].tolist() == pytest.approx(expected["grad_last_row"], rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(("case", "variant"), CASES, ids=NAMES)
def test_public_losses(case, variant):
    logits, target, n = given(case)
    loss = F.cross_entropy(logits[:n], target)
    if variant == "energy_repo_energy":
        loss = loss + 0.1 * energy_margin_loss(logits[:n], logits[n:], case["input"]["m_in"], case["input"]["m_out"])
    else:
        loss = loss + 0.5 * uniform_cross_entropy(logits[n:])
    assert_matches(loss, logits, case["expect"][variant])


@pytest.mark.parametrize(("case", "variant"), CASES, ids=NAMES)
def test_methods_total(case, variant):
    logits, target, n = given(case)
    if variant != "energy_repo_energy":
        method: Method = OutlierExposure(oe_weight=0.5)
    elif case["name"] == "hinge_inactive":  # its margins are not ones that a run would be allowed
        method = EnergyFineTuning(-25, -7, 0.1, 1.0)
        method.m_in, method.m_out = case["input"]["m_in"], case["input"]["m_out"]
    else:
        method = EnergyFineTuning(case["input"]["m_in"], case["input"]["m_out"], 0.1, 1.0)
    losses = method.loss(GivenLogits(), {"labelled": Batch(logits[:n], target), "outliers": Batch(logits[n:])})
    assert_matches(losses["total"], logits, case["expect"][variant])


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
def test_cross_entropy_ignores_outliers(case):
    logits, target, n = given(case)
    losses = CrossEntropy().loss(GivenLogits(), {"labelled": Batch(logits[:n], target)})
    assert losses["total"].item() == pytest.approx(case["expect"]["cross_entropy_only"], rel=1e-9)
    assert list(losses) == ["total"]


def test_logged_parts_make_up_the_total():
    logits, target, n = given(VECTORS[0])
    method = EnergyFineTuning(-3, -1, 0.1, 1.0)
    losses = method.loss(GivenLogits(), {"labelled": Batch(logits[:n], target), "outliers": Batch(logits[n:])})
    assert losses["total"].item() == pytest.approx((losses["cross_entropy"] + 0.1 * losses["energy_margin"]).item())
    assert losses["energy_id"].item() == pytest.approx(free_energy(logits[:n]).mean().item())
    assert losses["energy_outliers"].item() == pytest.approx(free_energy(logits[n:]).mean().item())


def test_temperature_scales_the_energy():
    logits = torch.randn(5, 4, dtype=torch.float64)
    expected = -2.5 * torch.log(torch.exp(logits / 2.5).sum(1))
    assert torch.allclose(free_energy(logits, 2.5), expected)
    assert energy_margin_loss(logits, logits, -3, -1, 2.5) == pytest.approx(
        ((expected + 3).clamp(min=0) ** 2).mean().item() + ((-1 - expected).clamp(min=0) ** 2).mean().item()
    )


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"m_in": 25.0}, "m_in=25 has the wrong sign"),
        ({"m_out": 7.0}, "m_out=7 has the wrong sign"),
        ({"m_in": -5.0}, "m_in=-5 must lie below m_out=-7"),
        ({"m_in": -7.0}, "must lie below"),
        ({"energy_weight": -0.1}, "energy_weight=-0.1 is negative"),
        ({"temperature": 0.0}, "temperature=0 must be positive"),
    ],
)
def test_energy_refuses(knobs, message):
    with pytest.raises(ConfigError, match=message):
        EnergyFineTuning(**{"m_in": -25.0, "m_out": -7.0, "energy_weight": 0.1, "temperature": 1.0, **knobs})


def test_oe_refuses_a_negative_weight():
    with pytest.raises(ConfigError, match="oe_weight=-1 is negative"):
        OutlierExposure(-1.0)


def test_unlabelled_batches_have_no_targets():
    with pytest.raises(ValueError, match="no labels"):
        _ = Batch(torch.zeros(1, 3)).targets


@pytest.mark.parametrize("method", [OutlierExposure(0.5), EnergyFineTuning(-25, -7, 0.1, 1.0)], ids=["oe", "energy"])
def test_batch_norm_statistics_are_those_of_one_joint_pass(method):
    def network() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 4))

    inside, outside = torch.randn(8, 6) + 1, 3 * torch.randn(16, 6) - 2
    labelled, outliers = Batch(inside, torch.arange(8) % 4), Batch(outside)
    used, joint, separate = network(), network(), network()
    method.loss(used, {"labelled": labelled, "outliers": outliers})
    joint(torch.cat([inside, outside]))
    separate(inside)
    separate(outside)
    for name in ("running_mean", "running_var"):
        assert torch.equal(getattr(used[0], name), getattr(joint[0], name))
        assert not torch.allclose(getattr(used[0], name), getattr(separate[0], name))
    assert used[0].num_batches_tracked == 1
