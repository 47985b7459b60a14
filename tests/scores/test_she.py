"""Simplified Hopfield energy against pytorch-ood and by hand."""

import pytest
import torch
from pytorch_ood.detector import SHE as PeerSHE
from tiny_world import fitting_on, unlabelled
from torch import Tensor

from farout.errors import FaroutError
from farout.scores import Fitting, Head, Outputs
from farout.scores.she import SHE

GENERATOR = torch.Generator().manual_seed(0)
HEAD = Head(torch.randn(5, 20, generator=GENERATOR), torch.randn(5, generator=GENERATOR))
FEATURES = torch.randn(240, 20, generator=GENERATOR)
TEST = torch.randn(40, 20, generator=GENERATOR)
LABELS = torch.where(torch.arange(240) % 3 == 0, torch.arange(240) % 5, HEAD(FEATURES).argmax(1))  # some are wrong


def fitted_on(features: Tensor, logits: Tensor, labels: Tensor) -> SHE:
    score = SHE()
    score.fit(Fitting(HEAD, Outputs(logits, features, labels)))
    return score


def test_pytorch_ood() -> None:
    assert 0.5 < (HEAD(FEATURES).argmax(1) == LABELS).float().mean() < 0.9
    score = fitted_on(FEATURES, HEAD(FEATURES), LABELS)
    theirs = PeerSHE(None, HEAD).fit_features(FEATURES, LABELS).predict_features(TEST)  # type: ignore[arg-type]
    torch.testing.assert_close(-score(unlabelled(TEST, HEAD)).float(), theirs, rtol=1e-5, atol=1e-5)
    assert score.facts() == {"classes": 5}


ONE_HOT = torch.eye(3)


def test_by_hand_and_a_class_without_a_pattern() -> None:
    """Class 0 has the mean of its first two images, class 1 none, class 2 its one image."""
    features = torch.tensor([[1.0, 3.0], [3.0, 1.0], [9.0, 9.0], [0.0, 5.0]])
    score = fitted_on(features, ONE_HOT[[0, 0, 2, 2]], torch.tensor([0, 0, 1, 2]))
    logits = torch.tensor([[2.0, 0, 1], [1, 0, 2], [1, 2, 0], [0, 2, 1]])
    found = score(Outputs(logits, torch.tensor([[1.0, -4.0]] * 4)))
    assert found.tolist() == [2 - 8, -20, 2 - 8, -20]  # where class 1 is likeliest, the next one counts
    assert score.facts() == {"classes": 2}


def test_errors() -> None:
    assert SHE().name == "she" and SHE().needs == ("train",) and SHE().facts() == {}
    with pytest.raises(FaroutError, match="score she is not fitted"):
        SHE()(unlabelled(TEST, HEAD))
    with pytest.raises(FaroutError, match="labels"):
        SHE().fit(fitting_on(FEATURES))
    with pytest.raises(FaroutError, match="training outputs"):
        SHE().fit(Fitting(HEAD))
    with pytest.raises(FaroutError, match="no training image is classified correctly"):
        fitted_on(FEATURES[:3], ONE_HOT, torch.tensor([1, 2, 0]))
