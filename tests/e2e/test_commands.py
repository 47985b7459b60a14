"""train.py and eval.py from the shell."""

import json
import re
import resource
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e
DIGITS = ["id_data=digits", "backbone=resnet20", "scale=smoke", "method=energy", "m_in=-25", "m_out=-7"]


def child(outputs: Path) -> Path:
    (folder,) = outputs.glob("runs/energy-*")
    return folder


@pytest.fixture
def outputs(finished_run, tmp_path) -> Path:
    """A copy of the finished run's outputs, to change at will."""
    shutil.copytree(finished_run[0], tmp_path / "outputs")
    return tmp_path / "outputs"


def test_a_run_leaves_everything(finished_run):
    outputs, done = finished_run
    folder = child(outputs)
    assert done.stderr == ""
    assert "which is trained first (3 steps)" in done.stdout
    assert f"results: {folder / 'results.json'}" in done.stdout
    names = {path.name for path in folder.iterdir()}
    files = {"run.json", "results.json", "weights.safetensors", "metrics.jsonl", "geometry.npz", "report.html"}
    assert names == files | {"plots", "scores", "wandb"}
    points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [point["step"] for point in points] == [1, 2, 3]
    assert {"train/total", "train/cross_entropy", "train/energy_margin", "lr"} <= set(points[0])
    assert sorted(path.name for path in outputs.iterdir()) == ["cache", "index.html", "runs"]
    assert "\x1b" not in done.stdout, "no escape codes into files"


def test_again_and_evaluated_again(python, command, outputs):
    folder = child(outputs)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    again = python("train.py", *DIGITS, "ood_data=smoke", "logger=none", f"paths.outputs={outputs}")
    assert again.returncode == 0
    assert "is finished" in again.stdout
    assert "nothing left to do" in again.stdout
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}

    evaluated = python("eval.py", *DIGITS, "ood_data=smoke", "logger=none", f"paths.outputs={outputs}")
    assert evaluated.returncode == 0, evaluated.stderr
    entries = json.loads((folder / "results.json").read_text())["evaluations"]
    assert len(entries) == 4
    assert entries[0]["rows"] == entries[2]["rows"]

    by_path = command("eval", f"run={folder}", "ood_data=smoke")  # without the figures that a new process draws
    assert by_path.status == 0, by_path.err
    entries = json.loads((folder / "results.json").read_text())["evaluations"]
    assert len(entries) == 6
    assert entries[0]["rows"] == entries[4]["rows"]


@pytest.mark.parametrize("words", [["+m_inn=-25"], ["epochs=0"]])
def test_mistakes_end_with_one_line_and_status_2(python, tmp_path, words):
    done = python("train.py", *DIGITS, *words, f"paths.outputs={tmp_path / 'outputs'}")
    assert done.returncode == 2
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.glob("outputs/runs/*"))


def test_a_sweep_of_margins_shares_one_parent(python, tmp_path):
    sweep = ["-m", *DIGITS[:-2], "m_in=-25,-23", "m_out=-7,-5", "logger=none", "evaluate=false"]
    done = python("train.py", *sweep, f"paths.outputs={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("runs/energy-*/weights.safetensors"))) == 4
    assert len(list(tmp_path.glob("runs/ce-*/weights.safetensors"))) == 1
    assert done.stdout.count("which is trained first") == 1
    assert done.stdout.count("starts from ce-") == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "sweeps"]


def test_help_shows_groups_and_examples(python):
    done = python("train.py", "--help")
    assert done.returncode == 0
    examples = ("python train.py method=energy m_in=-25", "python eval.py run=outputs/runs")
    for text in ("method: ce, cider, energy, jem, oe", *examples):
        assert text in done.stdout


def test_without_wandb_there_is_none(python, outputs):
    for folder in outputs.glob("runs/*/wandb"):
        shutil.rmtree(folder)
    words = [*DIGITS[:-1], "m_out=-6", "logger=none", "evaluate=false", f"paths.outputs={outputs}"]
    assert python("train.py", *words).returncode == 0
    assert len(list(outputs.glob("runs/energy-*"))) == 2
    assert not list(outputs.glob("runs/*/wandb"))


@pytest.mark.data
def test_the_readmes_first_command_on_cifar10(cold_python, packs, tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = cold_python("train.py", "method=energy", "m_in=-25", "m_out=-7", "scale=smoke", f"paths.outputs={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 45, "seconds of a core"
    assert child(tmp_path).name.startswith("energy-wrn_40_2-cifar10-flower_patches-")
    assert (child(tmp_path) / "results.json").exists()
