"""scripts/verdicts.py: prints, writes what is written from results/, and says what is not current."""

import shutil
from pathlib import Path

import pytest

from farout.commands import verdicts
from farout.config.settings import ROOT
from farout.files import save_json
from farout.report.records import read_record
from farout.reproduce import pages


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of results/ and of the pages and pictures, which the command takes for the repository's."""
    shutil.copytree(ROOT / "results", tmp_path / "results")
    for folder in ("docs/papers", "docs/figures"):
        (tmp_path / folder).mkdir(parents=True)
    for copied in ["README.md", "docs/*.md", "docs/papers/*.md", "docs/figures/*.svg"]:
        for page in ROOT.glob(copied):
            shutil.copy(page, tmp_path / page.relative_to(ROOT))
    monkeypatch.setattr(verdicts, "ROOT", tmp_path)
    for function in (pages.pages_of, pages.draw, pages.pictures_of):
        monkeypatch.setattr(function, "__defaults__", (tmp_path,))
    return tmp_path


def test_a_changed_record_makes_pages_old_until_they_are_written(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verdicts.main(["--check"]) == 0
    path = tree / "results/full-ce-wrn_40_2-cifar10-288a3327-s1.json"
    path.write_text(path.read_text().replace('"accuracy": 0.94', '"accuracy": 0.95', 1))
    capsys.readouterr()
    assert verdicts.main(["--check"]) == 2
    said = capsys.readouterr().out
    assert "not current: docs/papers/energy.md (make verdicts)" in said and "not current: docs/verdicts.md" in said
    assert verdicts.main([]) == 0
    assert "written: docs/results.md" in capsys.readouterr().out
    assert verdicts.main(["--check"]) == 0
    assert "95.8" in (tree / "docs/results.md").read_text()


def test_a_picture_is_old_when_the_records_say_otherwise_and_is_drawn_the_same_again(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verdicts.main([]) == 0
    name = "docs/figures/cider-medium-resnet18x64-cifar10-genuine-angles.svg"
    drawn = (tree / name).read_text()
    path = tree / "results/medium_cider-cider-resnet18_cider-cifar10-8ac0119c-s1.json"
    record = path.read_text()
    path.write_text(record.replace('"dispersion": 83.2', '"dispersion": 84.2'))
    assert verdicts.main(["--check"]) == 2
    assert f"not current: {name} (make verdicts)" in capsys.readouterr().out
    path.write_text(record)
    (tree / name).unlink()
    assert verdicts.main([]) == 0 and f"written: {name}" in capsys.readouterr().out
    assert (tree / name).read_text() == drawn, "byte for byte"


def test_other_records_are_judged_and_nothing_is_written(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = tree / "few"
    few.mkdir()
    for path in (tree / "results").glob("full-*.json"):
        shutil.copy(path, few)
    assert verdicts.main(["--results", str(few)]) == 0
    said = capsys.readouterr().out
    assert "energy_beats_softmax" in said and "small" not in said and "written" not in said
    assert verdicts.main(["--results", str(tree / "nothing")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    (few / "paired-x.json").write_text("{}")
    assert verdicts.main(["--results", str(few)]) == 2
    assert "is no comparison of runs: make it again" in capsys.readouterr().err


def test_the_results_of_an_evaluated_run_are_kept_the_latest_of_each_kind(tree: Path, tmp_path: Path) -> None:
    name = "imported-cifar10_resnet20"
    record = read_record(tree / f"results/small_from_trained-{name}.json")
    limited = {**record["evaluations"][-1], "max_eval_images": 2000}
    twice = {**record, "evaluations": [*record["evaluations"], *record["evaluations"], limited]}
    save_json(tmp_path / "run/results.json", twice)
    kept = tmp_path / "kept"
    assert verdicts.main(["--keep", str(tmp_path / "run"), "--results", str(kept)]) == 0
    (file,) = kept.iterdir()
    assert file.name == f"literature-{name}.json"
    assert read_record(file)["evaluations"] == [*record["evaluations"], limited]


@pytest.mark.parametrize(
    "name",
    [
        "small_jem_from_trained-jem-wrn_10_2_jem-cifar10-63b3009f-s1",
        "small_from_trained-oe-resnet20-cifar10-cifar100-5aed8d92-s1",
        "small-oe-resnet20-cifar10-cifar100-82fa5b48-s1",
        "demo_cider-supcon-resnet18_cider-digits-e6c13c97-s1",
    ],
)
def test_a_record_is_called_what_its_table_calls_it(tree: Path, tmp_path: Path, name: str) -> None:
    save_json(tmp_path / "run/results.json", read_record(tree / f"results/{name}.json"))
    assert verdicts.main(["--keep", str(tmp_path / "run"), "--results", str(tmp_path / "kept")]) == 0
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [f"{name}.json"]


@pytest.mark.parametrize(
    ("name", "change", "stays"),
    [
        ("literature-imported-cifar10_resnet20", {"date": "2031-01-01", "note": "imported again"}, True),
        ("full-ce-wrn_40_2-cifar10-288a3327-s1", {"note": "elsewhere"}, True),
        ("full-ce-wrn_40_2-cifar10-288a3327-s1", {"date": "2031-01-01"}, False),
    ],
    ids=["the same file imported again", "the same training", "another training"],
)
def test_what_the_ledger_has_of_the_same_weights_stays(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, change: dict[str, str], stays: bool
) -> None:
    """As after an evaluation on another machine, whose results.json begins anew."""
    before = read_record(tree / f"results/{name}.json")
    replaced = before["evaluations"][0]
    own = {**before, "trained": {**before["trained"], **change}}
    new = [{**replaced, "date": "2031-02-03"}, {**replaced, "max_eval_images": 7}]
    save_json(tmp_path / "run/results.json", {**own, "evaluations": new})
    kept = tmp_path / "kept"
    save_json(kept / f"{name}.json", {**before, "robustness": {"points": []}})
    assert verdicts.main(["--keep", str(tmp_path / "run"), "--results", str(kept)]) == 0
    after, said = read_record(kept / f"{name}.json"), capsys.readouterr()
    assert after["trained"] == own["trained"]
    assert after["evaluations"] == ([new[0], *before["evaluations"][1:], new[1]] if stays else new)
    assert ("robustness" in after) == stays
    assert ("was the record of another training" in said.out + said.err) != stays


@pytest.mark.parametrize(
    ("file", "experiment", "kept"),
    [
        ("medium_cider-cider-resnet18_cider-cifar10-8ac0119c-s1", None, "medium_cider"),
        ("demo_cider-ce-resnet18-digits-7fbf1db6-s1", "cider/demo/digits_ce", "demo_cider"),
        ("demo_cider-ce-resnet18-digits-7fbf1db6-s1", "energy/demo/digits_softmax", "demo"),
        ("demo_cider-ce-resnet18-digits-7fbf1db6-s1", "mine", "demo"),
        ("demo_cider-ce-resnet18-digits-7fbf1db6-s1", None, "demo"),
        ("medium_cider-cider-resnet18_cider-cifar10-8ac0119c-s1", "mine", "medium_cider"),
    ],
)
def test_a_kept_run_is_called_by_the_paper_whose_experiment_or_method_it_is(
    tree: Path, tmp_path: Path, file: str, experiment: str | None, kept: str
) -> None:
    """As its table calls it, so that its experiment is found: scale and paper."""
    record = {**read_record(tree / f"results/{file}.json")}
    record.pop("composition", None)
    if experiment is not None:
        record["composition"] = {"files": ["train", f"experiment/{experiment}"], "changed": {}}
    save_json(tmp_path / "run/results.json", record)
    assert verdicts.main(["--keep", str(tmp_path / "run"), "--results", str(tmp_path / "kept")]) == 0
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [f"{kept}-{file.partition('-')[2]}.json"]


def test_a_sweep_has_its_table_and_its_figure(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = [
        {"changed": c, "seed": 1, "run": "r", "holdout": {"fpr95": h}, "test": {"fpr95": t, "accuracy": 0.9}}
        for c, h, t in (({}, 0.5, 0.4), ({"m_in": -9}, 0.3, 0.45), ({"m_in": -15}, 0.6, 0.5))
    ]
    facts = {"scale": "demo", "backbone": "resnet20", "id_data": "digits", "seeds": [1], "init_from": None}
    where = {
        "device": "CPU",
        "torch": "2.11",
        "date": "2026-11-27",
        "commit": "abc",
        "ood_data": "digits",
        "sets": ["x"],
    }
    more = {"schedule": {"epochs": 6}, "outliers": "flower_patches", "holdout": 0.1, "usual": {"m_in": -23}}
    record = {**facts, **where, **more, "chosen": {"m_in": -9}, "points": points}
    save_json(tree / "results/sensitivity-demo-digits-resnet20.json", record)
    assert verdicts.main([]) == 0
    assert "written: docs/figures/sensitivity-demo-digits-resnet20.svg" in capsys.readouterr().out
    assert (tree / "docs/figures/sensitivity-demo-digits-resnet20.svg").read_text().count("<svg") == 1
    page = (tree / "docs/results.md").read_text()
    assert (
        "(figures/sensitivity-demo-digits-resnet20.svg)" in page
        and "| `m_in` | -9 (chosen) | 45.0 | 30.0 | 90.0 |" in page
    )
    assert verdicts.main([]) == 0 and "written" not in capsys.readouterr().out
    save_json(tree / "results/sensitivity-demo-digits-resnet20.json", {"points": []})
    assert verdicts.main([]) == 2 and "is no record of a sweep" in capsys.readouterr().err
