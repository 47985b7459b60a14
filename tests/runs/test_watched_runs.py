"""One run that is watched in every way: stopped and resumed, under the agent of a W&B sweep, and evaluated later.

It is trained for six steps with W&B (offline), CSV and, where it is installed, TensorBoard; interrupted in its fifth
step by an agent's command, resumed from its third by another, and evaluated by a third.
"""

import csv
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import wandb
from filelock import FileLock

from farout.commands import status as status_command
from farout.config.compose import compose_settings
from farout.engine import progress
from farout.errors import FaroutError
from farout.methods import EnergyFineTuning
from farout.runs.evaluation import evaluate
from farout.runs.locks import lock_file
from farout.runs.overrides import compose_evaluation
from farout.runs.status import RunStatus, status_of
from farout.runs.training import train
from wandb_files import items, of_kind, records

STEPS = [1, 2, 3, 4, 5, 6]
HAS_TENSORBOARD = find_spec("tensorboard") is not None
LOGGERS = f"logger=[wandb,csv{',tensorboard' if HAS_TENSORBOARD else ''}]"
RUN = ["method=energy", "id_data=digits", "backbone=resnet20", "scale=smoke", "max_steps=6", "holdout=0.1"]
RUN += ["pretrain.holdout=0.1", "ood_data=smoke", "trainer.log_every=1", "trainer.checkpoint_steps=3"]
AGENT = {"WANDB_SWEEP_ID": "sweep1", "WANDB_RUN_ID": "agent1", "WANDB_PROJECT": "of_the_agent"}


@dataclass
class Watched:
    """Its outputs; after each command its status, and what was said on standard error."""

    outputs: Path
    status: list[RunStatus] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        (found,) = self.outputs.glob("runs/energy-*")
        return found

    def do(self, what: Any, words: list[str], **environment: str) -> None:
        """A command with its own environment, as a process of its own would have it."""
        compose = compose_settings if what is train else compose_evaluation
        settings = compose(words)
        with pytest.MonkeyPatch.context() as patch, self.heard():
            for name in ("FIRST_LINE", "NEXT_LINE"):
                patch.setattr(progress, name, 0.0)
            patch.setattr(progress, "for_terminal", lambda: None)
            for name, value in environment.items():
                patch.setenv(name, value)
            wandb.teardown()
            what(replace(settings, paths=replace(settings.paths, outputs=str(self.outputs))))

    @contextmanager
    def heard(self) -> Iterator[None]:
        said = io.StringIO()
        try:
            with redirect_stderr(said):
                yield
        finally:
            self.said.append(said.getvalue())

    def wandb_sessions(self) -> list[list[Any]]:
        """The records of every command, in their order."""
        return [records(path) for path in sorted(self.folder.glob("wandb/offline-run-*/*.wandb"))]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    found = Watched(tmp_path_factory.mktemp("watched"))
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            found.do(train, [*RUN, LOGGERS], **AGENT)
    found.status.append(status_of(found.folder))
    found.do(train, [*RUN, LOGGERS, "logger.notes=typed"], WANDB_NOTES="set", WANDB_TAGS="a,b", WANDB_RUN_GROUP="mine")
    found.status.append(status_of(found.folder))
    found.do(evaluate, [*RUN, LOGGERS, "score=[msp]", "logger.project=typed"])
    yield found
    wandb.teardown()


def interrupt_at(patch: pytest.MonkeyPatch, number: int, error: BaseException | None = None) -> None:
    """Let the n-th step of fine-tuning end in an error, or in Ctrl-C."""
    real, seen = EnergyFineTuning.loss, []

    def loss(self: Any, model: Any, batches: Any) -> Any:
        seen.append(1)
        if len(seen) == number:
            raise error or KeyboardInterrupt
        return real(self, model, batches)

    patch.setattr(EnergyFineTuning, "loss", loss)


