"""CIDER's table and the table of angles from synthetic records: every figure checked by hand."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from synthetic_records import record, row

from farout.errors import ConfigError
from farout.report.records import where
from farout.report.tables.cells import Cell, Table
from farout.report.tables.geometry import geometry_table
from farout.report.tables.paper import write_tables
from farout.report.tables.render import to_csv, to_markdown, to_terminal, width
from farout.report.tables.tabulate import table1

PROTOCOL = {"name": "cider", "positive": "id", "ratio": 1, "redraws": 1, "recall": 0.95, "bins": 15}
OWN = ("svhn", "places365", "lsun_c_32", "isun", "textures")
UNTRAINED = {"accuracy": None, "ece": None, "no_accuracy": "never trained"}
WIDTH_16 = {"name": "resnet18", "width": 16}
PROJECTED = {"name": "resnet18_cider", "width": 16, "projection_dim": 128, "projection": "mlp"}
SCORES = {"ce": ("msp", "energy", "knn_k100"), "supcon": ("knn_k100", "mahalanobis_cider")}
SCORES["cider"] = SCORES["supcon"]


def space(start: float, sets: tuple[str, ...], directions: str = "class means of 5,000 training images") -> dict:
    """Angles of one space: dispersion is `start`, compactness half of it, the sets lie 1, 2, 3... degrees apart."""
    return {
        "directions": directions,
        "dispersion": start,
        "compactness": start / 2,
        "nearest_class_accuracy": 0.875,
        "nearest": {"id": 10.0, **{ood: 11.0 + i for i, ood in enumerate(sets)}},
        "separability": {ood: 1.0 + i for i, ood in enumerate(sets)},
        "mean_separability": None,
        "left_out": {},
    }


def run(method: str, seed: int = 1, sets: tuple[str, ...] = OWN, **more: Any) -> dict[str, Any]:
    """A record under CIDER's protocol; FPR95 rises by a hundredth a set, and with the seed."""
    base = {"svhn": 10000 / 19728, "isun": 10000 / 18925, "textures": 10000 / 15640}
    rows = [
        row(score, ood, 0.1 * seed + 0.01 * i, base_rate=base.get(ood, 10000 / 19728), **more.get("set", {}))
        for score in SCORES[method]
        for i, ood in enumerate(sets)
    ]
    spaces = {"features": space(60.0 + seed, sets)}
    if method != "ce":
        directions = "prototypes of the method" if method == "cider" else "class means of 5,000 training images"
        spaces["embedding"] = space(90.0 + seed, sets, directions)
    probe = {"linear_probe": {"accuracy": 0.75 + 0.01 * seed}}
    entry = {"protocol": PROTOCOL, "geometry": spaces, **more.get("evaluation", {})}
    made = record(method, seed, rows, evaluation=entry, identity=more.get("identity", {}))
    made["identity"] |= {"backbone": WIDTH_16 if method == "ce" else PROJECTED, "outliers": None, "parent": None}
    made["identity"] |= more.get("identity", {})
    made["evaluations"][0]["id"] |= {**probe, **({} if method == "ce" else UNTRAINED), **more.get("id", {})}
    return made


def networks(**more: Any) -> list[dict[str, Any]]:
    return [run("ce", **more), run("supcon", **more), run("cider", **more), run("cider", 2, **more)]


def cell(table: Table, key: str, ood: str, metric: str = "fpr95") -> Cell:
    found = next(r for r in table.rows if r.kind.key == key)
    return found.id_cells[metric] if ood == "id" else found.cells[ood, metric]


def close(value: float | None, wanted: float) -> bool:
    return value is not None and math.isclose(value, wanted, abs_tol=1e-9)


def test_one_trunk_with_and_without_a_head_is_one_table() -> None:
    table = table1(networks(), "cider")
    assert [r.kind.label for r in table.rows if r.runs] == [r.kind.label for r in table.rows]
    mean = cell(table, "cider_knn", "mean")
    assert close(mean.seeds[1], 12.0) and close(mean.seeds[2], 22.0)
    assert close(mean.difference, 17.0 - 11.12)
    assert close(cell(table, "cider_knn", "svhn").difference, 15.0 - 1.81)
    assert cell(table, "ce_knn", "svhn").difference is None
    text = to_markdown(table)
    heads = "(SupCon + KNN, SupCon + Mahalanobis, CIDER + KNN, CIDER + Mahalanobis)"
    assert f"network resnet18 of width 16 (MSP, energy, CE + KNN), resnet18_cider of width 16 {heads}" in text
    assert "| CIDER + KNN: the paper's Table 7 | 2.89 / 99.72 |" in text
    assert "| 12.95 / 97.26 |" in text
    assert "| SupCon + KNN: k = 50, another paper's code | 2.42 / 99.52 |  |" in text


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ({**PROJECTED, "width": 64}, "two kinds of backbone.width"),
        ({**PROJECTED, "name": "resnet34_cider"}, "two kinds of backbone "),
        ({"name": "resnet18_cider", "width": 16}, "two kinds of backbone "),  # the name alone is no head
    ],
)
def test_other_trunks_are_refused_and_where_tells_them_apart(backbone: dict[str, Any], message: str) -> None:
    records = [run("ce"), run("cider", identity={"backbone": backbone})]
    for build in (table1, geometry_table):
        with pytest.raises(ConfigError, match=message):
            build(records, "cider")
    kept = {r["run"] for r in where([*records, run("supcon")], ["backbone=resnet18"])}
    assert kept == {"ce-s1", "supcon-s1", *(["cider-s1"] if backbone["width"] == 64 else [])}


