"""`make reproduce-cider` from the command to the tables, on digits in a few steps; and what it refuses."""

import csv
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from farout.launch.settings import ROOT

FEW = ["max_steps=2", "batch_size=8", "backbone.width=2", "ood_data=smoke", "max_eval_images=40", "logger=none"]
FEW += ["geometry_images=140", "max_fit_images=140", "trainer.device=cpu"]
CIDER = ["--paper", "cider", "--scale", "demo", "--id", "digits"]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.e2e
def test_reproduce_cider_trains_evaluates_and_tabulates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farout.launch.evaluation._present", lambda *given: [])  # most of the time; drawn elsewhere
    options = [*CIDER, *FEW, f"paths.outputs={tmp_path}", "--out", str(tmp_path / "t"), "--record", str(tmp_path / "r")]
    assert script("reproduce").main(options) == 0
    said = capsys.readouterr().out
    for word in ("FPR95", "CIDER + Mahalanobis", "linear probe accuracy", "no classifier", "dispersion", "written"):
        assert word in said
    records = {path.name: json.loads(path.read_text()) for path in (tmp_path / "r").iterdir()}
    entries = {r["identity"]["method"]["name"]: r["evaluations"][0] for r in records.values()}
    assert set(entries) == {"ce", "supcon", "cider"}
    assert all(name.startswith("demo_cider-") for name in records)
    assert_agrees(list(csv.DictReader((tmp_path / "t/cider.csv").open())), entries)
    lines = {(x["row"], x["ood"], x["metric"]): x for x in csv.DictReader((tmp_path / "t/geometry.csv").open())}
    for kind, space in (("ce", "features"), ("supcon_embedding", "embedding"), ("cider_embedding", "embedding")):
        facts = entries[kind.removesuffix("_embedding")]["geometry"][space]
        assert float(lines[kind, "id", "dispersion"]["degrees"]) == pytest.approx(facts["dispersion"])
        assert float(lines[kind, "mean", "separability"]["degrees"]) == pytest.approx(facts["mean_separability"])

    # Again: nothing is trained or evaluated twice; and the ledger alone gives the same files.
    assert script("reproduce").main([*options, "--out", str(tmp_path / "again")]) == 0
    assert capsys.readouterr().out.count("nothing left to do") == 3
    again = ["--paper", "cider", "--results", str(tmp_path / "r"), "--out", str(tmp_path / "table")]
    assert script("make_table").main(again) == 0
    for name in ("cider.md", "cider.csv", "geometry.md", "geometry.csv"):
        first = (tmp_path / "t" / name).read_text()
        assert (tmp_path / "again" / name).read_text() == first == (tmp_path / "table" / name).read_text()


def assert_agrees(lines: list[dict[str, str]], entries: dict[str, dict]) -> None:
    """Every figure of the table is in percent that of the record."""
    found = {(x["method"], x["score"], x["ood"], x["metric"]): x for x in lines if x["seed"] == "1"}
    rows = [(method, row) for method, entry in entries.items() for row in entry["rows"]]
    assert len(rows) == 3 * (3 + 2 + 2)
    for method, row in rows:
        for metric in ("fpr95", "auroc", "aupr"):
            percent = float(found[method, row["score"], row["ood"], metric]["percent"])
            assert percent == pytest.approx(100 * row[metric])
    for method, score in (("ce", "msp"), ("supcon", "knn_k100"), ("cider", "mahalanobis_cider")):
        probe = 100 * entries[method]["id"]["linear_probe"]["accuracy"]
        assert float(found[method, score, "id", "linear_probe"]["percent"]) == pytest.approx(probe)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--init", "outputs/runs/x"], "--init is for fine-tuning, and cider trains every network from scratch"),
        (["--id", "cifar100"], "experiment=demo_cider/cifar100_ce is not there: choose from"),
    ],
)
def test_what_it_refuses_is_one_line(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert script("reproduce").main([*CIDER, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize("id_data", ["cifar10", "cifar100"])
def test_the_full_scale_rows_are_the_papers_files(id_data: str) -> None:
    reproduce = script("reproduce")
    for row in reproduce.ROWS["cider"]:
        options = reproduce.parse_arguments(["--paper", "cider", "--id", id_data, "logger=none"])
        settings = reproduce.plan(row, 3, reproduce.RECIPES["cider"]["full"], options)
        k = "knn_k100" if id_data == "cifar10" else "knn_k300"
        assert settings.method.name == row
        assert settings.linear_probe
        assert k in {score.build().name for score in settings.scores}
        assert (settings.protocol.name, settings.ood_data.name, settings.seed) == ("cider", "cider", 3)
    assert (settings.schedule.lr_schedule, settings.schedule.milestones) == ("steps", [100, 150, 180])
    assert reproduce.experiment("small_cider", "cifar10", "cider") == "small_cider/cifar10_cider"
