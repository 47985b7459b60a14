"""Relative Mahalanobis distance against scikit-learn's covariances and against pytorch-ood."""

import pytest
import torch
from pytorch_ood.detector import RMD as PeerRMD
from sklearn.covariance import EmpiricalCovariance
from tiny_world import fitting_on, unlabelled
from torch import Tensor

from farout.errors import FaroutError
from farout.scores import Fitting
from farout.scores.mahalanobis import Mahalanobis
from farout.scores.rmds import RMDS


def drawn(n: int, seed: int) -> Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))


LABELS = torch.arange(300) % 4
TRAIN = drawn(300, 0) + LABELS.unsqueeze(1) * torch.tensor([1.0, 0, -1, 0, 0, 2])
TEST = 2 * drawn(25, 1)


def scored(train: Tensor, test: Tensor = TEST, labels: Tensor = LABELS) -> Tensor:
    score = RMDS()
    score.fit(fitting_on(train, labels))
    return score(unlabelled(test))


def distances(test: Tensor, mean: Tensor, deviations: Tensor) -> Tensor:
    """(N,) squared, by scikit-learn's pseudo-inverse."""
    precision = torch.from_numpy(EmpiricalCovariance().fit(deviations.numpy()).precision_)
    return torch.einsum("nd,de,ne->n", test - mean, precision, test - mean)


@pytest.mark.parametrize("degenerate", [False, True])
def test_its_definition(degenerate: bool) -> None:
    """As OpenOOD computes it, but in float64; with a dead unit and a doubled one precisions are pseudo-inverses."""
    train, test = TRAIN.double(), TEST.double()
    if degenerate:
        train[:, 3], train[:, 4] = 0, train[:, 0]
    means = torch.stack([train[each == LABELS].mean(0) for each in range(4)])
    by_class = torch.stack([distances(test, mean, train - means[LABELS]) for mean in means], 1)
    expected = -(by_class - distances(test, train.mean(0), train - train.mean(0)).unsqueeze(1)).amin(1)
    torch.testing.assert_close(scored(train, test), expected, rtol=1e-9, atol=1e-9)


def test_pytorch_ood_has_the_scatter_for_the_covariance() -> None:
    theirs = PeerRMD(None).fit_features(TRAIN, LABELS).predict_features(TEST)
    torch.testing.assert_close(-scored(TRAIN).float() / 300, theirs, rtol=1e-4, atol=1e-6)


def test_what_tells_no_class_from_another_cancels() -> None:
    """Classes differ along the first axis only: along the second, Mahalanobis falls and this does not."""
    spread = torch.tensor([-1.0, 0.0, 1.0])
    train = torch.stack([torch.cartesian_prod(torch.tensor([side]) + spread / 4, spread) for side in (-2.0, 2.0)])
    train, labels = train.flatten(0, 1), torch.arange(2).repeat_interleave(9)
    test = torch.tensor([[2.0, 0.0], [2.0, 50.0]])
    near, far = scored(train, test, labels).tolist()
    assert near == pytest.approx(far, abs=1e-9)
    plain = Mahalanobis()
    plain.fit(fitting_on(train, labels))
    assert plain(unlabelled(test)).diff().item() < -1000


def test_facts_and_errors() -> None:
    score = RMDS()
    assert score.name == "rmds" and score.needs == ("train",) and score.facts() == {}
    with pytest.raises(FaroutError, match="score rmds is not fitted"):
        score(unlabelled(TEST))
    with pytest.raises(FaroutError, match="training outputs"):
        score.fit(Fitting(fitting_on(TRAIN).head))
    with pytest.raises(FaroutError, match="labels"):
        score.fit(fitting_on(TRAIN))
    score.fit(fitting_on(torch.cat([TRAIN, TRAIN[:, :1]], 1), LABELS))
    assert score.facts() == {"classes": 4, "rank": 6, "rank_all": 6}
