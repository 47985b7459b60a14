"""Settings and commands of a tiny problem: ResNet-20 on digits at smoke scale, in a folder of its own."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from farout.commands.cli import main
from farout.config.compose import compose_settings
from farout.config.settings import Settings
from farout.runs.evaluation import evaluate
from farout.runs.training import train


@dataclass
class Done:
    """What a command left."""

    status: int
    out: str
    err: str


@pytest.fixture
def tiny(tmp_path: Path) -> list[str]:
    outputs = f"paths.outputs={tmp_path / 'outputs'}"
    return ["scale=smoke", "id_data=digits", "backbone=resnet20", "logger=none", outputs]


@pytest.fixture
def settings(tiny: list[str]) -> Callable[..., Settings]:
    """The settings of `train.py` with the tiny problem and some overrides."""

    def get(*overrides: str) -> Settings:
        found = _composed(*tiny[:-1], *overrides)
        return replace(found, paths=replace(found.paths, outputs=tiny[-1].partition("=")[2]))

    return get


@cache
def _composed(*overrides: str) -> Settings:
    return compose_settings(overrides)


@pytest.fixture
def runs(tmp_path: Path) -> Callable[[], list[str]]:
    """Names of the run folders so far."""
    return lambda: sorted(path.name for path in tmp_path.glob("outputs/runs/[!.]*"))


@pytest.fixture
def command(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """`python NAME.py OVERRIDES...` of the tiny problem, without starting a process."""

    def call(name: str, *words: str) -> Done:
        GlobalHydra.instance().clear()
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *tiny, *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(name, {"train": train, "eval": evaluate}[name])
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, captured.out, captured.err)

    return call
