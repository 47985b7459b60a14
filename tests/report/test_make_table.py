"""The command: reads folders and files, prints, writes, and fails in one line."""

import json
from pathlib import Path
from types import ModuleType

import pytest
from synthetic_records import full_table

from script_loader import load_script


@pytest.fixture
def make_table() -> ModuleType:
    return load_script("make_table")


def test_reads_run_folders_and_ledger(
    make_table: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *others = full_table()
    run = tmp_path / "outputs" / "ce-s1"
    run.mkdir(parents=True)
    (run / "results.json").write_text(json.dumps(first))
    ledger = tmp_path / "results"
    ledger.mkdir()
    for record in others:
        (ledger / f"{record['run']}.json").write_text(json.dumps(record))
    out = tmp_path / "tables"
    assert make_table.main(["--run", str(run), "--results", str(ledger), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "48.00 ± 2.83" in printed
    assert max(map(len, printed.splitlines())) <= 120
    assert "48.00 ± 2.83" in (out / "table1.md").read_text("utf-8")
    assert (out / "table1.csv").is_file()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("{", "is not JSON"),
        ("[]", "no record of a run"),
        ('{"run": 1}', "no record of a run"),
    ],
)
def test_errors_are_one_line(
    make_table: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    message: str,
) -> None:
    file = tmp_path / "record.json"
    if content is not None:
        file.write_text(content)
    assert make_table.main(["--run", str(file), "--out", str(tmp_path / "out")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / "out").exists()


def test_an_absent_ledger_is_an_error(
    make_table: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_table.main(["--results", str(tmp_path / "none")]) == 2
    assert "there is no folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("rows", 0, "fpr95"), None),  # taken away
        (("rows", 0, "vote"), [1]),
        (("rows", 0, "stand_in_for"), 0.5),
        (("id", "ece"), "x"),
        (("geometry",), {"features": "x"}),
    ],
)
def test_figures_of_another_shape_are_one_line(
    make_table: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: tuple, value: object
) -> None:
    record = full_table()[0]
    part = record["evaluations"][0]
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    if value is None:
        del part[place[-1]]
    file = tmp_path / "record.json"
    file.write_text(json.dumps(record))
    assert make_table.main(["--run", str(file), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and ("record" in error or record["run"] in error)
