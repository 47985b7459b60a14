"""hydra/sweeper=optuna: it minimises the validation figure, prunes, and goes on where it was; no network is trained."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from farout.commands.cli import main
from farout.config.settings import Settings
from farout.errors import FaroutError
from tiny_problem import Done

WORDS = ["method=energy", "holdout=0.2", "m_in=interval(-30.0,-10.0)", "hydra.sweeper.startup_trials=2", "sweep=mine"]
Task = Callable[..., float]


def figure(settings: Settings) -> float:
    """Best where m_in is -20."""
    return (float(settings.method.arguments["m_in"]) + 20) ** 2 / 1000


def task(settings: Settings, report: Any) -> float:
    """A training that looks as often at the holdout as it is told to."""
    for look in range(1, settings.validations + 1):
        report(look, figure(settings) + 1 / look)
    return figure(settings)


@pytest.fixture
def searched(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[Done, list[dict[str, str]]]]:
    """The command with so many trials, and the table that it leaves."""

    def call(trials: int, *words: str, by: Task = task, outputs: str = "outputs") -> tuple[Done, list[dict[str, str]]]:
        GlobalHydra.instance().clear()
        where = [*tiny[:-1], f"paths.outputs={tmp_path / outputs}", f"hydra.sweeper.n_trials={trials}"]
        monkeypatch.setattr(sys, "argv", ["train.py", "-m", "hydra/sweeper=optuna", *where, *WORDS, *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main("train", by)
        said = capsys.readouterr()
        table = tmp_path / outputs / "sweeps/mine/sweep.csv"
        rows = list(csv.DictReader(table.open(newline=""))) if table.is_file() else []
        return Done(int(str(ended.value.code)), said.out, said.err), rows

    return call


Searched = Callable[..., tuple[Done, list[dict[str, str]]]]


class TestWithOptuna:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("optuna", reason="Optuna is an extra: pip install farout[optuna]")

    def test_it_prunes_what_is_worse_and_finds_the_best(self, searched: Searched) -> None:
        done, rows = searched(8)
        assert (done.status, done.err) == (0, "") and len(rows) == 8
        states = [row["state"] for row in rows]
        assert states[:2] == ["done", "done"] and set(states) == {"done", "pruned"}
        distance = {state: [abs(float(row["m_in"]) + 20) for row in rows if row["state"] == state] for state in states}
        assert min(distance["done"]) < min(distance["pruned"]) and min(distance["done"]) < 2
        assert all("when others did better" in row["why"] for row in rows if row["state"] == "pruned")
        best = min((row for row in rows if row["state"] == "done"), key=lambda row: abs(float(row["m_in"]) + 20))
        assert f"best of 8 trials: #{best['#']} m_in={best['m_in']}" in done.out
        assert next(line for line in done.out.splitlines() if line.startswith("#")) == f"#0: m_in={rows[0]['m_in']}"

    def test_it_goes_on_as_if_it_had_never_ended(self, searched: Searched) -> None:
        searched(3)
        went_on, whole = searched(5)[1], searched(5, outputs="others")[1]
        assert [row["m_in"] for row in went_on] == [row["m_in"] for row in whole]
        assert len({row["m_in"] for row in whole}) == len(whole) == 5
        assert searched(1, "hydra.sweeper.seed=2", outputs="third")[1][0]["m_in"] != whole[0]["m_in"]

    def test_a_failed_trial_stops_nothing_and_comes_again_with_its_values(self, searched: Searched) -> None:
        calls: list[int] = []

        def fails_once(settings: Settings, report: Any) -> float:
            calls.append(1)
            if len(calls) == 2:
                raise FaroutError("the disk is full")
            return task(settings, report)

        done, rows = searched(3, "hydra.sweeper.pruner=null", by=fails_once)
        assert done.status == 2 and [row["state"] for row in rows] == ["done", "failed", "done"]
        assert done.err == "error: 1 of the trials failed, the first one because: the disk is full\n"
        failed = rows[1]["m_in"]
        again, rows = searched(3, "hydra.sweeper.pruner=null", by=fails_once)
        assert again.status == 0 and len(calls) == 4 and [row["state"] for row in rows] == ["done"] * 3
        assert failed in [row["m_in"] for row in rows]

    def test_spaces_are_those_that_hydra_can_write(self, searched: Searched) -> None:
        words = ["hydra.sweeper.sampler=random", "seed=choice(3,5)", "lr=tag(log,interval(1e-4,1e-1))", "m_out=-9,-3"]
        _, rows = searched(6, *words, "batch_size=range(16,33,8)", "hydra.sweeper.pruner=null")
        assert {row["seed"] for row in rows} == {"3", "5"} and {row["m_out"] for row in rows} == {"-9", "-3"}
        assert {row["batch_size"] for row in rows} <= {"16", "24", "32"}
        assert all(1e-4 <= float(row["lr"]) <= 1e-1 for row in rows)

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["holdout=0.0"], "minimises the figure on the holdout of a training: add holdout=0.1"),
            (["m_in=-25"], "there is nothing to search"),
            (["hydra.sweeper.pruner=bayes"], "hydra.sweeper.pruner=bayes is not there: choose from median, halving"),
            (["hydra.sweeper.n_jobs=0"], "hydra.sweeper.n_jobs=0"),
        ],
    )
    def test_what_is_refused_leaves_nothing(
        self, searched: Searched, tmp_path: Path, words: list[str], said: str
    ) -> None:
        done, _ = searched(3, *words)
        assert done.status == 2 and said in done.err and done.err.count("\n") == 1
        assert not (tmp_path / "outputs").exists()


def test_without_optuna_one_line_says_what_to_install(
    searched: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    done, _ = searched(3)
    assert (done.status, done.err) == (2, "error: hydra/sweeper=optuna needs Optuna: pip install farout[optuna]\n")
    assert not (tmp_path / "outputs").exists()


def test_the_holdout_is_looked_at_during_training_and_changes_nothing(
    command: Callable[..., Done], tmp_path: Path
) -> None:
    words = ["method=energy", "holdout=0.2", "pretrain.holdout=0.2", "evaluate=false", "max_steps=5"]
    seen = []
    for place, more in (("looked", ["validations=2"]), ("not", [])):
        assert command("train", *words, *more, f"paths.outputs={tmp_path / place}").status == 0
        (run,) = (tmp_path / place).glob("runs/energy-*")
        (parent,) = (tmp_path / place).glob("runs/ce-*")
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        looks = [line["step"] for line in lines if "validation/fpr95" in line]
        assert looks == ([2, 3, 5] if more else [5])
        last = [line["validation/fpr95"] for line in lines if "validation/fpr95" in line][-1]
        assert last == json.loads((run / "run.json").read_text())["validation"]["fpr95"]
        assert (parent / "metrics.jsonl").read_text().count("validation/fpr95") == 1
        seen.append((run.name, (run / "weights.safetensors").read_bytes()))
    assert seen[0] == seen[1]
