"""What loggers are given, that their failures cost no training, and what is refused."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from farout.config.compose import compose_settings
from farout.config.settings import LoggerSettings
from farout.errors import ConfigError, FaroutError
from farout.runs.csv_log import CsvLog
from farout.runs.logger import RunLogger, require_packages
from farout.runs.wandb_log import NAME_LENGTH, Session, group_of, names_of, wandb_id

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

    def define_metric(self, name: str, step_metric: str | None = None, hidden: bool | None = None) -> None:
        pass

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
        require_packages(LoggerSettings("wandb"))
    require_packages(LoggerSettings("none"))


NAMES = ("project", "entity", "group", "job_type")
VARIABLES = ("WANDB_PROJECT", "WANDB_ENTITY", "WANDB_RUN_GROUP", "WANDB_JOB_TYPE", "WANDB_NAME")


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "WANDB_RUN_ID", "WANDB_SWEEP_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_variables")
def test_what_is_typed_comes_before_the_environment_and_that_before_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    folder, session = Path("outputs/runs/ce-s1"), Session("evaluate", "table", known={"id": "other", "entity": "us"})

    def given(*words: str, of: Session = session) -> dict[str, Any]:
        return names_of(folder, compose_settings(["logger=wandb", *words]).logger, of)

    def chosen(*words: str) -> list[Any]:
        return [given(*words)[name] for name in NAMES]

    assert chosen() == ["farout", "us", "table", "evaluate"]
    assert (given()["id"], given(of=Session())["id"], given()["name"]) == ("other", "ce-s1", "ce-s1")
    typed = [f"logger.{name}=mine" for name in NAMES]
    assert chosen(*typed) == ["mine"] * 4
    for name in VARIABLES:
        monkeypatch.setenv(name, "set")
    assert chosen() == [None] * 4 and given()["name"] is None, "W&B reads its own"
    assert chosen(*typed) == ["mine"] * 4
    assert given("logger.tags=[a,b]", "logger.notes='what for'")["tags"] == ["a", "b"]
    monkeypatch.setenv("WANDB_RUN_ID", "agents")
    assert given()["id"] == "agents" and given(of=Session(asked=False))["id"] == "ce-s1"
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    assert given()["id"] is None, "the agent's"
    assert group_of(compose_settings([])) == "sweep"


@pytest.mark.usefixtures("no_variables")
def test_the_group_is_the_sweep_or_the_table() -> None:
    row = compose_settings(["experiment=energy/full/cifar100_energy_ft"])
    assert group_of(row) == "energy-full-cifar100" and group_of(compose_settings([])) is None
    assert row.composition is not None
    assert group_of(replace(row, sweep="first")) == "first"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("", ("wandb",)),
        ("logger=none", ()),
        ("logger=csv", ("csv",)),
        ("logger=[wandb,csv]", ("wandb", "csv")),
        ("logger=[tensorboard,csv,none]", ("csv", "tensorboard")),
        ("logger=[wandb,csv] logger.mode=disabled", ("wandb", "csv")),
        ("logger.csv=true", ("wandb", "csv")),
        ("logger.name=none", ()),
        ("logger=none logger.name=wandb", ("wandb",)),
        ("debug=fdr", ()),
        ("debug=fdr logger=csv", ("csv",)),
    ],
)
def test_loggers_go_together(words: str, names: tuple[str, ...]) -> None:
    assert compose_settings(words.split()).logger.names == names


def test_the_mode_is_the_environments_where_none_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, mode in (("online", "online"), ("", "offline")):
        monkeypatch.setenv("WANDB_MODE", value)
        assert compose_settings([]).logger.mode == mode
    assert compose_settings(["logger.mode=shared"]).logger.mode == "shared"
    monkeypatch.setenv("WANDB_MODE", "onlin")
    with pytest.raises(ConfigError, match="did you mean online"):
        compose_settings([])


def test_the_table_grows_goes_back_and_is_whole_when_it_comes_late(tmp_path: Path) -> None:
    lines = tmp_path / "metrics.jsonl"
    lines.write_text('{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n{"step": 1, "event": "x"}\n[]\n{"step": 3, "a"')
    log, path = CsvLog(tmp_path), tmp_path / "metrics.csv"
    log.log(3, {"a": 3.5})
    assert path.read_text() == "step,a\n1,1\n2,2\n3,3.5\n"
    log.log(4, {"selection": 0.5})
    log.log(4, {"a": 4})
    log.log(5, {"a": 5})
    assert path.read_text() == "step,a,selection\n1,1,\n2,2,\n3,3.5,\n4,4,0.5\n5,5,\n"
    log.log(2, {"a": 2.5})
    log.log(3, {"a": 7})
    assert path.read_text() == "step,a\n1,1\n2,2.5\n3,7\n"


def test_without_tensorboard_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(FaroutError, match=r"^TensorBoard is not installed: pip install 'farout\[tensorboard\]'"):
        require_packages(LoggerSettings(tensorboard=True))
