"""JEM's tables from synthetic records: every figure checked by hand."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from synthetic_records import record, row

from farout.errors import ConfigError
from farout.report.records import read_record, where
from farout.report.tables.calibration import calibration_table
from farout.report.tables.cells import Cell, Table
from farout.report.tables.hybrid import hybrid_table
from farout.report.tables.paper import write_tables
from farout.report.tables.render import to_csv, to_markdown, to_terminal, width
from farout.report.tables.robustness import robustness_table
from farout.report.tables.tabulate import table1

PROTOCOL = {"name": "jem", "positive": "id", "ratio": None, "redraws": 1, "recall": 0.95, "bins": 20}
OWN = ("svhn", "interp", "cifar100", "celeba")
SCORES = ("energy", "msp", "px_grad")
PLAIN, NORMED = {"name": "wrn_28_10_jem", "depth": 28}, {"name": "wrn_28_10", "depth": 28, "norm": "batch"}
REASON = "IS and FID need Inception's weights, and /some/where/data/weights.pth is not there: put weights.pth there"


def run(
    method: str, seed: int = 1, backbone: Any = PLAIN, sets: tuple[str, ...] = OWN, name: str = "", **more: Any
) -> dict[str, Any]:
    """A record under JEM's protocol; FPR95 (AUROC is 1 - FPR95 / 4) rises with score, set and seed."""
    rows = [
        row(score, ood, 0.1 * seed + 0.04 * i + 0.2 * j, **more.get("set", {}))
        for j, score in enumerate(SCORES)
        for i, ood in enumerate(sets)
    ]
    identity = {"backbone": backbone, "outliers": None, "parent": None, **more.get("identity", {})}
    made = record(method, seed, rows, identity=identity, evaluation={"protocol": PROTOCOL})
    made["evaluations"][0]["id"] |= {"accuracy": 0.9 - 0.01 * seed, "ece": 0.2 if method == "ce" else 0.05}
    return {**made, "run": name or made["run"], **more.get("beside", {})}


def samples(distance: float = 12.5, inception: dict[str, Any] | None = None) -> dict[str, Any]:
    own = {"features": "ce-s1", "reference": "cifar10 test", "dimensions": 64}
    own |= {name: {"value": distance * k, "n": [9, 9]} for name, k in {"samples": 2, "uniform_noise": 3}.items()}
    own |= {"as_many_of_test": {"value": 0.25, "n": [9, 9]}, "halves_of_test": {"value": 0.5, "n": [9, 9]}}
    sampling = {"source": "buffer", "rounds": 0, "n": 9000, "seed": 0}
    return {"sampling": sampling, "inception": inception or {"reason": REASON}, "frechet_distance": own}


def curve(name: str, norm: str, shares: list[float], steps: int | None = None, **more: Any) -> dict[str, Any]:
    """An entry of robustness.json: accuracy without attack and at epsilons 1, 2, ..."""
    chain = None if steps is None else {"steps": steps, "copies": 5, "input_noise": 0.03, "noise_std": 0.01}
    attack = {"name": "PGD", "steps": 40, "restarts": 2, "batch_size": 50, "seed": 1, **more.get("attack", {})}
    return {
        "label": "?",
        "run": name,
        "refinement": chain,
        "norm": norm,
        "epsilons": [1.0 + i for i in range(len(shares) - 1)],
        "images": {"n": more.get("n", 300), "which": f"the first {more.get('n', 300)} test images", "sha256": "1"},
        "attack": attack,
        "clean_accuracy": shares[0],
        "accuracy": shares[1:],
    }


def attacked(seed: int = 1) -> dict[str, Any]:
    jem, ce = f"jem-s{seed}", f"ce-s{seed}"
    curves = [curve(ce, norm, [0.9, 0.2 * seed, 0.0]) for norm in ("linf", "l2")]
    curves += [curve(jem, norm, [0.8, 0.5, 0.1 * k], k) for k in (0, 1, 10)[:2] for norm in ("linf", "l2")]
    return {"run": jem, "curves": curves, "distal": []}


