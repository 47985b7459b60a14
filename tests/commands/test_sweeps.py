"""A sweep ends with its table: what failed and why, the same folder again, and only what is missing is done again."""

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hydra.core.global_hydra import GlobalHydra

from documents import commands, fences
from farout.commands.cli import main
from farout.commands.sweeping import Sweep
from farout.config.settings import ROOT
from farout.errors import ConfigError
from farout.files import save_json
from farout.report.sweeps.page import as_markdown
from farout.report.sweeps.records import Job, SweepFolder
from farout.report.sweeps.rows import read_table
from farout.runs import training
from farout.runs.evaluation import evaluate
from script_loader import load_script
from tiny_problem import Done

PAGE = ROOT / "docs/scale.md"


def ran(name: str, *words: str) -> Done:
    """`python NAME.py WORDS...` in this process, to its end."""
    GlobalHydra.instance().clear()
    said, complained = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(complained):
        patch.setattr(sys, "argv", [f"{name}.py", *words])
        with pytest.raises(SystemExit) as ended:
            main(name, {"train": training.train, "eval": evaluate}[name])
    return Done(int(str(ended.value.code)), said.getvalue(), complained.getvalue())


@dataclass
class Swept:
    """The sweep of the page, with a job that cannot be; and the same once more, in other words."""

    outputs: Path
    first: Done
    again: Done
    untouched: bool

    @property
    def folder(self) -> Path:
        return self.outputs / "sweeps/first"

    @property
    def rows(self) -> list[dict[str, str]]:
        return rows_of(self.folder)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def page() -> tuple[list[str], str]:
    """The words of the page's first sweep, and what it says that this printed."""
    language, text = next(each for each in fences(PAGE.read_text()) if "sweep=first" in each[1])
    (words,) = commands(text)
    assert language == "bash" and words[:2] == ["python", "train.py"]
    return words[2:], next(text for language, text in fences(PAGE.read_text()) if "sweep first:" in text)


@pytest.fixture(scope="module")
def swept(page: tuple[list[str], str], tmp_path_factory: pytest.TempPathFactory) -> Swept:
    outputs = tmp_path_factory.mktemp("swept")
    words = [*page[0], f"paths.outputs={outputs}"]
    first = ran("train", *words)
    weights = {path: path.stat().st_mtime_ns for path in outputs.glob("runs/*/weights.safetensors")}
    again = ran("train", *reversed(words), "trainer.log_every=7")
    untouched = weights == {path: path.stat().st_mtime_ns for path in outputs.glob("runs/*/weights.safetensors")}
    return Swept(outputs, first, again, untouched and len(weights) == 2)


def test_a_failing_job_stops_nothing_and_its_row_says_why(swept: Swept) -> None:
    assert (swept.first.status, swept.first.err) == (2, "error: lr=-1 must be positive\n")
    assert [(row["#"], row["lr"], row["state"], row["why"]) for row in swept.rows] == [
        ("0", "0.1", "done", ""),
        ("1", "-1", "failed", "lr=-1 must be positive"),
        ("2", "0.01", "done", ""),
    ]


def test_it_prints_what_the_page_shows(swept: Swept, page: tuple[list[str], str]) -> None:
    """But for digits, which another machine may round otherwise, and what training says."""

    def shape(text: str) -> list[str]:
        return [re.sub(r"\d+\.\d\d\b", "0.00", " ".join(line.split())) for line in text.splitlines()]

    said = shape(swept.first.out.replace(str(swept.outputs), "outputs"))
    assert [line for line in said if line in shape(page[1])] == shape(page[1])


def test_the_same_words_in_another_order_do_again_only_what_failed(swept: Swept) -> None:
    assert swept.again.status == 2 and swept.untouched
    assert swept.again.out.count("nothing left to do") == 2 and swept.again.out.count("job 1 failed") == 1
    files = {"sweep.json", "sweep.csv", "sweep.md", "sweep.html"}
    assert {path.name for path in swept.folder.iterdir()} == {"jobs", *files}
    assert [path.name for path in (swept.outputs / "sweeps").iterdir()] == ["first"]


