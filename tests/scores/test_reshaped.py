"""ReAct, ASH, SCALE and DICE: energies of changed features or weights, against pytorch-ood and by hand."""

import numpy as np
import pytest
import torch
from pytorch_ood.detector import ASH as PeerASH
from pytorch_ood.detector import DICE as PeerDICE
from pytorch_ood.detector import SCALE as PeerSCALE
from pytorch_ood.detector import ReAct as PeerReAct
from tiny_world import fitting_on, unlabelled
from torch import Tensor

from farout.errors import ConfigError, FaroutError
from farout.scores import Fitting, Head, Outputs, Score
from farout.scores.ash import ASH
from farout.scores.dice import DICE
from farout.scores.react import ReAct
from farout.scores.scale import SCALE

GENERATOR = torch.Generator().manual_seed(0)
HEAD = Head(torch.randn(7, 33, generator=GENERATOR), torch.randn(7, generator=GENERATOR))
TRAIN = torch.randn(200, 33, generator=GENERATOR).relu()
TEST = 2 * torch.randn(50, 33, generator=GENERATOR).relu()
FITTING = Fitting(HEAD, unlabelled(TRAIN, HEAD))


def scored(score: Score, features: Tensor = TEST) -> Tensor:
    score.fit(FITTING)
    return score(unlabelled(features, HEAD))


def as_maps(features: Tensor) -> Tensor:
    """(N, D) -> (N, D, 1, 1): how pytorch-ood takes pooled features."""
    return features[:, :, None, None]


