"""ViM against a plain NumPy rendering of its equations and against pytorch-ood."""

import numpy as np
import pytest
import torch
from pytorch_ood.detector import ViM as PeerViM
from tiny_world import unlabelled
from torch import Tensor

from farout.errors import ConfigError, FaroutError
from farout.scores import Fitting, Head
from farout.scores.vim import ViM, zero_of

GENERATOR = torch.Generator().manual_seed(0)
HEAD = Head(torch.randn(6, 40, generator=GENERATOR), torch.randn(6, generator=GENERATOR))
TURN = torch.linalg.qr(torch.randn(40, 40, generator=GENERATOR)).Q


def drawn(n: int, wide: int = 20, scale: float = 1.0) -> Tensor:
    """(n, 40) features that vary most in `wide` directions; the gap lets float32 find the same space."""
    widths = torch.where(torch.arange(40) < wide, scale, 0.3 * scale)
    return torch.randn(n, 40, generator=torch.Generator().manual_seed(n)) * widths @ TURN.T + 0.3


TRAIN, TEST = drawn(500), drawn(60, scale=2.0)


def scored(score: ViM, train: Tensor = TRAIN, test: Tensor = TEST) -> Tensor:
    score.fit(Fitting(HEAD, unlabelled(train, HEAD)))
    return score(unlabelled(test, HEAD))


def close(ours: Tensor, theirs: Tensor) -> None:
    """To 1e-5 of the largest score: energy and virtual logit cancel in the small ones."""
    torch.testing.assert_close(-ours.float(), theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


def by_hand(dimension: int) -> np.ndarray:
    """Through the singular vectors of the data, where ours takes the moment's eigenvectors."""
    weight, bias, train, test = (t.double().numpy() for t in (HEAD.weight, HEAD.bias, TRAIN, TEST))
    origin = -np.linalg.pinv(weight) @ bias
    others = np.linalg.svd(train - origin)[2][dimension:]
    norms = np.linalg.norm((train - origin) @ others.T, axis=1)
    alpha = (train @ weight.T + bias).max(1).sum() / norms.sum()
    energy = np.logaddexp.reduce(test @ weight.T + bias, axis=1)
    return energy - alpha * np.linalg.norm((test - origin) @ others.T, axis=1)


@pytest.mark.parametrize("dimension", [1, 20, 39])
def test_its_equations(dimension: int) -> None:
    ours = scored(ViM(dimension))
    torch.testing.assert_close(ours.numpy(), by_hand(dimension), rtol=2e-6, atol=2e-6)  # the logits are float32


@pytest.mark.parametrize("dimension", [5, 20, 39])
def test_pytorch_ood(dimension: int) -> None:
    """It computes in float32, which finds the residual space of a spectrum with a gap."""
    train = drawn(500, wide=dimension)
    peer = PeerViM(None, dimension, HEAD.weight, HEAD.bias).fit_features(train, torch.zeros(500))
    score = ViM(dimension)
    close(scored(score, train), peer.predict_features(TEST))
    assert score.facts() == {"dimension": dimension, "alpha": pytest.approx(peer.alpha, rel=1e-5)}


def test_the_default_is_half_of_few_features_as_pytorch_ood_has_it_where_none_would_be_left() -> None:
    peer = PeerViM(None, 512, HEAD.weight, HEAD.bias).fit_features(TRAIN, torch.zeros(500))
    score = ViM()
    close(scored(score), peer.predict_features(TEST))
    assert score.facts()["dimension"] == peer.d == 20


@pytest.mark.parametrize(
    ("width", "dimension"), [(64, 32), (128, 64), (512, 256), (767, 383), (768, 512), (2048, 1000)]
)
def test_the_default_dimension(width: int, dimension: int) -> None:
    assert ViM()._dimension(width) == dimension


def test_pytorch_ood_cannot_take_as_many_dimensions_as_features() -> None:
    """Nothing is left: its alpha is infinite and its scores are no numbers. Ours says so."""
    peer = PeerViM(None, 40, HEAD.weight, HEAD.bias).fit_features(TRAIN, torch.zeros(500))
    assert peer.predict_features(TEST).isnan().all()
    with pytest.raises(FaroutError, match="leaves nothing of 40 features"):
        scored(ViM(40))


def test_the_origin_has_no_logits() -> None:
    origin = zero_of(HEAD)
    torch.testing.assert_close(HEAD.weight.double() @ origin, -HEAD.bias.double())
    torch.testing.assert_close(torch.linalg.pinv(HEAD.weight.double()) @ (HEAD.weight.double() @ origin), origin)


def test_names_and_errors() -> None:
    assert ViM().name == "vim" and ViM(20).name == "vim_d20" and ViM().facts() == {"dimension": None}
    with pytest.raises(ConfigError, match="dimension=0"):
        ViM(0)
    with pytest.raises(FaroutError, match="not fitted"):
        ViM()(unlabelled(TEST, HEAD))
    with pytest.raises(FaroutError, match="training outputs"):
        ViM().fit(Fitting(HEAD))
    flat = TRAIN.clone()
    flat[:, 4:] = 0
    head = Head(HEAD.weight, torch.zeros(6))
    with pytest.raises(FaroutError, match="principal space of 20 dimensions"):
        ViM().fit(Fitting(head, unlabelled(flat, head)))
