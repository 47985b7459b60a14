"""scripts/robustness.py as a user calls it, on a JEM run and a plain classifier of digits, trained in seconds."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from farout.config.compose import compose_settings
from farout.data import DataPaths, ImageSet, open_dataset
from farout.runs import robustness
from farout.runs.robustness import AttackedClassifier, AttackPlan, attacked_images, pixels
from farout.runs.run import Run, open_run, run_of
from farout.runs.training import train
from script_loader import load_script

CPU = torch.device("cpu")
TINY = ["scale=smoke", "id_data=digits", "logger=none", "evaluate=false", "trainer.device=cpu", "transform=jem"]
TINY += ["backbone=wrn_10_2_jem", "backbone.widen_factor=1"]
JEM = ["method=jem", "buffer_size=20", "sgld_steps=2", "sgld_lr=0.5", "clamp_images=1"]
FEW = [
    "--images",
    "8",
    "--steps",
    "2",
    "--restarts",
    "1",
    "--linf",
    "2",
    "8",
    "--l2",
    "0.5",
    "--device",
    "cpu",
    "--copies",
    "2",
]
FEW += ["--batch-size", "5", "--distal-steps", "3"]


class Done(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a JEM run and of a cross-entropy run, which no test may change."""
    folders = []
    for words in (JEM, ["method=ce"]):
        found = compose_settings([*TINY, *words])
        outputs = str(tmp_path_factory.getbasetemp() / "robustness")
        settings = replace(found, paths=replace(found.paths, outputs=outputs))
        train(settings)
        folders.append(run_of(settings, CPU).folder)
    return folders[0], folders[1]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("robustness")


@pytest.fixture
def attack(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def call(*words: object) -> Done:
        capsys.readouterr()
        status = script.main([*FEW, *map(str, words)])
        return Done(status, *capsys.readouterr())

    return call


def results(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "robustness.json").read_text())
    return content


def figures(content: dict[str, Any]) -> list[Any]:
    return [(e["label"], e["norm"], e["clean_accuracy"], e["accuracy"]) for e in content["curves"]]


@pytest.mark.e2e
def test_a_jem_run_beside_its_baseline(
    attack: Callable[..., Done], runs: tuple[Path, Path], tmp_path: Path, data_paths: DataPaths
) -> None:
    jem = tmp_path / runs[0].name
    shutil.copytree(runs[0], jem)
    done = attack(jem, runs[1], "--refine", "0", "1")
    assert done.status == 0, done.err
    content = results(jem)
    labels = [f"baseline (CE)/{n}" for n in ("linf", "l2")] + [f"JEM-{k}/{n}" for k in (0, 1) for n in ("linf", "l2")]
    assert [f"{entry['label']}/{entry['norm']}" for entry in content["curves"]] == labels
    for entry in content["curves"]:
        assert entry["clean_accuracy"] >= entry["accuracy"][0] >= entry["accuracy"][-1]
        assert entry["images"] == {
            "n": 8,
            "which": "the first 8 test images of Digits",
            "sha256": open_dataset("digits", "test", data_paths).info["sha256"],
        }
        assert [f"{100 * share:.1f}" for share in (entry["clean_accuracy"], *entry["accuracy"])] == next(
            [cell.strip() for cell in line.strip("│").split("│")][1:]
            for line in done.out[done.out.index(norm_title(entry["norm"])) :].splitlines()
            if line.strip("│ ").startswith(entry["label"])
        )
    assert content["curves"][0]["refinement"] is None
    assert content["curves"][4]["refinement"] == {
        "steps": 1,
        "step_size": 0.5,
        "noise_std": 0.01,
        "clamp_gradient": None,
        "clamp_images": 1.0,
        "copies": 2,
        "input_noise": 0.03,
    }
    for stem in ("robustness", "distal"):
        assert (jem / f"plots/{stem}.png").stat().st_size > 5000 and f"plots/{stem}.png" in done.out
        assert (jem / f"plots/{stem}.svg").read_text().startswith("<?xml")
    check_distal(jem, content)

    # Again: nothing is measured twice. Then a fresh copy of the folder: the same figures from the same seed.
    again = attack(jem, runs[1], "--refine", "0", "1", "--distal-steps", 0)
    assert "without attack" not in again.out and figures(results(jem)) == figures(content)
    shutil.copytree(runs[0], tmp_path / "copy" / jem.name)
    assert attack(tmp_path / "copy" / jem.name, runs[1], "--refine", "0", "1", "--distal-steps", 0).status == 0
    assert figures(results(tmp_path / "copy" / jem.name)) == figures(content)
    assert attack(jem, "--refine", "0", "--norm", "l2", "--seed", "2", "--distal-steps", 0).status == 0
    assert [e["attack"]["seed"] for e in results(jem)["curves"]] == [1] * 6 + [2]


