"""`make reproduce-cider` and `reproduce-jem` from command to tables, on digits in a few steps; what they refuse."""

import csv
import hashlib
import json
import os
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from farout import papers
from farout.config.compose import compose_settings
from farout.config.settings import ROOT
from farout.reproduce import stages
from farout.reproduce.ledger import read_files
from farout.reproduce.paper_figures import figures_of
from farout.reproduce.result_tables import tables_of
from farout.reproduce.rows import rows_of
from farout.reproduce.stages import stages_of
from farout.reproduce.trials import Trial
from farout.reproduce.verdicts import verdicts_of
from farout.runs.run import run_of
from farout.runs.training import train
from script_loader import load_script

FEW = ["max_steps=2", "batch_size=8", "ood_data=smoke", "max_eval_images=40", "logger=none"]
FEW += ["geometry_images=140", "max_fit_images=140", "trainer.device=cpu"]
THIN = "backbone.width=2"
CIDER = ["--paper", "cider", "--scale", "demo", "--id", "digits"]
JEM = ["--paper", "jem", "--scale", "demo", "--id", "digits"]


@pytest.mark.e2e
def test_reproduce_cider_trains_evaluates_and_tabulates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [
        *CIDER,
        *FEW,
        THIN,
        f"paths.outputs={tmp_path}",
        "--out",
        str(tmp_path / "t"),
        "--record",
        str(tmp_path / "r"),
    ]
    assert load_script("reproduce").main(options) == 0
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
    assert load_script("reproduce").main([*options, "--out", str(tmp_path / "again")]) == 0
    assert capsys.readouterr().out.count("nothing left to do") == 3
    again = ["--paper", "cider", "--results", str(tmp_path / "r"), "--out", str(tmp_path / "table")]
    assert load_script("make_table").main(again) == 0
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
        (["--init", "x"], "no rows from a trained network in cider/demo_from_trained: use --scale small"),
        (["--scale", "small", "--id", "cifar10", "--init", "auto"], "no classifier of its own to start from: name a"),
        (["--id", "cifar100"], "experiment=cider/demo/cifar100_ce is not there: choose from"),
    ],
)
def test_what_it_refuses_is_one_line(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_script("reproduce").main([*CIDER, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.e2e
def test_from_a_trained_network_it_stands_beside_what_went_on_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The small scale's rows, thin and on digits."""
    own = ["scale=smoke", "id_data=digits", "backbone=resnet20", "backbone.width=2", "evaluate=false", "logger=none"]
    parent = compose_settings([*own, "method=ce", f"paths.outputs={tmp_path / 'parent'}"])
    train(parent)
    start = run_of(parent, torch.device("cpu"))
    digits = ["id_data.name=digits", "id_data.num_classes=7", *FEW, f"paths.outputs={tmp_path}"]
    options = ["--paper", "cider", "--scale", "small", "--init", str(start.folder), *digits]
    options += ["--out", str(tmp_path / "t"), "--record", str(tmp_path / "r")]
    assert load_script("reproduce").main(options) == 0
    records = [json.loads(text) for text in read_all(tmp_path / "r")]
    assert all(path.name.startswith("small_cider_from_trained-") for path in (tmp_path / "r").iterdir())
    assert sorted(record["identity"]["method"]["name"] for record in records) == ["ce", "ce", "cider", "supcon"]
    assert {record["identity"]["parent"] for record in records if record["run"] != start.name} == {
        "weights-" + hashlib.sha256(start.weights.read_bytes()).hexdigest()[:12]
    }
    assert {Trial(record, record["evaluations"][0]).scale for record in records} == {"smoke", "from_trained"}
    lines = {x["row"] for x in csv.DictReader((tmp_path / "t/cider.csv").open())}
    assert {"ce_msp", "ce_on_msp", "ce_on_knn", "supcon_knn", "cider_knn"} <= lines
    assert {"ce", "ce_on"} <= {x["row"] for x in csv.DictReader((tmp_path / "t/geometry.csv").open())}
    judged = {v.claim.key: v for v in verdicts_of(records) if v.scale == "from_trained" and v.found}
    assert {"cider_beats_ce", "cider_beats_ce_knn", "cider_beats_supcon", "cider_disperses"} <= judged.keys()
    (found,) = judged["cider_beats_ce"].found
    assert found.case.second[0].parent == found.case.first[0].parent, "cross-entropy that went on as long"


def test_jems_rows_from_its_classifier_share_it() -> None:
    reproduce = load_script("reproduce")
    options = reproduce.parse_arguments(["--paper", "jem", "--scale", "small", "--init", "auto", "logger=none"])
    stages = stages_of(reproduce.request_of(options), torch.device("cpu"))
    trained = [stage.row for stage in stages if stage.kind == "train"]
    assert trained == ["untouched", "ce", "jem"], "the classifier once, before what begins with it"
    attack = stages[-1]
    assert {run.name for run in attack.needed_runs} == {stage.run.name for stage in stages[:2]}


@pytest.mark.parametrize("paper", ["energy", "oe", "cider", "jem"])
def test_make_passes_everything_on(paper: str) -> None:
    target = "reproduce-table1" if paper == "energy" else f"reproduce-{paper}"
    given = ["SCALE=small", "ID=digits", "SEEDS=1 2", "ARGS=ood_data=energy logger=none --out there"]
    shown = subprocess.run(["make", "-n", target, *given], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (line,) = (line for line in shown.splitlines() if "scripts/reproduce.py" in line)  # make within make says more
    words = shlex.split(line)
    options = load_script("reproduce").parse_arguments(words[words.index("scripts/reproduce.py") + 1 :])
    assert (options.paper, options.scale, options.id, options.seeds) == (paper, "small", "digits", [1, 2])
    assert (options.overrides, options.out) == (["ood_data=energy", "logger=none"], Path("there"))


@pytest.mark.parametrize(
    "words",
    [
        "logger=none --seeds 1 2 m_in=-25",
        "--seeds 1 2 logger=none m_in=-25 --scale small",
        "--seeds 1 2 logger=none --scale small m_in=-25",
        "--scale small logger=none m_in=-25 --seeds 1 2",
    ],
)
def test_overrides_may_stand_anywhere(words: str) -> None:
    sensitivity = load_script("sensitivity").parse
    for parse in (load_script("reproduce").parse_arguments, load_script("campaign").parse, sensitivity):
        options = parse(words.split())
        assert (options.seeds, sorted(options.overrides)) == ([1, 2], ["logger=none", "m_in=-25"])
    knob = sensitivity(["--knob", "m_in=-25,-7", "--seeds", "1", "lr=1"])
    assert (knob.knob, knob.overrides) == ([("m_in", (-25, -7))], ["lr=1"]), "a value of another option is none"


def test_a_demonstration_is_of_digits_where_nothing_else_is_named() -> None:
    reproduce, campaign = load_script("reproduce"), load_script("campaign")
    assert reproduce.parse_arguments(["--scale", "demo"]).id == campaign.parse(["--table", "demo_jem"]).id == "digits"
    assert reproduce.parse_arguments([]).id == campaign.parse([]).id == "cifar10"
    shown = subprocess.run(
        ["make", "-n", "reproduce-cider", "SCALE=demo"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "--scale demo --id digits" in shown


@pytest.mark.parametrize("id_data", ["cifar10", "cifar100", "svhn"])
def test_outlier_exposures_rows_are_the_papers_files(id_data: str) -> None:
    reproduce = load_script("reproduce")
    request = reproduce.request_of(reproduce.parse_arguments(["--paper", "oe", "--id", id_data, "logger=none"]))
    found = {row: request.settings(row, 2) for row in request.rows}
    assert [each.method.name for each in found.values()] == ["ce", "oe", "oe_scratch"]
    kinds = papers.load("oe").kinds
    assert all(each.method.name == kinds[row].method for row, each in found.items()), "the table's rows are these"
    assert {(each.protocol.name, each.seed, each.id_data.name) for each in found.values()} == {("oe", 2, id_data)}


@pytest.mark.parametrize("id_data", ["cifar10", "cifar100"])
def test_the_full_scale_rows_are_the_papers_files(id_data: str) -> None:
    reproduce = load_script("reproduce")
    options = reproduce.parse_arguments(["--paper", "cider", "--id", id_data, "logger=none"])
    for row in rows_of("cider", "full"):
        settings = reproduce.request_of(options).settings(row, 3)
        k = "knn_k100" if id_data == "cifar10" else "knn_k300"
        assert settings.method.name == row
        assert settings.linear_probe
        assert k in {score.build().name for score in settings.scores}
        assert (settings.protocol.name, settings.ood_data.name, settings.seed) == ("cider", "cider", 3)
    assert (settings.schedule.lr_schedule, settings.schedule.milestones) == ("steps", [100, 150, 180])


def assert_figures_are_completed(outputs: Path, options: list[str], reproduce: Callable[[list[str]], int]) -> None:
    """A command stopped between the last curve and its figure left the figure to the next."""
    (run,) = outputs.glob("runs/jem-*")
    figure, record = run / "plots/robustness.png", run / "robustness.json"
    before = figure.read_bytes()
    figure.write_bytes(b"of fewer curves")
    written = figure.stat().st_mtime_ns + 1
    os.utime(record, ns=(written, written))
    assert reproduce(options) == 0
    assert figure.read_bytes() == before


@pytest.mark.e2e
def test_reproduce_jem_trains_samples_evaluates_attacks_and_tabulates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reproduce = load_script("reproduce")
    plan = replace(stages.ATTACKS["demo"], images=4, steps=1, refine=(0, 1), copies=2, distal_steps=1)
    monkeypatch.setattr(stages, "ATTACKS", {"demo": plan})
    monkeypatch.setattr(stages, "CHAIN_STEPS", {"demo": 1})
    options = [*JEM, *FEW, f"paths.outputs={tmp_path}", "--out", str(tmp_path / "t"), "--record", str(tmp_path / "r")]
    assert reproduce.main(options) == 0
    said = capsys.readouterr().out
    for word in (
        "AUROC",
        "approximate mass",
        "no Inception weights",
        "Frechet",
        "20 bins",
        "L-infinity 32/255",
        "JEM-10",
    ):
        assert word in said
    records = {r["identity"]["method"]["name"]: r for r in map(json.loads, read_all(tmp_path / "r"))}
    assert set(records) == {"ce", "jem"}
    assert "robustness" not in records["ce"]
    assert not any(str(tmp_path) in text or "/data/" in text for text in read_all(tmp_path / "r"))  # no machine's paths
    assert_jem_agrees(tmp_path / "t", records)
    figures = [figure for table in tables_of(read_files(tmp_path / "r"), ["jem"]) for figure in figures_of(table)]
    assert [figure.file.split("-")[-1] for figure in figures] == ["attacks.svg", "reliability.svg"]
    for record in records.values():
        assert f"ECE {100 * record['evaluations'][0]['id']['ece']:.2f} %" in figures[1].alt

    # Again: nothing is trained, sampled, attacked or evaluated twice; and the ledger alone gives the same files.
    assert reproduce.main([*options, "--out", str(tmp_path / "again")]) == 0
    said = capsys.readouterr().out
    assert said.count("nothing left to do") == 2 and "sampled already" in said and "without attack" not in said
    assert_figures_are_completed(tmp_path, [*options, "--out", str(tmp_path / "again")], reproduce.main)
    assert "without attack" not in capsys.readouterr().out
    again = ["--paper", "jem", "--results", str(tmp_path / "r"), "--out", str(tmp_path / "table")]
    assert load_script("make_table").main(again) == 0
    names = {f"{name}.{kind}" for name in ("jem", "hybrid", "calibration", "robustness") for kind in ("md", "csv")}
    assert {path.name for path in (tmp_path / "t").iterdir()} == {*names, "reliability.png"}
    for name in names:
        first = (tmp_path / "t" / name).read_text()
        assert (tmp_path / "again" / name).read_text() == first == (tmp_path / "table" / name).read_text()


def read_all(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted(folder.iterdir())]


def assert_jem_agrees(folder: Path, records: dict[str, dict]) -> None:
    """Every figure of the four tables is that of the records."""
    tables = {path.stem: list(csv.DictReader(path.open())) for path in folder.glob("*.csv")}
    entries = {method: record["evaluations"][0] for method, record in records.items()}
    found = {
        (x["method"], x["score"], x["ood"]): x["percent"]
        for x in tables["jem"]
        if (x["seed"], x["metric"]) == ("1", "auroc")
    }
    rows = {(m, row["score"], row["ood"]): row["auroc"] for m, entry in entries.items() for row in entry["rows"]}
    assert len(rows) == 2 * 3 * 3
    for key, auroc in rows.items():
        assert float(found[key]) == pytest.approx(100 * auroc)
    ours = {name: {(x["row"], x["metric"]): x for x in lines if x["seed"] == "1"} for name, lines in tables.items()}
    for method, entry in entries.items():
        assert entry["protocol"]["bins"] == entry["id"]["ece_bins"] == 20
        assert float(ours["calibration"][method, "ece"]["percent"]) == pytest.approx(100 * entry["id"]["ece"])
        assert float(ours["hybrid"][method, "accuracy"]["value"]) == pytest.approx(100 * entry["id"]["accuracy"])
    distance = records["jem"]["samples"]["frechet_distance"]
    assert distance["features"] == records["ce"]["run"]
    assert float(ours["hybrid"]["jem", "samples"]["value"]) == pytest.approx(distance["samples"]["value"])
    curves = records["jem"]["robustness"]["curves"]
    assert [(c["label"], c["norm"]) for c in curves] == [
        (label, norm) for label in ("baseline (CE)", "JEM-0", "JEM-1") for norm in ("linf", "l2")
    ]
    for curve, row in zip(curves, ("ce", "ce", "jem_0", "jem_0", "jem_1", "jem_1"), strict=True):
        for epsilon, share in zip([0, *curve["epsilons"]], [curve["clean_accuracy"], *curve["accuracy"]], strict=True):
            line = ours["robustness"][row, f"{curve['norm']} {epsilon:g}"]
            assert float(line["percent"]) == pytest.approx(100 * share)


@pytest.mark.parametrize("id_data", ["cifar10", "cifar100"])
def test_jems_full_scale_rows_share_images_sets_and_scores(id_data: str) -> None:
    reproduce = load_script("reproduce")
    options = reproduce.parse_arguments(["--paper", "jem", "--id", id_data, "logger=none"])
    rows = {row: reproduce.request_of(options).settings(row, 3) for row in ("ce", "ce_plain", "jem")}
    assert set(rows) == set(rows_of("jem", "full"))
    jem = rows["jem"]
    assert [(r.method.name, r.backbone.name) for r in rows.values()] == [
        ("ce", "wrn_28_10"), ("ce", "wrn_28_10_jem"), ("jem", "wrn_28_10_jem"),
    ]  # fmt: skip
    for each in rows.values():
        for name in ("id_data", "ood_data", "transform", "holdout", "holdout_rule", "protocol", "scores", "seed"):
            assert getattr(each, name) == getattr(jem, name), name
    steps = (
        "loss_bound",
        "max_restarts",
        "outlier_batch_size",
    )  # of divergence, and of outliers that there are none of
    plain, own = ({**rows[row].schedule.record()} for row in ("ce_plain", "jem"))
    assert {k: v for k, v in plain.items() if k not in steps} == {k: v for k, v in own.items() if k not in steps}


@pytest.mark.parametrize(("scale", "id_data"), [("small", "cifar10"), ("demo", "digits")])
def test_jems_classifier_elsewhere_has_its_network_and_schedule(scale: str, id_data: str) -> None:
    reproduce = load_script("reproduce")
    options = reproduce.parse_arguments(["--paper", "jem", "--id", id_data, "--scale", scale, "logger=none"])
    ce, jem = (reproduce.request_of(options).settings(row, 1) for row in rows_of("jem", scale))
    for name in ("backbone", "id_data", "ood_data", "transform", "holdout", "holdout_rule", "protocol", "scores"):
        assert getattr(ce, name) == getattr(jem, name), name
    own = ("loss_bound", "max_restarts", "outlier_batch_size")
    shared = [{k: v for k, v in each.schedule.record().items() if k not in own} for each in (ce, jem)]
    assert shared[0] == shared[1]
