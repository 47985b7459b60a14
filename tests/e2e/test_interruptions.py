"""Killed at the worst moments, a run goes on where its last checkpoint was and ends in the same weights."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from farout.commands.torturing import process
from script_loader import load_script
from warm_python import WarmPython

pytestmark = pytest.mark.e2e

# train.py, but the process kills itself at the n-th checkpoint of the energy stage: before it takes its name, or after.
DRIVER = """
import os, runpy, signal, sys
when, number, sys.argv = sys.argv[1], int(sys.argv[2]), ["train.py", *sys.argv[3:]]
rename, seen = os.replace, []

def replace(source, target):
    mine = os.path.basename(target) == "checkpoint.pt" and "/runs/energy-" in str(target)
    seen.extend([target] if mine else [])
    if mine and when == "before" and len(seen) == number:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
    if mine and when == "after" and len(seen) == number:
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = replace
runpy.run_path("train.py", run_name="__main__")
"""
WORDS = ["id_data=digits", "backbone=wrn_16_4", "backbone.widen_factor=1", "scale=smoke", "method=energy"]
WORDS += ["max_steps=6", "batch_size=200", "outlier_batch_size=20", "evaluate=false", "logger=none"]
WORDS += ["epochs=2", "trainer.checkpoint_steps=1", "trainer.log_every=1"]


@pytest.fixture(scope="module")
def uninterrupted(python, tmp_path_factory) -> Path:
    """Outputs of the same command left alone: 6 steps, an epoch being 5, through dropout and batch norm."""
    outputs = tmp_path_factory.mktemp("uninterrupted")
    done = python("train.py", *WORDS, f"paths.outputs={outputs}")
    assert done.returncode == 0, done.stderr
    return outputs


def child(outputs: Path) -> Path:
    (folder,) = outputs.glob("runs/energy-*")
    return folder


@pytest.mark.parametrize(("when", "number"), [("after", 3), ("before", 3)])
def test_kill_and_repeat(python, uninterrupted, tmp_path, when, number):
    for parent in uninterrupted.glob("runs/ce-*"):
        shutil.copytree(parent, tmp_path / "runs" / parent.name)
    words = [*WORDS, f"paths.outputs={tmp_path}"]
    killed = python("-c", DRIVER, when, str(number), *words)
    assert killed.returncode == -signal.SIGKILL
    folder = child(tmp_path)
    assert not (folder / "weights.safetensors").exists()
    assert (folder / "checkpoint.pt").exists()
    assert len(list(folder.glob(".checkpoint.pt.*.tmp"))) == (when == "before")

    again = python("train.py", *words)
    assert again.returncode == 0, again.stderr
    assert "resumes" in again.stdout
    assert (folder / "weights.safetensors").read_bytes() == (child(uninterrupted) / "weights.safetensors").read_bytes()
    assert not list(folder.glob("*.tmp"))
    assert not list(folder.glob(".*.tmp"))
    assert not (folder / "checkpoint.pt").exists()
    ours, theirs = (json.loads((path / "run.json").read_text()) for path in (folder, child(uninterrupted)))
    assert ours["trained"]["losses"] == theirs["trained"]["losses"]
    assert ours["identity"] == theirs["identity"]


def test_the_comparison_can_fail(uninterrupted):
    """Parent and child differ, so equal bytes above say something."""
    (parent,) = uninterrupted.glob("runs/ce-*")
    assert (parent / "weights.safetensors").read_bytes() != (child(uninterrupted) / "weights.safetensors").read_bytes()


def test_two_jobs_that_need_one_parent_train_it_once(tmp_path, start_python):
    words = ["id_data=digits", "backbone=resnet20", "scale=smoke", "method=energy", "evaluate=false", "logger=none"]
    words += ["pretrain.max_steps=12", f"paths.outputs={tmp_path}"]
    jobs = [start_python("train.py", *words, f"m_out={m_out}") for m_out in (-7, -6)]
    outs = []
    for job in jobs:
        out, err = job.communicate(timeout=120)
        assert job.returncode == 0, err
        outs.append(out)
    said = "".join(outs)
    assert len(list(tmp_path.glob("runs/energy-*/weights.safetensors"))) == 2
    assert len(list(tmp_path.glob("runs/ce-*/weights.safetensors"))) == 1
    trained = [line for line in said.splitlines() if line.startswith("ce-") and " trains: " in line]
    assert len(trained) == 1
    assert said.count("which is trained first") == 1
    assert said.count("starts from ce-") == 1


def warm(command, cwd, env, stdout, stderr, start_new_session):
    """`subprocess.Popen` of a Python command, all that it says in one file; of another command Popen itself."""
    if command[0] != sys.executable:
        return subprocess.Popen(command, cwd=cwd, env=env, stdout=stdout, stderr=stderr)
    said = Path(stdout.name)
    return WarmPython(command[1:], cwd, env, said.parent, (said.name, said.name))


def test_every_stage_interrupted_once_ends_as_if_nothing_had_been(tmp_path, capsys, monkeypatch):
    """The short form of `make torture`; the training is one with a replay buffer, restarts and their states."""
    monkeypatch.setattr(process, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": warm}))
    words = ["--interruptions", "12", "--methods", "jem_restarts", "--seed", "3", "--folder", str(tmp_path)]
    status = load_script("torture").main(words)
    said = capsys.readouterr().out
    assert status == 0, said
    assert "--seed 3" in said and "and nothing was left over" in said
    refused = said.count("| not permitted here |")
    assert sum(line.count(" 1 of 1 |") + 2 * line.count(" 2 of 2 |") for line in table(said)) == 12 - refused
    (record,) = tmp_path.glob("jem_restarts/whole/runs/*/run.json")
    assert json.loads(record.read_text())["trained"]["restarts"], "the test would show nothing of them"


def table(said: str) -> list[str]:
    """Its rows of stages."""
    return [line for line in said.splitlines() if line.startswith("| ") and not line.startswith(("| stage", "| all"))]


# train.py's first lines, told to end before PyTorch is there.
BEFORE_TORCH = """
import os, runpy, signal, sys

number = signal.Signals[sys.argv.pop()]

class Watching:
    def find_spec(self, name, *_):
        if name == "torch":
            os.kill(os.getpid(), number)

sys.meta_path.insert(0, Watching())
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 138)])
def test_a_signal_while_the_command_starts(cold_python, name, status):
    done = cold_python("-c", BEFORE_TORCH, name)
    assert done.returncode == status
    assert done.stderr.count("\n") == 1 and "before training or evaluation began: nothing is lost" in done.stderr