def points(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def points_by_step(folder: Path) -> dict[int, dict[str, Any]]:
    """As they came last; what was said of a step in parts is together."""
    found: dict[int, dict[str, Any]] = {}
    for point in points(folder):
        found.setdefault(point["step"], {}).update(point)
    return found


def test_watching_changes_no_weight(watched: Watched, tmp_path: Path) -> None:
    steps = [point["step"] for point in points(watched.folder)]
    assert steps == [1, 2, 3, 4, 4, 5, 6, 6], "it was resumed; the last step also has the validation figures"
    alone = Watched(tmp_path)
    shutil.copytree(
        next(watched.outputs.glob("runs/ce-*")), tmp_path / "runs" / next(watched.outputs.glob("runs/ce-*")).name
    )
    alone.do(train, [*RUN, "logger=none", "logger.accuracy_images=0", "evaluate=false"])
    assert (alone.folder / "weights.safetensors").read_bytes() == (watched.folder / "weights.safetensors").read_bytes()
    assert all("holdout/accuracy" in point for point in points_by_step(watched.folder).values())
    assert not any("holdout/accuracy" in point for point in points(alone.folder))
    assert not (alone.folder / "metrics.csv").exists() and not (alone.folder / "wandb").exists()


def test_it_is_one_run_in_wandb_the_agents(watched: Watched) -> None:
    (first,), (second,), (third,) = (of_kind(log, "run") for log in watched.wandb_sessions())
    assert {run.run_id for run in (first, second, third)} == {"agent1"}
    assert [run.job_type for run in (first, second, third)] == ["train", "train", "evaluate"]
    assert [run.run_group for run in (first, second, third)] == ["sweep1", "mine", ""]
    assert [run.project for run in (first, second, third)] == ["of_the_agent", "of_the_agent", "typed"]
    assert (list(second.tags), second.notes) == (["a", "b"], "typed")
    assert {run.display_name for run in (first, second, third)} == {watched.folder.name}
    (parent,) = watched.outputs.glob("runs/ce-*")
    (file,) = parent.glob("wandb/offline-run-*/*.wandb")
    (run,) = of_kind(records(file), "run")
    assert (run.run_id, run.run_group, run.sweep_id) == (parent.name, "sweep1", ""), "the agent's run is the child"


def test_curves_and_evaluations_have_steps_of_their_own_there(watched: Watched) -> None:
    first, second, third = watched.wandb_sessions()
    axes = {metric.glob_name or metric.name: metric.step_metric for metric in of_kind(first, "metric")}
    assert axes["train/*"] == axes["holdout/*"] == axes["lr"] == "step" and axes["id/*"] == "evaluation"
    assert {metric.glob_name: metric.step_metric for metric in of_kind(third, "metric")}["energy/*"] == "evaluation"
    curves = [[item["step"] for item in items(log, "history") if "holdout/accuracy" in item] for log in (first, second)]
    assert curves == [[1, 2, 3, 4], [4, 5, 6]]
    evaluations = [item for log in (second, third) for item in items(log, "history") if "evaluation" in item]
    assert [item["evaluation"] for item in evaluations] == [2, 4], "entries of results.json"
    entries = json.loads((watched.folder / "results.json").read_text())["evaluations"]
    for item, entry in zip(evaluations, entries[::2], strict=True):
        assert item["energy/msp/mean/fpr95"] == pytest.approx(entry["means"][0]["fpr95"])


def test_the_table_has_every_step_once(watched: Watched) -> None:
    with (watched.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == STEPS
    last = points_by_step(watched.folder)
    for row in rows:
        assert {key: float(value) for key, value in row.items() if value} == last[int(row["step"])]


@pytest.mark.skipif(not HAS_TENSORBOARD, reason="TensorBoard is not installed")
def test_tensorboard_has_every_step_once(watched: Watched) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(watched.folder / "tensorboard")).Reload()
    last = points_by_step(watched.folder)
    for name in ("train/total", "holdout/accuracy"):
        assert [event.step for event in found.Scalars(name)] == STEPS
        assert [event.value for event in found.Scalars(name)] == pytest.approx([last[step][name] for step in STEPS])
    assert [event.step for event in found.Scalars("evaluation/energy/msp/mean/fpr95")] == [2, 4]


def test_without_a_terminal_it_says_where_it_is(watched: Watched) -> None:
    first, second, _ = watched.said  # the third command evaluates from outputs that the second kept
    assert "ce: step 3 of 3 (100.0 %) | " in first, "the parent"
    (line,) = [line for line in second.splitlines() if line.startswith("energy: step 5 of 6 (83.3 %), ")]
    for part in ("s left | total ", " cross_entropy ", " energy_margin ", " images/s"):
        assert part in line
    assert [line for line in second.splitlines() if line.startswith("  gaussian@500: ")], "evaluations too"


def test_its_status(watched: Watched) -> None:
    stopped, done = watched.status
    assert (stopped.state, stopped.step, stopped.total_steps) == ("interrupted", 4, 6)
    assert stopped.seconds_left is not None and 0 < stopped.seconds_left < 60
    assert stopped.last.startswith("step 4: total ") and "holdout/accuracy" in stopped.last
    assert (done.state, done.step, done.total_steps, done.seconds_left) == ("evaluated", 6, 6, None)
    with FileLock(lock_file(watched.folder)):
        assert status_of(watched.folder).state == "running"
    assert status_of(watched.folder) == done


def test_status_of_all(watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run in watched.outputs.glob("runs/*-*"):
        shutil.copytree(run, tmp_path / "runs" / run.name)
    other = Watched(tmp_path)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(FaroutError):
        interrupt_at(patch, 2, FaroutError("no more\nluck"))
        other.do(train, [*RUN, "seed=2", "logger=none", "init_from=null"])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with FileLock(lock_file(tmp_path / "runs/waits-for-its-parent-s1")):
        before |= {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        capsys.readouterr()
        assert status_command.main([str(tmp_path), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert status_command.main([str(tmp_path)]) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before, "reading only"
    assert [run["state"] for run in found] == ["running", "failed", "finished", "evaluated"]
    assert found[1]["last"] == "step 1: failed: no more luck" and found[1]["name"].endswith("-s2")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1 running, 1 failed, 1 finished, 1 evaluated"
    assert [line.split()[:2] for line in lines[1:-1]] == [[run["name"], run["state"]] for run in found]
    assert "6 of 6 (100 %)" in lines[4] and "no more luck" in lines[2]
