"""Frechet distance and Inception score against closed forms and scipy; the wrapper around torch-fidelity's network."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from farout.errors import FaroutError, MissingDataError
from farout.metrics.generation import INCEPTION_WEIGHTS, frechet_distance, inception_score, load_inception

CPU = torch.device("cpu")


def gaussian(mean: Any, covariance: Any, count: int = 50, seed: int = 0) -> np.ndarray:
    """(count, D) whose mean and covariance are these to rounding, singular or not."""
    mean, covariance = np.asarray(mean, float), np.asarray(covariance, float)
    white = np.random.default_rng(seed).standard_normal((count, len(mean)))
    white -= white.mean(axis=0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white, rowvar=False))).T
    values, vectors = np.linalg.eigh(covariance)
    return mean + white @ (vectors * np.sqrt(np.clip(values, 0, None))).T


def by_sqrtm(a: np.ndarray, b: np.ndarray) -> float:
    """The formula as it is written."""
    sigma_a, sigma_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(sigma_a @ sigma_b)
    difference = a.mean(axis=0) - b.mean(axis=0)
    return float(difference @ difference + np.trace(sigma_a) + np.trace(sigma_b) - 2 * np.trace(root).real)


def test_diagonal_gaussians() -> None:
    mean_a, mean_b, std_a, std_b = [1.0, 2.0, 3.0], [0.0, 4.0, 3.5], np.array([1.0, 2.0, 0.5]), np.array([2.0, 1.0, 3])
    expected = np.sum((np.array(mean_a) - mean_b) ** 2) + np.sum((std_a - std_b) ** 2)
    found = frechet_distance(gaussian(mean_a, np.diag(std_a**2)), gaussian(mean_b, np.diag(std_b**2), seed=1))
    assert found == pytest.approx(expected, rel=1e-12)


def test_commuting_gaussians() -> None:
    basis, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((4, 4)))
    std_a, std_b = np.array([3.0, 1.0, 0.1, 2.0]), np.array([0.5, 1.0, 4.0, 2.5])
    a = gaussian(np.zeros(4), basis @ np.diag(std_a**2) @ basis.T)
    b = gaussian(np.ones(4), basis @ np.diag(std_b**2) @ basis.T, seed=1)
    assert frechet_distance(a, b) == pytest.approx(4 + np.sum((std_a - std_b) ** 2), rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_a_matrix_root(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((80, 9)) @ rng.standard_normal((9, 9))
    b = rng.standard_normal((60, 9)) @ rng.standard_normal((9, 9)) + rng.standard_normal(9)
    assert frechet_distance(a, b) == pytest.approx(by_sqrtm(a, b), rel=1e-9)
    assert frechet_distance(torch.tensor(b), a) == pytest.approx(frechet_distance(a, b), rel=1e-12)


def test_singular_covariances() -> None:
    """Lines through space: along one axis the roots multiply, along orthogonal ones they do not meet."""
    a, b = gaussian([0.0, 0, 0], np.diag([4.0, 0, 0])), gaussian([0.0, 0, 0], np.diag([9.0, 0, 0]), seed=1)
    c = gaussian([0.0, 0, 0], np.diag([0, 9.0, 0]), seed=2)
    assert frechet_distance(a, b) == pytest.approx((2 - 3) ** 2, rel=1e-12)
    assert frechet_distance(a, c) == pytest.approx(4 + 9, rel=1e-12)


def test_fewer_images_than_dimensions_and_badly_scaled_features() -> None:
    """The matrix root of the paper's formula loses half the digits here: a reference in higher precision."""
    rng = np.random.default_rng(0)
    scale = 10.0 ** -np.arange(30)
    a, b = rng.standard_normal((8, 30)) * scale, rng.standard_normal((12, 30)) * scale
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(80):
        centred = [mpmath.matrix((x - x.mean(axis=0)).tolist()) / mpmath.sqrt(len(x) - 1) for x in (a, b)]
        cross = centred[0] * centred[1].T
        shared = sum(mpmath.sqrt(abs(v)) for v in mpmath.eigsy(cross * cross.T, eigvals_only=True))
        traces = sum(entry**2 for part in centred for entry in part)
        difference = a.mean(axis=0) - b.mean(axis=0)
        expected = float(mpmath.mpf(float(difference @ difference)) + traces - 2 * shared)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_zero_for_identical_and_never_below() -> None:
    features = torch.randn(40, 64, generator=torch.Generator().manual_seed(0))
    assert 0 <= frechet_distance(features, features) < 1e-12
    assert 0 <= frechet_distance(features, features.flip(0)) < 1e-12
    assert frechet_distance(features, features + 1) == pytest.approx(64, rel=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (np.zeros((4, 2)), np.zeros((4, 3)), "2 and 3 dimensions"),
        (np.zeros((1, 2)), np.zeros((4, 2)), "first features are of one image"),
        (np.zeros((4, 2)), np.zeros(4), "second features must be vectors in rows"),
        (np.array([[0.0, np.nan], [0, 0]]), np.zeros((4, 2)), "not finite"),
    ],
)
def test_features_without_a_distance(a: np.ndarray, b: np.ndarray, words: str) -> None:
    with pytest.raises(FaroutError, match=words):
        frechet_distance(a, b)


