"""The commands as a user types them: new processes in the root of the checkout, outputs elsewhere."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ["id_data=digits", "backbone=resnet20", "scale=smoke", "method=energy", "m_in=-25", "m_out=-7"]

Run = Callable[..., subprocess.CompletedProcess[str]]


def start(arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Python with these arguments; one thread, so that machines with other work on them do not stall."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "HYDRA_FULL_ERROR": "0"}
    pipe = subprocess.PIPE
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope="session")
def python() -> Run:
    """Run Python to its end."""
    return lambda *arguments: finish(start(arguments))


@pytest.fixture(scope="session")
def finished_run(python, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Outputs after one smoke run on digits with W&B, which no test may change; and what the command said."""
    outputs = tmp_path_factory.mktemp("finished") / "outputs"
    done = python("train.py", *DIGITS, "ood_data=smoke", "trainer.log_every=1", f"paths.outputs={outputs}")
    assert done.returncode == 0, done.stderr
    return outputs, done


@pytest.fixture
def start_python() -> Callable[..., subprocess.Popen[str]]:
    """Start Python and come back at once."""
    return lambda *arguments: start(arguments)
