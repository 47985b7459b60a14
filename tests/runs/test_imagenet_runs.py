"""CIDER on a folder in ImageNet's layout: from the command to the results, on a tiny folder of real pictures."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torchvision.models import resnet34

from farout.config.compose import compose_settings
from farout.config.settings import ROOT, Settings
from farout.engine import fit as engine
from farout.files import load_json
from farout.runs import training
from farout.runs.inputs import training_data
from farout.runs.run import run_of
from farout.runs.training import train

CPU = torch.device("cpu")
EXPERIMENT = "experiment=cider/full/imagenet100_cider"
TINY = ["transform.size=64", "batch_size=4", "max_steps=2", "score=knn", "score.knn.k=3", "method.score=knn"]
TINY += ["ood_data=smoke", "ood_data.sets=[digits_heldout,gaussian@20]"]  # quick to make for a store of its own
TINY += ["max_eval_images=6", "logger=none", "geometry_images=9"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Weights with torchvision's names, of chance."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "resnet34.pth"
    torch.save(resnet34().state_dict(), path)
    return path


@pytest.fixture
def tiny(imagenet_folder: Path, weights: Path, tmp_path: Path) -> list[str]:
    """What a user types, and where the test's own store and outputs lie."""
    own = [f"id_data.folder={imagenet_folder}", f"id_data.class_list={imagenet_folder / 'classes.txt'}"]
    own += ["id_data.num_classes=3", f"backbone.weights={weights}"]
    return [EXPERIMENT, *TINY, *own, f"paths.data={tmp_path / 'store'}", f"paths.outputs={tmp_path / 'outputs'}"]


@pytest.fixture
def settings(tiny: list[str]) -> Callable[..., Settings]:
    return lambda *more: compose_settings([*tiny, *more])


@pytest.mark.drawn
def test_from_the_command_to_the_results(settings, weights, monkeypatch, capsys):
    wanted = settings()
    seen = []
    real = training.DeviceBatches.__call__
    monkeypatch.setattr(training.DeviceBatches, "__call__", lambda *a: seen.append(real(*a)) or seen[-1])
    assert train(wanted) is None
    assert {batch["labelled"].images.shape for batch in seen} == {(8, 3, 64, 64)}
    own = run_of(wanted, CPU)
    assert own.name.startswith("cider-resnet34_imagenet-imagenet100@")
    record = own.record
    assert record["identity"]["backbone"]["weights"].startswith("sha256-")
    assert record["data"]["labelled"]["classes"] == ["n01440764", "n02102040", "n03000684"]
    assert str(weights) not in (own.folder / "run.json").read_text()
    entry = load_json(own.results)["evaluations"][0]
    assert entry["id"]["n"] == 6
    assert entry["scores"]["knn_k3"]["fitted_on"] == 12
    assert {row["ood"] for row in entry["rows"]} == set(wanted.ood_data.sets)
    assert (own.folder / "report.html").is_file()
    _check_what_changed(load_file(own.weights), torch.load(weights))
    capsys.readouterr()
    train(wanted)
    assert "nothing left to do" in capsys.readouterr().out
    # Without the folder's name, the run is evaluated by its own: the index knows the folder.
    named = replace(wanted, id_data=replace(wanted.id_data, folder=None, class_list=None), evaluate=True)
    assert len(training_data(named).labelled) == 12


def _check_what_changed(after: dict[str, torch.Tensor], before: dict[str, torch.Tensor]) -> None:
    """Weights of layer4 alone; running statistics everywhere, because frozen batch norm stays in training mode."""
    same = {name: torch.equal(after[f"trunk.{name}"], value) for name, value in before.items() if name[:3] != "fc."}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    for name, kept in same.items():
        assert kept == (not name.startswith("layer4.") and not name.endswith(statistics)), name