def test_its_figures_are_those_of_the_runs(swept: Swept) -> None:
    done = [row for row in swept.rows if row["state"] == "done"]
    for row in done:
        run = swept.outputs / "runs" / row["run"]
        record, results = (json.loads((run / name).read_text()) for name in ("run.json", "results.json"))
        assert record["identity"]["schedule"]["lr"] == float(row["lr"]) and row["score"] == "msp"
        assert float(row["validation FPR95"]) == pytest.approx(100 * record["validation"]["fpr95"], abs=0.006)
        for entry in results["evaluations"]:
            (mean,) = [mean for mean in entry["means"] if mean["score"] == "msp"]
            name = f"{entry['protocol']['name']} on smoke, 64 a set"
            assert float(row[f"{name} FPR95"]) == pytest.approx(100 * mean["fpr95"], abs=0.006)
            assert float(row[f"{name} AUROC"]) == pytest.approx(100 * mean["auroc"], abs=0.006)


def test_the_command_makes_it_again(swept: Swept, capsys: pytest.CaptureFixture[str]) -> None:
    page = swept.folder / "sweep.md"
    text = page.read_text()
    page.unlink()
    assert load_script("make_table").main([f"sweep={swept.folder.name}", "--outputs", str(swept.outputs)]) == 0
    assert page.read_text() == text and "**" in text and "nothing is ever chosen by them" in text
    assert "2 done, 1 failed" in capsys.readouterr().out


def test_a_sweep_of_evaluations_has_its_own_figures_and_is_not_repeated(swept: Swept, tmp_path: Path) -> None:
    name = swept.rows[0]["run"]
    run = Path(shutil.copytree(swept.outputs / "runs" / name, tmp_path / "runs" / name))
    words = ["-m", f"run={run}", "score.energy.temperature=1,50", "score=energy", "ood_data=smoke", "sweep=warm"]
    words += ["max_eval_images=20", "logger=none", f"paths.outputs={tmp_path}"]
    done = ran("eval", *words)
    assert done.status == 0, done.err
    rows = rows_of(tmp_path / "sweeps/warm")
    assert [row["score.energy.temperature"] for row in rows] == ["1", "50"]
    aurocs = [row["energy on smoke, 20 a set AUROC"] for row in rows]
    entries = json.loads((run / "results.json").read_text())["evaluations"][-4::2]
    wanted = [100 * entry["means"][0]["auroc"] for entry in entries]
    assert [float(value) for value in aurocs] == pytest.approx(wanted, abs=0.006) and aurocs[0] != aurocs[1]
    again = ran("eval", *words)
    assert again.out.count("nothing left to do") == 2 and rows_of(tmp_path / "sweeps/warm") == rows


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """Three jobs, of which two have run: the first is better on the holdout, the second on the test sets."""
    folder = SweepFolder(tmp_path / "sweeps/mine")
    jobs = [Job(i, ("method=ce", f"lr={lr}")) for i, lr in enumerate(("0.1", "0.2", "0.3"))]
    folder.begin("train", ["method=ce", "lr=0.1,0.2,0.3"], ["lr"], jobs)
    for job, validation, test in zip(jobs[:2], (0.2, 0.4), (0.9, 0.1), strict=True):
        run = tmp_path / f"runs/ce-{job.number}"
        identity = {"method": {"name": "ce"}, "backbone": {"name": "net"}, "id_data": {"name": "digits"}}
        save_json(run / "run.json", {"identity": identity, "validation": {"fpr95": validation}})
        row = {"score": "msp", "ood": "x", "fpr95": test, "auroc": 0.5, "aupr": 0.5}
        entry = {"protocol": {"name": "plain"}, "ood_data": "list", "max_eval_images": None, "id": {}, "rows": [row]}
        record = {"run": run.name, "identity": identity, "evaluations": [{**entry, "means": [row]}]}
        save_json(run / "results.json", record)
        folder.write(replace(job, state="done", run=f"../../runs/{run.name}"))
    return folder


