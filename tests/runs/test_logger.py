"""What Weights & Biases is given, and that its failures cost no training."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from farout.config.settings import LoggerSettings
from farout.errors import FaroutError
from farout.runs.logger import NAME_LENGTH, RunLogger, require_package, wandb_id

Start = Callable[..., RunLogger]


class FakeRun:
    """A W&B run that takes what it is told, until the disk is full."""

    def __init__(self, full_after: int = 10**9) -> None:
        self.told: list[str] = []
        self.full_after = full_after

    def log(self, values: dict[str, Any]) -> None:
        if len(self.told) >= self.full_after:
            raise OSError(28, "No space left on device")
        self.told.append("log")

    def finish(self, exit_code: int) -> None:
        self.told.append("finish")


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Start:
    """A logger whose W&B hands out `run`, or raises it."""

    def get(run: Any, mode: str = "offline", folder: str = "run") -> RunLogger:
        given: dict[str, Any] = {}

        def init(**options: Any) -> Any:
            given.update(options)
            if isinstance(run, Exception):
                raise run
            run.given = given
            return run

        monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Settings=dict))
        place = tmp_path / folder
        place.mkdir()
        return RunLogger(place, LoggerSettings("wandb", mode=mode), {})  # type: ignore[arg-type]

    return get


def test_ids_are_made_of_what_wandb_takes_and_differ_where_names_do() -> None:
    kept = "energy-wrn_40_2-own@0a1b2c3d-random_images_300k-1f2e3d4c-s1"
    assert wandb_id(kept) == kept
    names = ["run:a#1", "run;a?1", "run/a%1", "x" * 300, "x" * 301, "größe", "\udcff", " run "]
    ids = [wandb_id(name) for name in names]
    assert len(set(ids)) == len(names) and ids == [wandb_id(name) for name in names]
    for found in ids:
        assert len(found) <= NAME_LENGTH and not set(found) & set(" :;,#?/'%\\") and found.isascii()
    assert ids[0].startswith("run-a-1-")


def test_a_run_keeps_its_folders_name(start: Start) -> None:
    run: Any = FakeRun()
    start(run, folder="run:a#1")
    assert (run.given["name"], run.given["id"]) == ("run:a#1", wandb_id("run:a#1"))


def test_what_stops_wandb_does_not_stop_training(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    run = FakeRun(full_after=1)
    logger = start(run)
    for step in range(3):
        logger.log(step, {"train/total": 1.0})
    logger.close()
    assert run.told == ["log"]
    assert len(logger.lines.read_text().splitlines()) == 3
    (line,) = capsys.readouterr().out.splitlines()
    assert "No space left on device" in line and str(logger.lines) in line


@pytest.mark.parametrize(("mode", "advice"), [("offline", "use logger=none"), ("online", "or logger.mode=offline")])
def test_advice_is_what_was_not_done_already(start: Start, mode: str, advice: str) -> None:
    with pytest.raises(FaroutError) as raised:
        start(RuntimeError("no\nway"), mode)
    message = str(raised.value)
    assert "did not start (no)" in message and message.endswith(advice)


def test_without_the_package_there_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(FaroutError, match=r"did not start .*wandb.*: use logger=none$"):
        RunLogger(tmp_path, LoggerSettings("wandb"), {})
    with pytest.raises(FaroutError, match=r"cannot be imported .*wandb.*: use logger=none$"):
        require_package(LoggerSettings("wandb"))
    require_package(LoggerSettings("none"))