def cell(table: Table, key: str, metric: str, ood: str = "id") -> Cell:
    found = next(r for r in [*table.rows, *table.reported] if r.kind.key == key)
    return found.id_cells[metric] if ood == "id" else found.cells[ood, metric]


def close(value: float | None, wanted: float) -> bool:
    return value is not None and math.isclose(value, wanted, abs_tol=1e-9)


def networks(**more: Any) -> list[dict[str, Any]]:
    """JEM, a classifier of its network, and one with batch norm; JEM of two seeds."""
    return [
        run("ce", **more),
        run("ce", backbone=NORMED, name="wrn-s1", **more),
        run("jem", **more),
        run("jem", 2, **more),
    ]


def test_ood_table_has_auroc_alone_and_tells_two_classifiers_apart() -> None:
    table = table1(networks(), "jem")
    assert table.measures.ood == ("auroc",)
    assert [r.kind.key for r in table.rows] == [key for key in table.paper.table if not table.paper.kinds[key].optional]
    assert [run.name for run in next(r.runs for r in table.rows if r.kind.key == "wrn_msp")] == ["wrn-s1"]
    assert [run.name for run in next(r.runs for r in table.rows if r.kind.key == "ce_msp")] == ["ce-s1"]
    assert close(cell(table, "wrn_msp", "auroc", "svhn").difference, 100 - 25 * 0.3 - 93)
    mass = cell(table, "jem_mass", "auroc", "celeba")
    assert close(mass.seeds[1], 100 - 25 * 0.62) and close(mass.seeds[2], 100 - 25 * 0.72)
    assert close(mass.difference, 100 - 25 * 0.67 - 79)
    assert cell(table, "ce_px", "auroc", "svhn").difference is None
    assert close(cell(table, "jem_px", "auroc", "mean").seeds[1], 100 - 25 * 0.16)
    assert cell(table, "jem_px", "auroc", "mean").paper.value is None
    text = to_markdown(table)
    assert "|  | paper | 93.00? |  |  |  | 67.00? | 89.00? | 83.00? |" in text
    assert "FPR95 (%" not in text and "AUPR" not in text
    assert "wrn_28_10_jem (classifier: log p(x)" in text


def test_rows_that_are_only_reported_stand_apart_and_are_never_ours() -> None:
    table = table1(networks(), "jem")
    text = to_markdown(table)
    assert "### Reported, not run here (AUROC)" in text
    assert "| IGEBM: max p(y\\|x) | 43.00? | 69.00? | 54.00? | 69.00? |" in text
    assert "| later: SADA-JEM, best of several scores | 98.00 | 83.00 | 92.00 | 95.00 |" in text
    lines = [line for line in csv.DictReader(io.StringIO(to_csv(table))) if not line["method"]]
    assert len(lines) == 10 * 4
    assert {(line["status"], line["percent"], line["seed"], line["run"]) for line in lines} == {
        ("reported", "", "", "")
    }
    assert {line["row"] for line in lines} == {kind.key for kind in table.paper.kinds.values() if kind.method is None}


def test_stand_ins_are_marked_and_never_compared() -> None:
    table = table1(networks(sets=("dtd10", "svhn"), set={"stand_in_for": "x", "title": "Not it"}), "jem")
    for r in table.rows:
        assert r.cells["dtd10", "auroc"].seeds
        assert all(c.difference is None for c in r.cells.values())
    text = to_markdown(table)
    assert "| Not it † | ours | 92.50 |" in text  # msp of dtd10: 100 - 25 * 0.3
    assert "mean of the paper's" not in text  # it prints none
    assert "| CelebA (not run) | paper | 62.00? |" in text


def test_imported_weights_without_a_norm_are_jem() -> None:
    imported = run("jem", name="imported")
    imported["identity"]["method"] = {"name": "imported"}
    table = table1([imported], "jem")
    assert {r.kind.method for r in table.rows if r.runs} == {"jem"}
    imported["identity"]["backbone"] = NORMED
    assert [r.kind.key for r in table1([imported], "jem").rows if r.runs] == ["wrn_msp"]


