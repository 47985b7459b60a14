"""Both Mahalanobis variants against official values, scikit-learn and pytorch-ood."""

import json
from pathlib import Path

import pytest
import torch
from pytorch_ood.detector import Mahalanobis as PeerMahalanobis
from pytorch_ood.detector import MahalanobisODIN as PeerWithStep
from sklearn.covariance import EmpiricalCovariance
from tiny_world import STD, World, fitting_on, observed, unlabelled
from torch import Tensor

from farout.errors import ConfigError, FaroutError
from farout.scores import Fitting, Head, Outputs
from farout.scores.mahalanobis import Mahalanobis
from farout.scores.mahalanobis_cider import MahalanobisCIDER

FOLDER = Path(__file__).parents[1] / "vectors"
ENERGY = json.loads((FOLDER / "vectors_energy_oe.json").read_text())["mahalanobis"]
CIDER = json.loads((FOLDER / "vectors_jem_cider.json").read_text())["cider"]["mahalanobis"]
INPUT = {key: torch.tensor(value) for key, value in ENERGY["input"].items()}


class Toy:
    """The Energy vectors' network: features = mean over space of relu(1x1 convolution)."""

    def features(self, images: Tensor) -> Tensor:
        return torch.einsum("dc,bchw->bdhw", INPUT["conv_w"], images).relu().mean((2, 3))

    def classify(self, features: Tensor) -> Tensor:
        return features


def official(epsilon: float) -> Mahalanobis:
    score = Mahalanobis(epsilon)
    features = Toy().features(INPUT["train_x"])
    score.fit(Fitting(Head(torch.eye(4), torch.zeros(4)), Outputs(features, features, INPUT["train_y"])))
    return score


