"""Commands of the tiny problem, and a cluster, for tests of command lines."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_slurm import FakeSlurm
from tiny_problem import command, runs, settings, tiny

__all__ = ["command", "runs", "settings", "tiny"]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    """A little of Slurm on the PATH; whatever was submitted has ended when the test has."""
    pytest.importorskip("submitit", reason="submitit is an extra: pip install farout[slurm]")
    found = FakeSlurm(tmp_path / "cluster")
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    yield found
    found.release()
    found.wait()
