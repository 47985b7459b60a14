"""What holds for every score that has a file in conf/score, at its settings there and at others."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import instantiate
from tiny_world import STD, World
from torch import Tensor

from farout.scores import Fitting, Head, ImageScore, Outputs, Score
from farout.scores.ash import ASH
from farout.scores.dice import DICE
from farout.scores.gen import GEN
from farout.scores.gradnorm import GradNorm
from farout.scores.knn import KNN
from farout.scores.mahalanobis import Mahalanobis
from farout.scores.odin import ODIN
from farout.scores.react import ReAct
from farout.scores.scale import SCALE
from farout.scores.state import decode, encode
from farout.scores.vim import ViM

FILES = sorted(path for path in (Path(__file__).parents[2] / "conf/score").glob("*.yaml") if path.stem != "all")
MAKERS: dict[str, Callable[[], Score]] = {
    path.stem: (lambda path=path: instantiate(yaml.safe_load(path.read_text()))) for path in FILES
}
MAKERS |= {
    "mahalanobis with a step": lambda: Mahalanobis(0.01),
    "odin without a step": lambda: ODIN(10, 0),
    "odin at T = 1": lambda: ODIN(1, 0.0048),
    "nearest": lambda: KNN(1),
    "farthest": lambda: KNN(330),
    "react at 60": lambda: ReAct(60),
    "ash b": lambda: ASH("b", 70),
    "ash p": lambda: ASH("p", 70),
    "scale at 60": lambda: SCALE(60),
    "gen of 3": lambda: GEN(0.5, 3),
    "gradnorm at T = 2": lambda: GradNorm(2),
    "dice at 20": lambda: DICE(20),
    "vim of 2": lambda: ViM(2),
}


@pytest.fixture(params=MAKERS)
def score(request: pytest.FixtureRequest, world: World) -> Score:
    """Fitted on what it needs and nothing else."""
    made: Score = MAKERS[request.param]()
    if "head" in made.needs or "train" in made.needs:
        made.fit(Fitting(world.fitting.head, world.train if "train" in made.needs else None))
    return made


def scored(score: Score, world: World, rows: Any) -> Tensor:
    """As an evaluation asks: with the images only where they are needed."""
    if "images" in score.needs:
        assert isinstance(score, ImageScore)
        return score.on_images(world.network, world.images[rows], STD.to(world.images))
    outputs = world.outputs
    return score(Outputs(outputs.logits[rows], outputs.features[rows]))


def test_one_finite_number_per_image_and_none_like_another(score: Score, world: World) -> None:
    found = scored(score, world, slice(None))
    assert found.shape == (41,) and found.dtype in (torch.float32, torch.float64)
    assert found.isfinite().all() and len(found.unique()) > 38
    assert not found.requires_grad


def test_order_and_company_of_images_are_of_no_account(score: Score, world: World) -> None:
    whole = scored(score, world, slice(None))
    order = torch.randperm(41, generator=torch.Generator().manual_seed(3)).to(whole.device)
    torch.testing.assert_close(scored(score, world, order), whole[order], rtol=1e-9, atol=0)
    parts = [scored(score, world, slice(start, start + 7)) for start in range(0, 41, 7)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-9, atol=0)
    alone = torch.cat([scored(score, world, slice(i, i + 1)) for i in range(41)])
    torch.testing.assert_close(alone, whole, rtol=1e-9, atol=0)


def test_inputs_are_left_as_they_are(score: Score, world: World) -> None:
    before = [t.clone() for t in (world.images, world.outputs.logits, world.outputs.features, world.train.features)]
    scored(score, world, slice(None))
    after = (world.images, world.outputs.logits, world.outputs.features, world.train.features)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_no_images_have_no_scores(score: Score, world: World) -> None:
    assert scored(score, world, slice(0, 0)).shape == (0,)


def test_a_saved_state_scores_the_same(score: Score, world: World, request: pytest.FixtureRequest) -> None:
    state, tensors = encode(score)
    fresh = MAKERS[request.node.callspec.params["score"]]()
    decode(fresh, json.loads(json.dumps(state)), tensors)
    if world.images.is_cpu:
        expected = scored(score, world, slice(None))
        torch.testing.assert_close(scored(fresh, world, slice(None)), expected, rtol=1e-12, atol=0)


def test_facts_can_be_recorded(score: Score) -> None:
    json.dumps(score.facts(), allow_nan=False)


@pytest.mark.parametrize("name", [path.stem for path in FILES if "images" not in MAKERS[path.stem]().needs])
def test_images_unlike_all_training_images_are_out(name: str) -> None:
    """Two classes with a dozen units each; weak and shapeless activations are neither."""
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.eye(2).repeat_interleave(12, 1)
    labels = torch.arange(800) % 2
    features = (centres[labels] + 0.1 * torch.randn(800, 24, generator=generator)).relu()
    outside = 0.5 * torch.rand(100, 24, generator=generator)
    head = Head(centres / 3, torch.zeros(2))
    score = MAKERS[name]()
    score.fit(Fitting(head, Outputs(head(features[:700]), features[:700], labels[:700])))
    ours = [score(Outputs(head(part), part)) for part in (features[700:], outside)]
    assert ours[0].quantile(0.05) > ours[1].quantile(0.95)
