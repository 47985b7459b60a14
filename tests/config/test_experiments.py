"""Every experiment file composes as it stands and runs; only batches, steps and networks shrink.

That the networks of conf/backbone run at their own depth and width is shown by tests/backbones.
"""

import json
from typing import Any

import pytest
import torch

from farout.config.compose import compose_settings
from farout.config.settings import ROOT, Settings
from farout.runs.run import run_of
from farout.runs.training import train

FILES = sorted((ROOT / "conf/experiment").rglob("*.yaml"))
NAMES = [path.relative_to(ROOT / "conf/experiment").with_suffix("").as_posix() for path in FILES]
TINY = [
    "scale=smoke",
    "outliers=flower_patches",
    "ood_data=smoke",
    "max_steps=1",
    "batch_size=4",
    "outlier_batch_size=4",
    "pretrain.max_steps=1",
    "pretrain.batch_size=4",
    "max_eval_images=10",
    "geometry_images=20",
    "logger=none",
]


def passes_over_training_images(own: Settings) -> bool:
    """Whether a score looks at every training image: minutes at 50,000 images and full width."""
    return any("train" in score.build().needs for score in own.scores)


def small(own: Settings) -> dict[str, Any]:
    """Arguments that make the experiment's network a small one of its kind."""
    known = own.backbone.arguments
    if known.get("weights") is not None:  # trained before, by nobody here; and it has but one width
        return {"weights": None}
    if "widen_factor" in known:
        return {"depth": 10, "widen_factor": 1}
    return {"width": 2} | ({"depth": 8} if own.backbone.name == "resnet20" else {})


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """One folder, so that experiments with the same parent train it once."""
    return tmp_path_factory.mktemp("experiments")


def test_there_are_experiments():
    assert len(NAMES) >= 10


@pytest.mark.parametrize("name", NAMES)
def test_header_gives_the_command(name):
    assert f"python train.py experiment={name}" in (ROOT / f"conf/experiment/{name}.yaml").read_text()


DRAWN = ("jem/demo/digits_jem", "energy/full/cifar10_energy_ft")  # what CIDER's look like: tests/runs


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.drawn] if name in DRAWN else []) for name in NAMES]
)
def test_composes_and_runs(name, outputs, request):
    """Those on CIFAR need the packs; digits take its place where all training images are looked at.

    SVHN is in no pack, so digits take its place too (the network and loss stay SVHN's).
    """
    own = compose_settings([f"experiment={name}"])
    if own.id_data.name.startswith("cifar") and not passes_over_training_images(own):
        request.applymarker(pytest.mark.data)  # here, not while tests are collected, when every file had to be composed
        request.getfixturevalue("packs")
    words = [f"experiment={name}", *TINY, f"backbone={own.backbone.name}", f"paths.outputs={outputs}"]
    changed = small(own)
    smaller = {"buffer_size": 100, "sgld_steps": 2} if own.method.name == "jem" else {}
    words += [f"{key}={value}" for key, value in smaller.items()]
    if own.holdout > 0:
        words += ["holdout=0", "pretrain.holdout=0"]  # no corruptions to build
    if own.init_from == "RUN":  # to be named by whoever runs it
        words.append("init_from=auto")
    if own.id_data.name == "svhn":
        words += ["id_data.name=digits", "id_data.num_classes=7", "id_data.train_split=train"]
    if passes_over_training_images(own) or "weights" in changed:
        words += ["id_data.name=digits", "id_data.num_classes=7", "max_fit_images=300"]
    words += [f"backbone.{key}={'null' if value is None else value}" for key, value in changed.items()]
    settings = compose_settings(words)
    assert settings.method.arguments == {**own.method.arguments, **smaller}
    assert settings.backbone.arguments == {**own.backbone.arguments, **changed}
    assert settings.transform == own.transform
    assert train(settings) is None
    run = run_of(settings, torch.device("cpu"))
    assert run.finished
    evaluations = json.loads(run.results.read_text())["evaluations"]
    entry = next(entry for entry in evaluations if entry["protocol"]["name"] == own.protocol.name)
    assert {row["score"] for row in entry["rows"]} == {score.name for score in own.scores}