def test_other_networks_are_refused_and_where_names_a_trunk() -> None:
    with pytest.raises(ConfigError, match="two kinds of backbone "):
        table1([run("ce", backbone={"name": "wrn_40_2"}), run("jem")], "jem")
    assert len(where(networks(), ["backbone=wrn_28_10"])) == 4
    assert len(where(networks(), ["backbone=wrn_28_10_jem"])) == 3


def test_hybrid_table_without_inception_says_why() -> None:
    records = networks()
    records[2]["samples"], records[3]["samples"] = samples(), samples(16.0)
    table = hybrid_table(records)
    assert close(cell(table, "jem", "accuracy").mean, 88.5)
    assert close(cell(table, "jem", "accuracy").difference, 88.5 - 92.9)
    assert close(cell(table, "wrn", "accuracy").difference, 89 - 95.8)
    assert cell(table, "jem", "fid").status == "no Inception weights"
    assert cell(table, "ce", "fid").status == "-"
    assert dict(cell(table, "jem", "samples").seeds) == {1: 25.0, 2: 32.0}
    assert dict(cell(table, "jem", "uniform_noise").seeds) == {1: 37.5, 2: 48.0}
    text = to_markdown(table)
    assert "| FID (no Inception weights) | paper |  |  | 38.40 |" in text
    assert "| JEM, p(x\\|y) factored | 30.10 | 6.36 | 61.80 |" in text
    assert "| SNGAN |  | 8.59 | 25.50 |" in text
    assert "Samples of jem-s2: 9,000 of the replay buffer as training left it." in text
    assert "of jem-s1: ce-s1 (64 dimensions), against cifar10 test; this is not FID." in text
    assert "AUROC" not in text.split("Reported, not run here")[1].splitlines()[0]
    assert "No mean" not in text and "OOD sets" not in text


def test_hybrid_table_with_inception_stands_beside_the_paper() -> None:
    facts = {"inception_score": {"mean": 7.0, "std": 0.5, "n": 900}, "fid": {"value": 50.0, "n": 8100}}
    table = hybrid_table([run("ce"), run("jem", beside={"samples": samples(inception=facts)})])
    assert close(cell(table, "jem", "fid").difference, 50 - 38.4)
    assert close(cell(table, "jem", "inception_score").difference, 7 - 8.76)
    lines = {(x["row"], x["metric"], x["seed"]): x for x in csv.DictReader(io.StringIO(to_csv(table)))}
    assert (lines["jem", "fid", "1"]["value"], lines["jem", "fid", "mean"]["paper_value"]) == ("50.0", "38.4")
    assert cell(hybrid_table([run("jem")]), "jem", "fid").status == "not sampled"


def test_calibration_is_compared_on_the_data_set_that_the_figures_are_of() -> None:
    table = calibration_table(networks())
    assert close(cell(table, "jem", "ece").mean, 5.0) and close(cell(table, "ce", "ece").mean, 20.0)
    assert cell(table, "jem", "ece").difference is None
    text = to_markdown(table)
    assert "ECE has 20 bins" in text
    assert "22.32" in text.split("### Calibration")[1].split("- ", 1)[1]  # said below, not beside ours
    table = calibration_table(networks(identity={"id_data": {"name": "cifar100"}}))
    assert close(cell(table, "wrn", "ece").difference, 20 - 22.32)
    assert close(cell(table, "jem", "ece").difference, 5 - 4.87)
    assert "| ECE | ours | 20.00 | 20.00 | **5.00 ± 0.00** |" in to_markdown(table)
    assert "|  | paper | 22.32? |  | 4.87? |" in to_markdown(table)


def test_robustness_has_a_line_for_every_epsilon() -> None:
    records = [run("ce"), run("ce", 2), run("jem"), run("jem", 2)]
    records[2]["robustness"], records[3]["robustness"] = attacked(1), attacked(2)
    table = robustness_table(records)
    assert table.measures.id == ("linf 0", "linf 1", "linf 2", "l2 0", "l2 1", "l2 2")
    assert dict(cell(table, "ce", "linf 1").seeds) == {1: 20.0, 2: 40.0}
    assert close(cell(table, "jem_1", "l2 2").mean, 10.0)
    assert cell(table, "jem_10", "l2 2").status == "not attacked"
    assert cell(table, "wrn", "l2 2").status == "not run"
    text = to_markdown(table)
    assert "| L-infinity 1/255 | ours | not run | 30.00 ± 14.14 | **50.00 ± 0.00** |" in text
    assert "| L2 0 | ours | not run | **90.00 ± 0.00** | 80.00 ± 0.00 |" in text
    assert "projected gradient descent of 40 steps from 2 random starts; the first 300 test images" in text
    assert (
        "- JEM-k: mean logits of 5 copies of an image with noise 0.03, each after k steps of the run's own chain."
        in text
    )
    assert "No numbers of the paper's curves are known" in text