def test_a_row_takes_the_score_of_its_id_set() -> None:
    records = []
    for made in networks(identity={"id_data": {"name": "cifar100"}}):
        made["evaluations"][0]["rows"] += [row("knn_k300", ood, 0.5) for ood in OWN]
        records.append(made)
    table = table1(records, "cider")
    assert close(cell(table, "cider_knn", "svhn").difference, 50 - 22.96)
    assert {r.kind.score for r in table.rows} == {"msp", "energy", "knn_k300", "mahalanobis_cider"}
    assert close(cell(table, "supcon_mahalanobis", "mean").difference, 12 - 67.16)
    assert "knn_k100" not in to_csv(table)


def test_aupr_is_averaged_as_the_paper_does_only_over_its_own_sets() -> None:
    mean = cell(table1(networks(), "cider"), "cider_knn", "mean", "aupr")
    assert close(mean.seeds[1], 100 - 12.0 / 20)
    assert close(mean.difference, 100 - 17.0 / 20 - 98.35)
    # Four of the five sets, and five sets of which one is drawn otherwise: base rates differ, so there is no mean.
    assert cell(table1(networks(sets=OWN[1:]), "cider"), "cider_knn", "mean", "aupr").status == "no mean"
    other = networks()
    for made in other:
        for line in made["evaluations"][0]["rows"]:
            line["base_rate"] = 10000 / 12000 if line["ood"] == "isun" else line["base_rate"]
    table = table1(other, "cider")
    assert cell(table, "cider_knn", "mean", "aupr").status == "no mean"
    assert cell(table, "cider_knn", "isun", "aupr").difference is None
    assert cell(table, "cider_knn", "textures", "aupr").difference is not None


def test_accuracies_each_under_its_own_name() -> None:
    table = table1(networks(), "cider")
    assert cell(table, "cider_knn", "id", "accuracy").status == "no classifier"
    assert close(cell(table, "ce_msp", "id", "accuracy").mean, 92.0)
    assert close(cell(table, "cider_knn", "id", "linear_probe").mean, 76.5)
    assert close(cell(table, "ce_msp", "id", "linear_probe").mean, 76.0)
    assert close(cell(table, "supcon_knn", "id", "nearest_class").mean, 87.5)
    lines = [line for line in to_markdown(table).splitlines() if "accuracy" in line]
    assert [line.split("|")[1].strip() for line in lines] == [
        "accuracy", "linear probe accuracy", "nearest class mean accuracy",
    ]  # fmt: skip
    alone = table1([run("ce")], "cider")
    assert "linear probe" not in to_markdown(alone) + to_csv(alone)
    unprobed = [run("cider")]
    del unprobed[0]["evaluations"][0]["id"]["linear_probe"]
    assert "linear probe" not in to_markdown(table1(unprobed, "cider"))


def test_an_imported_network_without_a_classifier_is_no_cross_entropy() -> None:
    imported = run("cider", 3)
    imported["identity"]["method"] = {"name": "imported"}
    assert "Runs that belong to no row here: cider-s3." in to_markdown(table1([run("ce"), imported], "cider"))


def test_angles_stand_beside_the_papers_in_the_features() -> None:
    table = geometry_table(networks())
    assert close(cell(table, "cider", "id", "dispersion").difference, 61.5 - 87.53)
    assert close(cell(table, "cider", "id", "compactness").difference, 30.75 - 21.35)
    assert close(cell(table, "cider_embedding", "id", "dispersion").mean, 91.5)
    assert cell(table, "cider_embedding", "id", "dispersion").difference is None
    assert close(cell(table, "cider", "id", "dispersion").sd, math.sqrt(0.5))
    mean = cell(table, "supcon", "mean", "separability")
    assert close(mean.difference, 3.0 - 29.86)
    assert dict(cell(table, "supcon", "isun", "separability").seeds) == {1: 4.0}
    text = to_markdown(table)
    assert "| dispersion | ours | 61.00 | 61.00 | 91.00 | 61.50 ± 0.71 | **91.50 ± 0.71** |" in text
    assert "|  | paper | 67.17? | 75.50? |  | 87.53? |  |" in text
    assert "| compactness | ours | **30.50** | **30.50** | 45.50 | 30.75 ± 0.35 | 45.75 ± 0.35 |" in text
    assert "|  | paper |  | 29.86 |  | 42.36? |  |" in text
    assert "prototypes of the method (CIDER embedding)" in text
    assert "stand beside the features" in text
    assert "FPR95" not in text