def test_inception_score_in_closed_form() -> None:
    assert inception_score(np.eye(7)) == pytest.approx((7, 0))
    assert inception_score(np.full((5, 4), 0.25)) == pytest.approx((1, 0))
    p = 0.8  # two classes, sure to this degree: exp(log 2 - entropy)
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    assert inception_score([[p, 1 - p], [1 - p, p]])[0] == pytest.approx(2 * np.exp(-entropy), rel=1e-12)


def test_inception_score_over_splits() -> None:
    rows = np.concatenate([np.eye(4)[[0, 1]], np.eye(4)[[2, 2, 2]]])  # one split of two classes, one of one
    assert inception_score(rows, 2) == pytest.approx((1.5, 0.5))
    assert inception_score(rows, 5) == pytest.approx((1, 0))


@pytest.mark.parametrize(
    ("rows", "splits", "words"),
    [
        (np.eye(3), 4, "from 1 to 3"),
        (np.eye(3), 0, "from 1 to 3"),
        (np.ones((3, 3)), 1, "softmax"),
        (np.array([[1.5, -0.5]]), 1, "softmax"),
    ],
)
def test_what_is_no_inception_score(rows: np.ndarray, splits: int, words: str) -> None:
    with pytest.raises(FaroutError, match=words):
        inception_score(rows, splits)


class FakeExtractor(nn.Module):
    """In the place of torch-fidelity's class: mean colour as features, and as logits what is known."""

    asked: ClassVar[list[tuple[Any, ...]]] = []

    def __init__(self, name: str, features_list: list[str], feature_extractor_weights_path: str | None = None) -> None:
        super().__init__()
        self.asked.append((name, tuple(features_list), feature_extractor_weights_path))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        assert images.dtype == torch.uint8
        colour = images.float().mean(dim=(2, 3))
        return colour, colour.log()


@pytest.fixture
def fake_package(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = FakeExtractor
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)
    FakeExtractor.asked.clear()


@pytest.mark.usefixtures("fake_package")
def test_the_wrapper_gives_the_local_file_and_returns_features_and_probabilities(tmp_path: Path) -> None:
    weights = tmp_path / INCEPTION_WEIGHTS
    torch.save({"a": torch.zeros(1)}, weights)
    images = torch.tensor([10, 20, 70], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    features, probabilities = load_inception(weights, CPU)(images)
    assert FakeExtractor.asked == [("inception-v3-compat", ("2048", "logits_unbiased"), str(weights))]
    assert torch.equal(features, torch.tensor([[10.0, 20, 70]] * 2))
    assert probabilities.dtype == torch.float64
    torch.testing.assert_close(probabilities, torch.tensor([[0.1, 0.2, 0.7]] * 2, dtype=torch.float64))


@pytest.mark.usefixtures("fake_package")
def test_absent_and_hostile_weights(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=f"put {INCEPTION_WEIGHTS} .*--inception FILE"):
        load_inception(tmp_path / "absent.pth", CPU)
    torch.save(Path("anything that is no tensor"), tmp_path / "hostile.pth")
    with pytest.raises(FaroutError, match=r"hostile.pth does not hold Inception's weights"):
        load_inception(tmp_path / "hostile.pth", CPU)
    assert not FakeExtractor.asked


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch_fidelity", "torch_fidelity.feature_extractor_inceptionv3"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(FaroutError, match="pip install torch-fidelity"):
        load_inception(tmp_path / INCEPTION_WEIGHTS, CPU)


def test_the_real_package_with_weights_of_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its network with random weights, loaded from a file; its metrics are ours."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    fid, isc = (pytest.importorskip(f"torch_fidelity.metric_{name}") for name in ("fid", "isc"))
    kind = module.FeatureExtractorInceptionV3
    with monkeypatch.context() as patched:
        patched.setattr(module, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patched.setattr(kind, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        network = kind("random", ["2048", "logits_unbiased"])
    weights = tmp_path / INCEPTION_WEIGHTS
    torch.save(network.state_dict(), weights)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    features, probabilities = load_inception(weights, CPU)(images)
    expected, logits = network(images)
    assert torch.equal(features, expected) and features.shape == (2, 2048)
    assert torch.equal(probabilities, logits.double().softmax(1))

    a, b = torch.randn(90, 20).double(), 2 * torch.randn(70, 20).double() + 0.3
    theirs = fid.fid_statistics_to_metric(fid.fid_features_to_statistics(a), fid.fid_features_to_statistics(b), False)
    assert frechet_distance(a, b) == pytest.approx(theirs[fid.KEY_METRIC_FID], rel=1e-9)
    scores = isc.isc_features_to_metric(a, splits=3, shuffle=False)
    assert inception_score(a.softmax(1), 3) == pytest.approx(
        (scores[isc.KEY_METRIC_ISC_MEAN], scores[isc.KEY_METRIC_ISC_STD]), rel=1e-9
    )
