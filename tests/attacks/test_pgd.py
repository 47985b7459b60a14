"""The attack against what is known exactly: linear classifiers, whose worst case has a closed form."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from torch import Tensor

from farout.attacks import L2, PGD, LInf, Norm, correct
from farout.attacks.pgd import wrong_log_odds
from farout.errors import ConfigError

NORMS = [LInf(), L2()]
EPSILONS = {"linf": [0.01, 0.03, 0.1, 0.3], "l2": [0.05, 0.2, 0.5, 1.5]}
DIMENSIONS = 12


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = generator(seed)
    weight = torch.randn(classes, DIMENSIONS, generator=draw, dtype=torch.float64)
    return weight, -weight.sum(1) / 2  # both sides of the boundary meet in the middle of the box


def pixels(n: int, seed: int = 1) -> Tensor:
    """(n, 3, 2, 2), a fifth of the values at the very edge of the box."""
    images = torch.rand(n, 3, 2, 2, generator=generator(seed), dtype=torch.float64)
    return (1.25 * images - 0.125).clamp(0, 1)


def worst_linf(w: np.ndarray, x: np.ndarray, epsilon: float) -> float:
    """The most that w @ d can lose with |d| <= epsilon and x + d in the box."""
    return float(np.where(w > 0, w * -np.minimum(epsilon, x), w * np.minimum(epsilon, 1 - x)).sum())


def worst_l2(w: np.ndarray, x: np.ndarray, epsilon: float) -> float:
    """Likewise for the L2 ball: the offset is -s * w, clipped to the box, for the s that fills the ball."""
    offset = lambda s: np.clip(-s * w, -x, 1 - x)  # noqa: E731
    excess = lambda s: float(np.linalg.norm(offset(s))) - epsilon  # noqa: E731
    s = 1e6 if excess(1e6) <= 0 else brentq(excess, 0, 1e6, xtol=1e-14)
    return float(w @ offset(s))


WORST = {"linf": worst_linf, "l2": worst_l2}


def margins(weight: Tensor, bias: Tensor, images: Tensor, labels: Tensor, norm: Norm, epsilon: float) -> np.ndarray:
    """(B,) how far the label's logit leads in the worst case; exact, class by class."""
    found = []
    for x, y in zip(images.flatten(1).numpy(), labels.tolist(), strict=True):
        rows = []
        for j in set(range(len(weight))) - {y}:
            w = (weight[y] - weight[j]).numpy()
            rows.append(w @ x + float(bias[y] - bias[j]) + WORST[norm.name](w, x, epsilon))
        found.append(min(rows))
    return np.array(found)


@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: norm.name)
def test_curves_of_a_linear_classifier_are_the_closed_form(norm: Norm) -> None:
    (weight, bias), images = linear(2), pixels(120)
    logits = images.flatten(1) @ weight.T + bias
    labels = logits.argmax(1)
    labels[:20] = 1 - labels[:20]  # wrong as they are
    epsilons = EPSILONS[norm.name]
    pgd = PGD(norm, steps=60, restarts=1, path=30)
    curve = list(pgd.withstood(lambda x: x.flatten(1) @ weight.T + bias, images, labels, epsilons, generator()))
    exact = [margins(weight, bias, images, labels, norm, epsilon) for epsilon in (0, *epsilons)]
    assert all(np.abs(margin).min() > 1e-6 for margin in exact)  # none so close that rounding decides
    for found, margin in zip(curve, exact, strict=True):
        assert found.numpy().tolist() == (margin > 0).tolist()
    shares = [float(found.double().mean()) for found in curve]
    assert shares[0] == pytest.approx(100 / 120) and len(set(shares)) == 5 and shares[-1] < 0.2


@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: norm.name)
def test_no_image_is_called_fooled_that_cannot_be_and_few_are_missed(norm: Norm) -> None:
    (weight, bias), images = linear(5, 3), pixels(150, 4)
    labels = (images.flatten(1) @ weight.T + bias).argmax(1)
    for epsilon in EPSILONS[norm.name]:
        fooled, _ = PGD(norm).attack(lambda x: x.flatten(1) @ weight.T + bias, images, labels, epsilon, generator())
        can_be = torch.from_numpy(margins(weight, bias, images, labels, norm, epsilon) < 0)
        assert not (fooled & ~can_be).any()
        assert (can_be & ~fooled).sum() <= 2  # of 150, with five classes


@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: norm.name)
def test_adversarials_lie_in_ball_and_box_and_are_misclassified(norm: Norm) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    net.double()
    torch.nn.init.normal_(net[1].weight)
    images = pixels(80)
    labels = net(images).argmax(1)
    epsilon = EPSILONS[norm.name][-2]
    fooled, found = PGD(norm, steps=10, restarts=2).attack(net, images, labels, epsilon, generator())
    assert 10 < int(fooled.sum()) < 80
    assert torch.equal(found[~fooled], images[~fooled])
    assert not correct(net(found[fooled]), labels[fooled]).any()
    order = math.inf if norm.name == "linf" else 2
    size = torch.linalg.vector_norm((found - images).flatten(1), order, dim=1)
    assert float(size.max()) <= epsilon * (1 + 1e-12) and float(found.min()) >= 0 and float(found.max()) <= 1
    assert all(parameter.grad is None for parameter in net.parameters())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 3), st.floats(0.01, 10))
