"""Scores against the official ones (theirs grow with OOD-ness, ours with ID-ness), and their files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_ood.detector import EnergyBased as PeerEnergy
from pytorch_ood.detector import MaxLogit as PeerMaxLogit
from pytorch_ood.detector import MaxSoftmax as PeerMSP

from farout.config.coerce import component
from farout.errors import ConfigError, FaroutError
from farout.scores import Outputs, Score
from farout.scores.energy import Energy
from farout.scores.max_logit import MaxLogit
from farout.scores.msp import MSP
from farout.scores.uniform_cross_entropy import UniformCrossEntropy

CONF = Path(__file__).parents[2] / "conf"
FILE = Path(__file__).parents[1] / "vectors" / "vectors_energy_oe.json"
VECTORS = json.loads(FILE.read_text())["scores"]
LOGITS = torch.tensor(VECTORS["input"]["logits"], dtype=torch.float32)
SCORES: dict[str, Score] = {"MSP": MSP(), "xent": UniformCrossEntropy()}
SCORES |= {f"energy_T{t}": Energy(t) for t in (1, 2, 10, 100, 1000)}


def outputs(logits: torch.Tensor) -> Outputs:
    return Outputs(logits=logits, features=torch.zeros(len(logits), 3))


def test_every_official_score_is_built() -> None:
    assert SCORES.keys() == VECTORS["expect"].keys()


@pytest.mark.parametrize("name", SCORES)
def test_official_values(name: str) -> None:
    ours = SCORES[name](outputs(LOGITS))
    theirs = torch.tensor(VECTORS["expect"][name]["score"])
    torch.testing.assert_close(-ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["MSP", "xent"])
def test_official_error_detection_split(name: str) -> None:
    ours = -SCORES[name](outputs(LOGITS))
    right = LOGITS.argmax(1) == torch.tensor(VECTORS["input"]["targets"])
    expect = VECTORS["expect"][name]
    torch.testing.assert_close(ours[right], torch.tensor(expect["right"]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours[~right], torch.tensor(expect["wrong"]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("score", [*SCORES.values(), MaxLogit()], ids=lambda s: s.name)
def test_confident_images_score_higher_than_undecided_ones(score: Score) -> None:
    confident, undecided = torch.tensor([12.0, 0, 0, 0]), torch.tensor([1.0, 1.1, 0.9, 1])
    values = score(outputs(torch.stack([confident, undecided])))
    assert values.shape == (2,)
    assert values[0] > values[1]


@pytest.mark.parametrize(
    ("score", "peer"),
    [
        (MSP(), PeerMSP(None)),
        (MaxLogit(), PeerMaxLogit(None)),
        (Energy(), PeerEnergy(None)),
        (Energy(10), PeerEnergy(None, t=10)),
    ],
    ids=lambda s: type(s).__name__,
)
def test_pytorch_ood(score: Score, peer: Any) -> None:
    logits = 5 * torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(-score(outputs(logits)), peer.predict_logits(logits), rtol=1e-5, atol=1e-6)


def test_max_logit() -> None:
    assert MaxLogit()(outputs(torch.tensor([[1.0, 3.0], [-2.0, -5.0]]))).tolist() == [3.0, -2.0]


def test_energies_of_large_logits_stay_finite_and_distinct() -> None:
    values = Energy()(outputs(torch.tensor([[2000.0, 0.0], [2000.5, 0.0]])))
    assert values.tolist() == [2000.0, 2000.5]
    with pytest.raises(ConfigError, match="temperature"):
        Energy(0.0)


def test_half_precision_and_unequal_lengths_are_refused() -> None:
    with pytest.raises(FaroutError, match="bfloat16"):
        outputs(LOGITS.bfloat16())
    with pytest.raises(FaroutError, match="unequal lengths"):
        Outputs(LOGITS, torch.zeros(len(LOGITS) - 1, 3))


def test_scores_compose_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "root.yaml").write_text(
        f"hydra:\n  searchpath: ['file://{CONF}']\ndefaults:\n  - score: [msp, energy]\n  - _self_\n"
    )
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (CONF / "score").glob("*.yaml")}
    names = sorted(name for name, content in files.items() if "_target_" in content)  # the others are lists
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        default = compose("root").score
        every = compose("root", [f"score=[{','.join(names)}]"]).score
        for name in files.keys() - set(names):
            assert list(compose("root", [f"score={name}"]).score) == files[name]["defaults"]
    assert list(default) == ["msp", "energy"]
    assert [instantiate(every[name]).name for name in names] == names
    for name in names:  # as an evaluation reads them: every argument known, and of its type
        arguments = OmegaConf.to_container(every[name])
        assert component(arguments, f"score.{name}").build().name == name


@pytest.mark.parametrize(
    "override",
    [
        "energy.temperature=10",
        "odin.temperature=10",
        "odin.epsilon=0",
        "mahalanobis.epsilon=0.002",
        "knn.k=100",
        "react.percentile=95",
        "ash.variant=b",
        "ash.percentile=65",
        "dice.p=70",
        "scale.percentile=90",
        "gen.gamma=0.5",
        "gen.m=10",
        "gradnorm.temperature=2",
        "vim.dimension=30",
    ],
)
def test_another_setting_is_another_name(override: str) -> None:
    """So that both fit into one table; and without a setting that changes what it says, the name stays."""
    path, value = override.split("=")
    name, option = path.split(".")
    arguments = OmegaConf.to_container(OmegaConf.load(CONF / f"score/{name}.yaml"))
    assert isinstance(arguments, dict)
    other = component({**arguments, option: value}, f"score.{name}").build()
    assert other.name != name and other.name.startswith(f"{name}_")
    assert component(arguments, f"score.{name}").build().name == name


def test_all_is_every_score_once():
    from farout.runs.overrides import compose_evaluation

    chosen = [part.name for part in compose_evaluation(["score=all"]).scores]
    files = {path.stem for path in (Path(__file__).parents[2] / "conf/score").glob("*.yaml")}
    assert len(chosen) == len(set(chosen))
    assert set(chosen) == files - {"all", "knn_k100", "knn_k300"}, "of nearest neighbours the first paper's k"