def test_the_holdout_alone_selects(folder: SweepFolder) -> None:
    table = read_table(folder)
    assert table.best is table.rows[0] and table.conditions == [("plain", "list", None)]
    assert [row.job.state for row in table.rows] == ["done", "done", "not run"]
    text = as_markdown(table)
    assert "| 0 | 0.1 | **20.00** | msp | 90.00 | 50.00 | done |" in text and text.count("**") == 2
    assert "| 1 | 0.2 | 40.00 | msp | 10.00 | 50.00 | done |" in text and "| 2 | 0.3 | – |" in text


def test_a_killed_job_is_told_from_one_that_runs(folder: SweepFolder) -> None:
    job = folder.jobs()[2]
    folder.write(replace(job, state="running"))
    with folder.held(job):
        assert folder.jobs()[2].state == "running"
    assert (folder.jobs()[2].state, folder.jobs()[2].reason) == ("interrupted", "its process was killed")
    with FileLock(folder.path / "jobs" / f".{job.key}.lock", timeout=0):
        pass  # looking at it left it free


def test_a_job_has_its_number_for_good(folder: SweepFolder) -> None:
    outputs = f"paths.outputs={folder.path.parents[1]}"
    more = Sweep.of("train", ["method=ce", "lr=0.3,0.05,0.1", "sweep=mine", outputs], [])
    assert more.folder.path == folder.path
    assert {job.overrides[-1]: job.number for job in more.planned.values()} == {"lr=0.3": 2, "lr=0.05": 3, "lr=0.1": 0}


def test_its_name_follows_from_what_is_done_not_from_how() -> None:
    def name(*words: str, command: str = "train") -> str:
        return Sweep.of(command, words, []).folder.name

    one = name("method=energy", "m_in=-25,-23", "seed=1,2")
    assert re.fullmatch(r"m_in-seed-[0-9a-f]{8}", one)
    assert name("seed=1,2", "logger=none", "m_in=-25,-23", "method=energy", "trainer.device=cpu") == one
    others = [name("method=energy", "m_in=-25,-22", "seed=1,2"), name("method=oe", "m_in=-25,-23", "seed=1,2")]
    others.append(name("method=energy", "m_in=-25,-23", "seed=1,2", command="eval"))
    assert len({one, *others}) == 4
    with pytest.raises(ConfigError, match="is no name of a folder"):
        name("seed=1,2", "sweep=../x")


def test_stopped_in_the_first_job_it_leaves_its_table_and_is_finished_by_the_same_command(
    command: Callable[..., Done], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stop(*given: Any) -> None:
        raise KeyboardInterrupt

    words = ["-m", "method=ce", "evaluate=false", "seed=1,2", "sweep=stopped"]
    with monkeypatch.context() as patch:
        patch.setattr(training, "training_data", stop)
        assert command("train", *words).status == 130
    assert [row["state"] for row in rows_of(tmp_path / "outputs/sweeps/stopped")] == ["interrupted", "not run"]
    assert command("train", *words).status == 0
    assert [row["state"] for row in rows_of(tmp_path / "outputs/sweeps/stopped")] == ["done", "done"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweep=x"], "sweep=x names a sweep: add -m"),
        (["-m", "sweep=a,b", "seed=1,2"], "sweep=a,b is no name of a folder"),
        (["-m", "seed=1,2", "epoch=3"], "did you mean epochs"),
        (["validations=2"], "validations=2 looks at held-out images: add holdout=0.1"),
    ],
)
def test_what_is_refused_leaves_nothing(command: Callable[..., Done], tmp_path: Path, words: list[str], said: str):
    done = command("train", *words)
    assert done.status == 2 and re.fullmatch(r"error: [^\n]+\n", done.err) and said in done.err
    assert not (tmp_path / "outputs").exists()