def test_the_l2_projection_is_the_nearest_point(seed: int, epsilon: float, reach: float) -> None:
    """Against Lagrange's condition solved by bisection; and nothing in ball and box is nearer."""
    images = pixels(4, seed)
    points = images + reach * torch.randn(images.shape, generator=generator(seed + 1), dtype=torch.float64)
    found = L2().project(points, images, epsilon)
    offset, x = (points - images).flatten(1).numpy(), images.flatten(1).numpy()
    for row in range(4):
        low, high = -x[row], 1 - x[row]
        size = lambda s: float(np.linalg.norm(np.clip(s * offset[row], low, high)))  # noqa: B023, E731
        s = 1.0 if size(1.0) <= epsilon else brentq(lambda s: size(s) - epsilon, 0, 1, xtol=1e-15)  # noqa: B023
        expected = x[row] + np.clip(s * offset[row], low, high)
        np.testing.assert_allclose(found[row].flatten().numpy(), expected, rtol=0, atol=1e-9)


def test_starts_are_uniform_in_the_ball() -> None:
    """In d dimensions the share of the L2 ball within radius r is r^d; each L-inf offset is uniform."""
    middle = torch.full((20_000, 3), 0.5, dtype=torch.float64)
    size = torch.linalg.vector_norm(L2().start(middle, 0.4, generator()) - 0.5, dim=1) / 0.4
    for radius in (0.5, 0.8, 0.95):
        assert abs(float((size < radius).double().mean()) - radius**3) < 0.015
    offset = (LInf().start(middle, 0.4, generator()) - 0.5) / 0.4
    assert -1 <= float(offset.min()) < -0.99 and 0.99 < float(offset.max()) <= 1
    assert abs(float((offset.abs() < 0.5).double().mean()) - 0.5) < 0.015
    edge = LInf().start(torch.zeros(100, 3), 0.4, generator())
    assert float(edge.min()) == 0 and float(edge.max()) > 0.3


def test_a_sure_network_is_no_robust_one() -> None:
    """In float32 p(y|x) is 1 and the cross-entropy's gradient 0; the attack must not stop at that."""
    images = torch.tensor([[0.6, 0.4]])
    logits = lambda x: 1e5 * torch.stack([x[:, 0] - x[:, 1], x[:, 1] - x[:, 0]], 1)  # noqa: E731
    leaf = images.clone().requires_grad_()
    labels = torch.tensor([0])
    torch.nn.functional.cross_entropy(logits(leaf), labels).backward()
    assert leaf.grad is not None and not leaf.grad.any()
    for norm, enough, too_little in ((LInf(), 0.11, 0.09), (L2(), 0.15, 0.13)):
        assert PGD(norm).attack(logits, images, labels, enough, generator())[0].item()
        assert not PGD(norm).attack(logits, images, labels, too_little, generator())[0].item()


def test_the_odds_have_the_cross_entropy_s_direction() -> None:
    logits = torch.randn(6, 4, generator=generator(), dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    (ours,) = torch.autograd.grad(wrong_log_odds(logits, labels).sum(), logits)
    (theirs,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"), logits)
    torch.testing.assert_close(torch.nn.functional.normalize(ours), torch.nn.functional.normalize(theirs))
    p = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(wrong_log_odds(logits, labels), ((1 - p) / p).log())


def test_restarts_find_what_one_start_misses() -> None:
    """A narrow valley that gradients lead away from: only a start inside it succeeds, a start in five."""

    def logits(x: Tensor) -> Tensor:
        away = (x[:, 0] - 0.5).abs()
        inside = (away > 0.4).to(x.dtype)
        return torch.stack([0.1 + away * 0, 2 * inside - away], 1)

    images, labels = torch.full((200, 1), 0.5, dtype=torch.float64), torch.zeros(200, dtype=torch.long)
    shares = [
        float(PGD(LInf(), 5, restarts).attack(logits, images, labels, 0.5, generator())[0].double().mean())
        for restarts in (1, 5)
    ]
    assert abs(shares[0] - 0.2) < 0.1 and abs(shares[1] - (1 - 0.8**5)) < 0.1


def test_curves_fall_and_a_seed_repeats_them() -> None:
    (weight, bias), images = linear(4, 5), pixels(60)
    noise = generator(9)

    def logits(x: Tensor) -> Tensor:
        return x.flatten(1) @ weight.T + bias + 0.3 * torch.randn(len(x), 4, generator=noise, dtype=torch.float64)

    labels = (images.flatten(1) @ weight.T + bias).argmax(1)
    curves = []
    for _ in range(2):
        noise.manual_seed(9)
        curves.append(torch.stack(list(PGD(L2(), 5).withstood(logits, images, labels, [0.05, 0.1, 0.2], generator()))))
    assert torch.equal(*curves)
    assert all((later <= earlier).all() for earlier, later in pairwise(curves[0].int()))


def test_what_is_not_finite_is_wrong_and_does_no_harm_to_its_neighbours() -> None:
    def logits(x: Tensor) -> Tensor:
        return torch.stack([x[:, 0], torch.where(x[:, 0] > 0.8, torch.nan, 1 - x[:, 0])], 1)

    images, labels = torch.tensor([[0.95], [0.7], [0.52]]), torch.tensor([0, 0, 0])
    curve = list(PGD(LInf(), 10).withstood(logits, images, labels, [0.05], generator()))
    assert curve[0].tolist() == [False, True, True] and curve[1].tolist() == [False, True, False]


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="steps=0"):
        PGD(LInf(), 0)
    with pytest.raises(ConfigError, match=r"epsilons 0\.2 0\.1 must grow"):
        list(PGD(LInf()).withstood(lambda x: x, torch.rand(1, 2), torch.tensor([0]), [0.2, 0.1], generator()))