def norm_title(norm: str) -> str:
    return {"linf": "L-infinity: epsilon", "l2": "L2: epsilon"}[norm]


def check_distal(folder: Path, content: dict[str, Any]) -> None:
    assert [entry["label"] for entry in content["distal"]] == ["baseline (CE)", "JEM"]
    kept = np.load(folder / "distal.npz")
    for entry in content["distal"]:
        images, confidence = kept[f"{entry['label']}: images"], kept[f"{entry['label']}: confidence"]
        assert images.shape == (7, 3, 32, 32) and images.min() >= 0 and images.max() <= 1
        assert confidence.shape == (4, 7)
        np.testing.assert_allclose(confidence[-1], entry["confidence"], rtol=1e-6)
        np.testing.assert_allclose(confidence.mean(1), entry["mean_confidence"], rtol=1e-5)
        assert entry["mean_confidence"][-1] > entry["mean_confidence"][0]
        moved = np.linalg.norm((images - kept["start"]).reshape(7, -1), axis=1)
        assert (moved > 0.2).all() and (moved <= 3 * 0.25 + 1e-4).all()


def test_a_plain_classifier_is_attacked_as_it_is(
    attack: Callable[..., Done], runs: tuple[Path, Path], tmp_path: Path, data_paths: DataPaths
) -> None:
    folder = tmp_path / runs[1].name
    shutil.copytree(runs[1], folder)
    done = attack(folder, "--distal-steps", 0, "--images", "30", "--norm", "linf")
    assert done.status == 0, done.err
    (entry,) = results(folder)["curves"]
    run, test = open_run(folder), open_dataset("digits", "test", data_paths)
    with torch.no_grad():  # the transform would add noise at test time
        logits = run.model(CPU)((test.images[:30].float() / 255 - 0.5) / 0.5)
    assert test.labels is not None
    assert entry["label"] == "CE"
    assert entry["clean_accuracy"] == pytest.approx(float((logits.argmax(1) == test.labels[:30]).double().mean()))
    assert not (folder / "plots/distal.png").exists()


def test_without_noise_and_steps_jem_is_its_network(runs: tuple[Path, Path], data_paths: DataPaths) -> None:
    run = open_run(runs[0])
    (subject,) = robustness._subjects(run, None, AttackPlan(refine=[0], input_noise=0.0))
    images = pixels(open_dataset("digits", "test", data_paths).images[:5], CPU)
    with torch.no_grad():
        ours = subject.classifier(CPU, torch.Generator())(images)
        plain = AttackedClassifier("", run).classifier(CPU, torch.Generator())(images)
        torch.testing.assert_close(ours, run.model(CPU)(2 * images - 1))
    assert torch.equal(ours, plain)


def test_a_set_in_class_order_gives_images_of_every_class(monkeypatch: pytest.MonkeyPatch, runs: Any) -> None:
    labels = torch.arange(5).repeat_interleave(20)
    whole = ImageSet("x", "test", torch.zeros(100, 3, 2, 2, dtype=torch.uint8), labels, (), False, {"title": "X"})
    monkeypatch.setattr(robustness, "open_dataset", lambda *_: whole)
    run: Run = open_run(runs[0])
    chosen, which = attacked_images(run, 10, DataPaths(Path(), None, Path()))
    assert chosen.labels is not None and set(chosen.labels.tolist()) == set(range(5))
    assert which == "10 test images of X, evenly spread"
    assert attacked_images(run, 200, DataPaths(Path(), None, Path()))[1] == "all 100 test images of X"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["CE", "--refine", "1"], "has no chain to refine images with: give it --refine 0"),
        (["JEM", "--refine", "-1"], "--refine -1 must be at least 0"),
        (["JEM", "OTHER"], "was trained on other data"),
        (["absent"], "is not a run folder"),
        (["JEM", "--linf", "0", "1"], "--linf 0 must be above 0"),
        (["JEM", "--images", "0"], "--images 0 must be at least 1"),
        (["JEM", "--restarts", "0"], "--restarts 0 must be at least 1"),
        (["JEM", "--device", "tpu"], "is not a device"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    script: ModuleType,
    capsys: pytest.CaptureFixture[str],
    runs: tuple[Path, Path],
    tmp_path: Path,
    words: list[str],
    message: str,
) -> None:
    other = tmp_path / "other"
    shutil.copytree(runs[1], other)
    record = json.loads((other / "run.json").read_text())
    record["identity"]["id_data"]["num_classes"] = 10
    (other / "run.json").write_text(json.dumps(record))
    places = {"JEM": runs[0], "CE": runs[1], "OTHER": other}
    assert script.main([*FEW, *(str(places.get(word, word)) for word in words)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err
    assert not (runs[0] / "robustness.json").exists()