def test_stand_ins_are_marked_and_never_compared_by_a_difference() -> None:
    table = geometry_table(networks(sets=("svhn", "dtd10"), set={"stand_in_for": "x", "title": "Not it", "vote": "v"}))
    for key in ("ce", "supcon", "cider"):
        assert cell(table, key, "mean", "separability").difference is None
    assert table.votes == 1
    text = to_markdown(table)
    assert "| Not it † | ours | 1.00 |" in text
    assert "† a stand-in" in text
    assert "| mean of the paper's 5 | paper |  | 29.86 |  | 42.36? |  |" in text


def test_the_mean_angle_is_over_votes_and_sets_that_all_networks_have() -> None:
    records = networks(sets=("svhn", "isun", "textures"))
    for made in records:
        for line in made["evaluations"][0]["rows"]:
            line["vote"] = "both" if line["ood"] != "svhn" else "svhn"
    del records[0]["evaluations"][0]["geometry"]["features"]["separability"]["isun"]
    table = geometry_table(records)
    assert table.mean_over == ["svhn", "textures"]
    assert close(cell(table, "cider", "mean", "separability").mean, (1 + 3) / 2)
    full = geometry_table(networks(sets=("svhn", "isun", "textures"), set={"vote": "one"}))
    assert close(cell(full, "cider", "mean", "separability").mean, 2.0)


def test_networks_without_angles_say_why() -> None:
    records = [run("ce", evaluation={"geometry": {"reason": "not asked for"}}), run("cider")]
    records[1]["evaluations"][0]["geometry"]["features"]["left_out"] = {"svhn": 3}
    table = geometry_table(records)
    assert cell(table, "ce", "id", "dispersion").status == "not run"
    text = to_markdown(table)
    assert "- No angles of ce-s1: not asked for." in text
    assert "- cider-s1, features: images without a direction left out: 3 of svhn." in text
    assert close(cell(table, "cider", "svhn", "separability").mean, 1.0)
    with pytest.raises(ConfigError, match="energy reports no angles"):
        geometry_table(records, "energy")


def test_a_later_evaluation_of_further_sets_joins_the_angles() -> None:
    first, later = run("cider", sets=("svhn",)), run("cider", sets=("isun",))
    del later["evaluations"][0]["id"]["linear_probe"]
    both = {**first, "evaluations": first["evaluations"] + later["evaluations"]}
    table = geometry_table([both])
    assert close(cell(table, "cider", "svhn", "separability").mean, 1.0)
    assert close(cell(table, "cider", "isun", "separability").mean, 1.0)
    assert close(cell(table1([both], "cider"), "cider_knn", "id", "linear_probe").mean, 76.0)
    # Other directions, other angles: those of before are not mixed in.
    later["evaluations"][0]["geometry"]["features"]["dispersion"] = 1.0
    table = geometry_table([both])
    assert cell(table, "cider", "svhn", "separability").status == "not run"
    assert close(cell(table, "cider_embedding", "svhn", "separability").mean, 1.0)


def test_csv_is_in_degrees_and_gives_back_every_figure() -> None:
    table = geometry_table(networks())
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    found = {(x["row"], x["ood"], x["metric"], x["seed"]): x for x in lines}
    assert len(found) == len(lines)
    for r in table.rows:
        cells = r.cells | {("id", measure): c for measure, c in r.id_cells.items()}
        for (ood, measure), c in cells.items():
            for seed, value in c.seeds.items():
                assert math.isclose(float(found[r.kind.key, ood, measure, str(seed)]["degrees"]), value, abs_tol=1e-8)
    assert found["supcon", "mean", "separability", "mean"]["paper_degrees"] == "29.86"
    assert found["supcon", "mean", "separability", "mean"]["paper_certainty"] == "seen"
    assert found["cider", "id", "dispersion", "mean"]["difference"] == "-26.03"
    assert found["cider_embedding", "svhn", "separability", "1"]["score"] == "embedding"
    assert found["cider_embedding", "svhn", "separability", "1"]["n_ood"] == "5000"  # every image, not one draw


def test_both_tables_are_written_and_fit_their_width(tmp_path: Path) -> None:
    tables = write_tables([*networks(), run("ce", 2), run("supcon", 2)], tmp_path, "cider")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cider.csv", "cider.md", "geometry.csv", "geometry.md"]
    for name, table in tables.items():
        assert (tmp_path / f"{name}.md").read_text("utf-8") == to_markdown(table)
        console = Console(width=width(table), record=True, file=io.StringIO())
        console.print(to_terminal(table))
        text = console.export_text()
        assert ("± 7.07" if name == "cider" else "± 0.71") in text  # in one piece
    assert list(write_tables([run("ce")], tmp_path / "e", "energy", "cider")) == ["table1"]