def test_official_means_and_precision() -> None:
    gaussians = official(0)._gaussians
    assert gaussians is not None
    torch.testing.assert_close(gaussians.means.float(), torch.tensor(ENERGY["expect"]["class_means"]))
    torch.testing.assert_close(
        gaussians.precision.float(), torch.tensor(ENERGY["expect"]["precision"]), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("case", ENERGY["expect"]["cases"], ids=lambda case: f"noise{case['noise']:g}")
def test_official_values(case: dict) -> None:
    ours = official(case["noise"]).on_images(Toy(), INPUT["test_x"], STD)
    theirs = torch.tensor(case["score"], dtype=torch.float64)  # the official function ran in float32
    torch.testing.assert_close(-ours, theirs, rtol=1e-3, atol=0)


def rows(n: int, a: float, b: float, c: float, shift: tuple[float, ...]) -> Tensor:
    """The CIDER vectors' inputs: sin(a (i+1) + b (j+1) (i+1) + c j) + shift, float32."""
    i, j = torch.arange(n, dtype=torch.float64).unsqueeze(1), torch.arange(4, dtype=torch.float64)
    return ((a * (i + 1) + b * (j + 1) * (i + 1) + c * j).sin() + torch.tensor(shift, dtype=torch.float64)).float()


def test_official_values_of_cider() -> None:
    score = MahalanobisCIDER()
    score.fit(fitting_on(rows(30, 0.37, 0.21, 0.6, (0.2, 0, 0, 0.1)), torch.arange(30) % 3))
    gaussians = score._gaussians
    assert gaussians is not None
    torch.testing.assert_close(gaussians.means.float(), torch.tensor(CIDER["class_means"]), rtol=2e-5, atol=1e-6)
    torch.testing.assert_close(gaussians.precision.float(), torch.tensor(CIDER["precision"]), rtol=2e-5, atol=1e-5)
    ours = score(unlabelled(rows(10, 0.9, -0.5, 0.2, (0, 0, 0, 0))))
    theirs = torch.tensor(CIDER["score_in_dist(all 10)"], dtype=torch.float64)
    torch.testing.assert_close(-ours, theirs, rtol=2e-5, atol=0)


@pytest.mark.parametrize("degenerate", [False, True])
def test_scikit_learn_covariance(degenerate: bool) -> None:
    """With a dead unit and a doubled one the precision is the pseudo-inverse."""
    generator = torch.Generator().manual_seed(1)
    features, labels = torch.randn(200, 6, generator=generator), torch.arange(200) % 7
    if degenerate:
        features[:, 4], features[:, 5] = 0, features[:, 0]
    score = Mahalanobis()
    score.fit(fitting_on(features, labels))
    assert score._gaussians is not None
    means = torch.stack([features[labels == c].double().mean(0) for c in range(7)])
    oracle = EmpiricalCovariance(assume_centered=False).fit((features.double() - means[labels]).numpy())
    torch.testing.assert_close(score._gaussians.means, means, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(score._gaussians.precision.numpy(), oracle.precision_, rtol=1e-9, atol=1e-12)
    assert score.facts() == {"epsilon": 0, "classes": 7, "rank": 4 if degenerate else 6}
    test = torch.randn(9, 6, generator=generator)
    difference = test.double().unsqueeze(1) - means
    expected = torch.einsum("bcd,de,bce->bc", difference, torch.tensor(oracle.precision_), difference).amin(1) / 2
    torch.testing.assert_close(-score(unlabelled(test)), expected, rtol=1e-9, atol=0)


def test_pytorch_ood_has_the_scatter_for_the_covariance(world: World) -> None:
    """It sums the outer products and adds 1e-6 to the diagonal, so that its scores are ours over n, nearly."""
    score, peer = Mahalanobis(), PeerMahalanobis(None)
    score.fit(world.fitting)
    generator = torch.Generator().manual_seed(2)
    features, labels = torch.randn(300, 5, generator=generator), torch.arange(300) % 4
    test = 2 * torch.randn(20, 5, generator=generator)
    score.fit(fitting_on(features, labels))
    theirs = peer.fit_features(features, labels).predict_features(test)
    torch.testing.assert_close(-score(unlabelled(test)).float() / 300, theirs, rtol=1e-5, atol=0)


def test_pytorch_ood_with_a_step(world: World) -> None:
    """The same step, at the same closest class; its sign(0) = 0 is of no account where no gradient is 0."""
    score, peer = Mahalanobis(0.002), PeerWithStep(world.network.features, eps=0.002, norm_std=STD.tolist())
    score.fit(world.fitting)
    # Its Gaussians are float32 with a ridge: give it ours, so that steps and distances are what is compared.
    gaussians = score._gaussians
    assert gaussians is not None
    peer.fit_features(world.train.features.clone().float(), world.train.labels)
    peer._base.mu, peer._base.precision = gaussians.means, gaussians.precision
    ours = score.on_images(world.network, world.images, STD)
    torch.testing.assert_close(-ours, peer.predict(world.images).detach(), rtol=1e-9, atol=0)
    plain = Mahalanobis()
    plain.fit(world.fitting)
    assert (ours > plain(world.outputs)).all()  # every step led closer


def test_without_a_step_no_image_is_needed(world: World) -> None:
    score = Mahalanobis()
    score.fit(world.fitting)
    assert score.needs == ("train",) and Mahalanobis(0.1).needs == ("train", "images")
    by_images = score.on_images(world.network, world.images, STD)
    torch.testing.assert_close(score(world.outputs), by_images, rtol=1e-9, atol=0)
    with pytest.raises(FaroutError, match="needs the images"):
        Mahalanobis(0.1)(world.outputs)


def test_inference_mode_around_it(world: World) -> None:
    with torch.inference_mode():
        score = Mahalanobis(0.002)
        score.fit(world.fitting)
        inside = score.on_images(world.network, world.images.clone(), STD)
    score.fit(world.fitting)
    torch.testing.assert_close(inside, score.on_images(world.network, world.images, STD), rtol=1e-9, atol=0)


def test_a_class_without_images_has_no_mean(world: World) -> None:
    assert world.train.labels is not None
    kept = world.train.labels != 2
    train = Outputs(world.train.logits[kept], world.train.features[kept], world.train.labels[kept])
    score = Mahalanobis()
    score.fit(Fitting(world.fitting.head, train))
    assert score.facts()["classes"] == 4
    assert score(world.outputs).isfinite().all()


def test_grid(world: World) -> None:
    tuned = Mahalanobis(tune=True)
    grid = tuned.candidates()
    assert [candidate.epsilon for candidate in grid] == [0, 0.01, 0.005, 0.002, 0.0014, 0.001, 0.0005]
    assert {candidate.name for candidate in grid} == {"mahalanobis"} and not grid[1].candidates()
    assert grid[0].needs == ("train",) and grid[1].needs == tuned.needs == ("train", "images")
    assert not Mahalanobis().candidates() and not MahalanobisCIDER().candidates()
    grid[1].fit(world.fitting)
    assert grid[1].facts()["epsilon"] == 0.01


def test_names_and_errors(world: World) -> None:
    assert Mahalanobis(0.002).name == "mahalanobis_e0.002" and MahalanobisCIDER().name == "mahalanobis_cider"
    with pytest.raises(ConfigError, match="epsilon"):
        Mahalanobis(-1)
    with pytest.raises(FaroutError, match="not fitted"):
        Mahalanobis()(world.outputs)
    with pytest.raises(FaroutError, match="labels"):
        MahalanobisCIDER().fit(Fitting(world.fitting.head, observed(world.network, world.images)))
    with pytest.raises(FaroutError, match="labels"):
        Mahalanobis().fit(fitting_on(torch.randn(4, 3), torch.tensor([0, 1, -1, 0])))
    with pytest.raises(FaroutError, match="training outputs"):
        Mahalanobis().fit(Fitting(world.fitting.head))
    with pytest.raises(FaroutError, match="do not vary"):
        Mahalanobis().fit(fitting_on(torch.ones(4, 3), torch.tensor([0, 1, 1, 0])))
    with pytest.raises(FaroutError, match="NaN"):
        Mahalanobis().fit(fitting_on(torch.full((4, 3), torch.nan), torch.tensor([0, 1, 1, 0])))