def test_killed_and_repeated_it_ends_in_the_same_bits(settings, monkeypatch, tmp_path):
    more = ["evaluate=false", "max_steps=3"]
    whole, broken = settings(*more), settings(*more, "trainer.checkpoint_steps=2", f"paths.outputs={tmp_path / 'two'}")
    train(whole)
    real = engine.Loop.update

    def update(self, batches, seed):
        if self.step == 2:
            monkeypatch.setattr(engine.Loop, "update", real)
            raise KeyboardInterrupt
        return real(self, batches, seed)

    monkeypatch.setattr(engine.Loop, "update", update)
    with pytest.raises(KeyboardInterrupt):
        train(broken)
    monkeypatch.setattr("farout.backbones.imagenet_resnet._read", lambda path: pytest.fail("not read again"))
    train(broken)
    for file in ("weights.safetensors", "method.safetensors"):
        one, other = (run_of(wanted, CPU).folder / file for wanted in (whole, broken))
        assert one.read_bytes() == other.read_bytes()


def test_what_is_part_of_the_run_and_what_is_not(settings, imagenet_folder, weights, tmp_path):
    name = run_of(settings(), CPU).name
    moved = weights.rename(weights.with_name("moved.pth"))
    folder = imagenet_folder.rename(imagenet_folder.with_name("elsewhere"))
    where = [f"id_data.folder={folder}", f"id_data.class_list={folder / 'classes.txt'}", f"backbone.weights={moved}"]
    assert run_of(settings(*where), CPU).name == name
    (folder / "two.txt").write_text("n01440764\nn04000000\nn02102040\n")
    changes = ["backbone.trainable=null", "backbone.trainable=[layer3,layer4]", "backbone.weights=null"]
    changes += ["backbone.weights=imagenet1k_v1", f"id_data.class_list={folder / 'two.txt'}"]
    names = {run_of(settings(*where, change), CPU).name for change in changes}
    assert len(names | {name}) == 1 + len(changes)
    moved.rename(weights)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("id_data.folder=nowhere", "is no folder: id_data.folder needs train/CLASS/*.JPEG and val/CLASS/*.JPEG"),
        ("id_data.folder=null", "id_data.folder and id_data.class_list belong together: give both, or neither"),
        ("id_data.class_list=none.txt", "id_data.class_list=none.txt cannot be read"),
        ("id_data.num_classes=100", "names 3 classes: set id_data.num_classes=3"),
        ("holdout=0.1", "has no validation corruptions: set holdout=0"),
        ("backbone.weights=none.pth", "backbone.weights=none.pth is not there: give a file, imagenet1k_v1, or null"),
        ("backbone.trainable=[layer9]", "there is no layer9, only conv1, bn1"),
        ("CLASS", "class n02102040 of the class list has no folder in"),
        ("EMPTY", "class n02102040 of the class list has no image in"),
    ],
)
def test_what_is_missing_is_said_in_one_line_and_leaves_no_run(command, runs, imagenet_folder, word, said):
    folder = imagenet_folder / "val/n02102040"
    if word == "CLASS":
        folder.rename(imagenet_folder / "val/other")
    if word == "EMPTY":
        for path in folder.iterdir():
            path.unlink()
    more = [] if word.isupper() else [word]
    done = command("train", *more)
    assert done.status == 2
    assert done.err.startswith("error: ")
    assert said in done.err
    assert done.err.count("\n") == 1
    assert runs() == []


def test_the_codes_schedule_has_the_official_learning_rates():
    wanted = compose_settings(["experiment=cider/full/imagenet100_cider_code"])
    vectors = json.loads((ROOT / "tests/vectors/vectors_jem_cider.json").read_text())
    case = vectors["cider"]["learning_rate"][1]
    assert case["config"].startswith("ImageNet-100 script")
    optimisation = wanted.schedule.optimisation()
    for point in case["points"]:
        rate = optimisation.rate(point["epoch"] * 248 + point["batch"], 20 * 248, 248)
        assert rate == pytest.approx(point["lr"], rel=1e-12)
