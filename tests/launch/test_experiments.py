"""Every experiment file composes as it stands and runs with its own network; only batches and steps shrink."""

import json

import pytest
import torch

from farout.launch.compose import compose_settings
from farout.launch.runs import run_of
from farout.launch.settings import ROOT
from farout.launch.training import train

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
    "logger=none",
]


def parameters() -> list:
    """Those on CIFAR need the packs; SVHN is in none, so digits take its place (the network and loss stay SVHN's)."""
    marked = []
    for name in NAMES:
        data = compose_settings([f"experiment={name}"]).id_data.name
        marks = [pytest.mark.data] if data.startswith("cifar") else []
        marked.append(pytest.param(name, marks=marks, id=name))
    return marked


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """One folder, so that experiments with the same parent train it once."""
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture
def data(request):
    if request.node.get_closest_marker("data"):
        request.getfixturevalue("packs")


def test_there_are_experiments():
    assert len(NAMES) >= 10


@pytest.mark.parametrize("name", NAMES)
def test_header_gives_the_command(name):
    assert f"python train.py experiment={name}" in (ROOT / f"conf/experiment/{name}.yaml").read_text()


@pytest.mark.parametrize("name", parameters())
def test_composes_and_runs(name, outputs, data):
    own = compose_settings([f"experiment={name}"])
    words = [f"experiment={name}", *TINY, f"backbone={own.backbone.name}", f"paths.outputs={outputs}"]
    if own.id_data.name == "svhn":
        words += ["id_data.name=digits", "id_data.train_split=train"]
    settings = compose_settings(words)
    assert settings.method == own.method
    assert settings.backbone == own.backbone
    assert train(settings) is None
    run = run_of(settings, torch.device("cpu"))
    assert run.finished
    evaluations = json.loads(run.results.read_text())["evaluations"]
    entry = next(entry for entry in evaluations if entry["protocol"]["name"] == own.protocol.name)
    assert {row["score"] for row in entry["rows"]} == {score.name for score in own.scores}