def test_one_table_holds_one_attack() -> None:
    records = [run("ce"), run("jem")]
    both = [curve("ce-s1", "linf", [0.9, 0.3], n=50), curve("jem-s1", "linf", [0.8, 0.4], 0, n=50)]
    longer = [curve("ce-s1", "linf", [0.9, 0.2]), curve("jem-s1", "linf", [0.8, 0.35], 0)]
    alone = [curve("jem-s1", "linf", [0.8, 0.1], 0, n=900)]
    for curves, ce, jem in ((both, 30, 40), (both + alone, 30, 40), (alone + longer + both, 20, 35)):
        records[1]["robustness"] = {"curves": curves}
        table = robustness_table(records)
        assert close(cell(table, "ce", "linf 1").mean, ce)
        assert close(cell(table, "jem_0", "linf 1").mean, jem)
    # What one seed lacks is said beside the mean.
    records = [run("jem", beside={"robustness": {"curves": longer}}), run("jem", 2)]
    assert "35.00 (1/2 seeds)" in to_markdown(robustness_table(records))
    records[1]["robustness"] = {
        "curves": [
            curve("jem-s2", "l2", [0.8, 0.5], 0) | {"refinement": {**longer[1]["refinement"], "input_noise": 0.0}}
        ]
    }
    text = to_markdown(robustness_table(records))
    assert "JEM-k under L-infinity: mean logits of 5 copies of an image with noise 0.03" in text
    assert "JEM-k under L2: mean logits of 5 copies of an image with noise 0," in text


def test_without_an_attack_the_table_says_how_to_run_one() -> None:
    table = robustness_table(networks())
    assert cell(table, "jem_0", "attack").status == "not attacked"
    assert "scripts/robustness.py RUN" in to_markdown(table)


def test_a_paper_without_a_sheet_has_no_such_table() -> None:
    for build in (hybrid_table, calibration_table, robustness_table):
        with pytest.raises(ConfigError, match="energy has no sheet"):
            build([run("ce", identity={"parent": None})], "energy", "jem")


def test_a_run_folder_brings_what_lies_beside_its_results(tmp_path: Path) -> None:
    made = run("jem")
    (tmp_path / "samples").mkdir()
    (tmp_path / "results.json").write_text(json.dumps(made))
    assert read_record(tmp_path) == made
    (tmp_path / "robustness.json").write_text(json.dumps(attacked()))
    (tmp_path / "samples/samples.json").write_text(json.dumps(samples()))
    found = read_record(tmp_path)
    assert found["robustness"] == attacked()
    assert found["samples"]["inception"]["reason"] == REASON.replace("/some/where/data/", "")
    assert found["samples"]["frechet_distance"] == samples()["frechet_distance"]
    (tmp_path / "robustness.json").write_text("{")
    with pytest.raises(ConfigError, match=r"robustness\.json is not JSON"):
        read_record(tmp_path)


def test_all_tables_are_written_and_fit_their_width(tmp_path: Path) -> None:
    records = networks()
    records[2] |= {"samples": samples(), "robustness": attacked()}
    tables = write_tables(records, tmp_path, "jem")
    assert list(tables) == ["jem", "hybrid", "calibration", "robustness"]
    for name, table in tables.items():
        assert (tmp_path / f"{name}.md").read_text("utf-8") == to_markdown(table)
        assert (tmp_path / f"{name}.csv").read_text("utf-8") == to_csv(table)
        console = Console(width=width(table), record=True, file=io.StringIO())
        console.print(to_terminal(table))
        text = console.export_text()
        assert ("50.00" if name == "robustness" else "± 0.") in text
