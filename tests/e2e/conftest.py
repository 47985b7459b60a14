"""The commands as a user types them: new processes in the root of the checkout, outputs elsewhere."""

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from tiny_problem import command, tiny
from warm_python import WarmPython, finished

__all__ = ["command", "tiny"]

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ["id_data=digits", "backbone=resnet20", "scale=smoke", "method=energy", "m_in=-25", "m_out=-7"]
TIMEOUT = 120

Run = Callable[..., subprocess.CompletedProcess[str]]


def environment() -> dict[str, str]:
    """One thread, so that machines with other work on them do not stall."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "HYDRA_FULL_ERROR": "0"}


@pytest.fixture(scope="session")
def cold_python() -> Run:
    """Run Python to its end, from nothing: nothing is loaded but what the command loads itself."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=TIMEOUT, check=False
        )

    return run


@pytest.fixture(scope="session")
def start_python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., WarmPython]:
    """Start Python and come back at once."""
    said, numbers = tmp_path_factory.mktemp("said"), count()
    return lambda *arguments: WarmPython(arguments, ROOT, environment(), said / str(next(numbers)))


@pytest.fixture(scope="session")
def python(start_python: Callable[..., WarmPython]) -> Run:
    """Run Python to its end."""
    return lambda *arguments: finished(start_python(*arguments), TIMEOUT)


@pytest.fixture(scope="session")
def finished_run(
    cold_python: Run, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess]:
    """Outputs after one smoke run on digits with W&B, which no test may change; and what the command said."""
    outputs = tmp_path_factory.mktemp("finished") / "outputs"
    done = cold_python("train.py", *DIGITS, "ood_data=smoke", "trainer.log_every=1", f"paths.outputs={outputs}")
    assert done.returncode == 0, done.stderr
    return outputs, done