def on_maps(maps: Tensor) -> Tensor:
    """Its head: pooling, then the last layer."""
    return HEAD(maps.mean((2, 3)))


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(-ours.float(), theirs.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("percentile", [90, 50, 0])
def test_react_of_pytorch_ood(percentile: float) -> None:
    peer = PeerReAct(as_maps, on_maps, percentile=percentile / 100).fit_feature_maps(as_maps(TRAIN), torch.zeros(200))
    score = ReAct(percentile)
    close(scored(score), peer.predict_feature_maps(as_maps(TEST)))
    assert score.facts()["threshold"] == pytest.approx(peer.threshold, rel=1e-6)


def test_react_by_hand() -> None:
    score = ReAct(50)
    score.fit(Fitting(Head(torch.eye(2), torch.zeros(2)), Outputs(torch.zeros(2, 2), torch.tensor([[0.0, 1], [3, 7]]))))
    assert score.facts() == {"percentile": 50, "threshold": 2.0}  # between 1 and 3
    found = score(unlabelled(torch.tensor([[5.0, 1.0], [-4.0, 2.0]])))
    assert found.tolist() == pytest.approx([np.logaddexp(2, 1), np.logaddexp(-4, 2)], rel=1e-6)


@pytest.mark.parametrize("percentile", [90, 65, 0])
@pytest.mark.parametrize("variant", ["s", "b", "p"])
def test_ash_of_pytorch_ood(variant: str, percentile: float) -> None:
    """Where it is given pooled features as maps of one pixel, and the same percentage (its default is 65)."""
    peer = PeerASH(as_maps, on_maps, variant=f"ash-{variant}", percentile=percentile / 100)
    close(scored(ASH(variant, percentile)), peer.predict_feature_maps(as_maps(TEST)))  # type: ignore[arg-type]


def test_ash_before_pooling_is_another_score() -> None:
    """pytorch-ood's own example shapes the maps before they are pooled: the largest pixels, not the largest units."""
    maps = torch.randn(20, 33, 4, 4, generator=GENERATOR).relu()
    before = -PeerASH(as_maps, on_maps, percentile=0.9).predict_feature_maps(maps).double()
    after = scored(ASH(), maps.mean((2, 3)))
    assert (before - after).abs().min() > 0.01


def test_ash_by_hand() -> None:
    row = torch.tensor([[4.0, 0.0, 3.0, 1.0]])
    assert ASH("p", 50).shape(row).tolist() == [[4, 0, 3, 0]]
    assert ASH("b", 50).shape(row).tolist() == [[4, 0, 4, 0]]
    factor = np.exp(8 / 7)
    assert ASH("s", 50).shape(row)[0].tolist() == pytest.approx([4 * factor, 0, 3 * factor, 0], rel=1e-12)


def test_ash_of_features_that_are_all_zero_is_the_energy_of_the_bias() -> None:
    """The official code (and pytorch-ood) divides 0 by 0."""
    zeros = torch.zeros(1, 33)
    for variant in ("s", "b", "p"):
        found = scored(ASH(variant), zeros)  # type: ignore[arg-type]
        torch.testing.assert_close(found, HEAD.bias.double().logsumexp(0, keepdim=True))
    assert PeerASH(as_maps, on_maps, percentile=0.9).predict_feature_maps(as_maps(zeros)).isnan().all()


def test_ash_stays_finite_and_tells_images_apart_where_float32_would_not() -> None:
    features = torch.rand(5, 1000, generator=GENERATOR) * 0.01 + 1  # S1 / S2 is near 1000
    score = ASH("s", 99.5)
    score.fit(Fitting(Head(torch.rand(3, 1000, generator=GENERATOR), torch.zeros(3))))
    found = score(unlabelled(features))
    assert found.isfinite().all() and len(found.unique()) == 5 and found.min() > 1e38


@pytest.mark.parametrize("percentile", [85, 65, 0])
def test_scale_of_pytorch_ood(percentile: float) -> None:
    peer = PeerSCALE(as_maps, on_maps, percentile=percentile / 100)
    close(scored(SCALE(percentile)), peer.predict_feature_maps(as_maps(TEST)))


def test_scale_by_hand() -> None:
    row = torch.tensor([[4.0, 0.0, 3.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    assert SCALE(50).shape(row)[0].tolist() == pytest.approx([x * np.exp(8 / 7) for x in (4, 0, 3, 1)], rel=1e-12)
    assert SCALE(99).shape(row)[0].tolist() == pytest.approx([x * np.exp(8 / 4) for x in (4, 0, 3, 1)], rel=1e-12)
    assert SCALE(50).shape(row)[1].tolist() == [0, 0, 0, 0]  # the official code divides 0 by 0


@pytest.mark.parametrize("p", [90, 40, 0])
def test_dice_of_pytorch_ood(p: float) -> None:
    peer = PeerDICE(None, HEAD.weight, HEAD.bias, p=p / 100).fit_features(TRAIN, torch.zeros(200))
    close(scored(DICE(p)), peer.predict_features(TEST))


def test_dice_by_hand() -> None:
    """Contributions are [[2, -2], [6, 4]] and their median 3: two weights stay."""
    head = Head(torch.tensor([[1.0, -0.5], [3.0, 1.0]]), torch.tensor([0.5, 0.0]))
    score = DICE(50)
    score.fit(Fitting(head, unlabelled(torch.tensor([[1.0, 8.0], [3.0, 0.0]]), head)))
    found = score(unlabelled(torch.tensor([[1.0, 2.0]])))
    assert found.item() == pytest.approx(np.logaddexp(0.5, 3 + 2), rel=1e-6)
    assert score.facts() == {"p": 50, "weights_kept": 2}


def test_dice_drops_the_least_contribution_even_at_0_as_the_official_code_does() -> None:
    score = DICE(0)
    score.fit(FITTING)
    assert score.facts()["weights_kept"] == HEAD.weight.numel() - 1


def test_names_facts_and_errors() -> None:
    assert [ReAct(95).name, ASH("b").name, ASH("s", 65).name, DICE(70).name, SCALE(90).name] == [
        "react_p95",
        "ash_b_p90",
        "ash_s_p65",
        "dice_p70",
        "scale_p90",
    ]
    assert SCALE().needs == ("head",) and SCALE(90).facts() == {"percentile": 90}
    assert ASH().needs == ("head",) and ASH("b", 65).facts() == {"variant": "b", "percentile": 65}
    for make in (ReAct, DICE, SCALE, lambda value: ASH("s", value)):
        for value in (-0.1, 100):
            with pytest.raises(ConfigError, match="not a percentage"):
                make(value)
    for score in (ReAct(), ASH(), SCALE(), DICE()):
        with pytest.raises(FaroutError, match=f"score {score.name} is not fitted"):
            score(unlabelled(TEST))
    for score in (ReAct(), DICE()):
        with pytest.raises(FaroutError, match="training outputs"):
            score.fit(Fitting(HEAD))
        with pytest.raises(FaroutError, match="training outputs"):
            score.fit(fitting_on(torch.zeros(0, 3)))
