"""Table 1 from synthetic records: every figure checked by hand."""

import csv
import io
import math
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from synthetic_records import PLAIN, full_table, houses, record, row

from farout.errors import ConfigError
from farout.report.records import where
from farout.report.tables.cells import Cell, Table
from farout.report.tables.tabulate import table1, to_csv, to_markdown, to_terminal, write_table

GOLDEN = Path(__file__).parent / "golden_table1.md"


def cell(table: Table, key: str, ood: str, metric: str = "fpr95") -> Cell:
    return next(r for r in table.rows if r.kind.key == key).cells[ood, metric]


def close(value: float | None, wanted: float) -> bool:
    return value is not None and math.isclose(value, wanted, abs_tol=1e-9)


def test_groups_of_sets_have_a_mean_of_their_own_beside_that_of_all() -> None:
    rows = [row("msp", name, share) for name, share in (("cifar100", 0.6), ("svhn", 0.4), ("textures", 0.1))]
    groups = [{"score": "msp", "group": "near", "over": ["cifar100"]}]
    groups.append({"score": "msp", "group": "far", "over": ["svhn", "textures"]})
    own = record("ce", 1, rows, evaluation={"group_means": groups})
    table = table1([own], rows=["softmax"])
    found = {name: cell(table, "softmax", name).mean for name in ("mean near", "mean far", "mean")}
    assert found == {"mean near": pytest.approx(60), "mean far": pytest.approx(25), "mean": pytest.approx(110 / 3)}
    lines = to_markdown(table).splitlines()
    (near, far) = (next(line for line in lines if f"{name} sets" in line) for name in ("1 near", "2 far"))
    assert "60.00" in near and "25.00" in far
    listed = {line["ood"]: line for line in csv.DictReader(io.StringIO(to_csv(table))) if line["metric"] == "auroc"}
    assert float(listed["mean far"]["percent"]) == pytest.approx(100 - 25 / 4)
    without = table1([record("ce", 2, rows)], rows=["softmax"])
    assert not without.groups and " near sets" not in to_markdown(without)
    assert not table1([own, record("ce", 2, rows)], rows=["softmax"]).groups, "only what every run has"


def test_seeds_give_mean_sample_deviation_and_difference() -> None:
    svhn = cell(table1(full_table()), "softmax", "svhn")
    assert dict(svhn.seeds) == {1: 50.0, 2: 46.0}
    assert close(svhn.mean, 48.0)
    assert close(svhn.sd, math.sqrt(8.0))  # (2^2 + 2^2) / (2 - 1)
    assert close(svhn.difference, 48.0 - 48.49)
    single = cell(table1(full_table()), "energy_ft", "svhn")
    assert single.sd is None
    assert close(single.difference, 0.0)


def test_sets_of_one_vote_count_once_in_the_mean() -> None:
    table = table1(full_table())
    assert (table.votes, len(table.mean_over)) == (2, 3)
    mean = cell(table, "softmax", "mean")
    assert close(mean.seeds[1], (50 + (30 + 10) / 2) / 2)
    assert close(mean.seeds[2], (46 + (30 + 10) / 2) / 2)
    assert mean.difference is None  # other sets than the paper's six
    assert mean.paper.value == 51.04


def test_a_stand_in_is_never_compared_nor_called_by_the_official_name() -> None:
    stand_in = row("msp", "svhn", 0.4, title="Street characters", stand_in_for="SVHN")
    table = table1([record("ce", 1, [stand_in])], rows=["softmax"])
    assert cell(table, "softmax", "svhn").difference is None
    assert "| Street characters † | ours | 40.00 |" in to_markdown(table)
    assert "\n| SVHN" not in to_markdown(table)
    assert cell(table, "softmax", "svhn").paper.value is None
    assert "| Street characters † | SVHN |" in to_markdown(table)


def test_all_six_of_the_papers_sets_allow_a_difference_of_the_mean() -> None:
    names = ("svhn", "textures", "places365", "lsun_c", "lsun_r", "isun")
    table = table1([record("ce", 1, [row("msp", name, 0.5) for name in names])], rows=["softmax"])
    assert close(cell(table, "softmax", "mean").difference, 50 - 51.04)
    assert close(cell(table, "softmax", "mean", "auroc").difference, 87.5 - 90.90)
    assert table.votes == 6
    assert "mean of the paper's" not in to_markdown(table)


def test_gaps_say_why() -> None:
    table = table1(full_table())
    assert cell(table, "softmax", "isun").status == "missing"
    assert cell(table, "softmax", "textures").status == "not run"
    assert cell(table, "oe", "svhn").status == "not run"
    text = to_markdown(table)
    assert "| iSUN (missing) | paper | 56.03 | 33.68 | 6.32 | 1.60 |" in text
    assert "| Textures (not run) | paper |" in text
    assert "- Not run: OE." in text
    assert "- Missing: iSUN (not in the store)." in text


def test_the_mean_is_over_the_sets_that_every_run_has() -> None:
    with_faces = record("ce", 1, [row("msp", "svhn", 0.5), row("msp", "faces", 0.1)])
    without = record("oe", 1, [row("msp", "svhn", 0.2)])
    table = table1([with_faces, without], rows=["softmax", "oe"])
    assert close(cell(table, "softmax", "mean").mean, 50.0)
    assert "Left out, as not every run has it: FACES." in to_markdown(table)


def test_a_set_that_one_seed_lacks_is_marked_and_left_out_of_the_mean() -> None:
    records = [
        record("ce", 1, [row("msp", "svhn", 0.5), row("msp", "a", 0.3)]),
        record("ce", 2, [row("msp", "a", 0.1)]),
    ]
    table = table1(records, rows=["softmax"])
    assert table.mean_over == ["a"]
    assert "50.00 (1/2 seeds)" in to_markdown(table)


def test_no_mean_of_aupr_across_base_rates() -> None:
    rows = [row("msp", "svhn", 0.5), row("msp", "camvid", 0.1, base_rate=0.9345)]
    table = table1([record("ce", 1, rows)], rows=["softmax"])
    assert cell(table, "softmax", "mean", "aupr").mean is None
    assert cell(table, "softmax", "mean", "aupr").status == "no mean"
    assert close(cell(table, "softmax", "mean", "auroc").mean, (87.5 + 97.5) / 2)
    assert "No mean of AUPR" in to_markdown(table)


def test_aupr_and_fpr_are_compared_under_the_papers_convention_only() -> None:
    plain = row("msp", "svhn", 0.5, base_rate=10000 / 36032)
    table = table1([record("ce", 1, [plain], evaluation={"protocol": PLAIN})], "energy", "plain", ["softmax"])
    assert cell(table, "softmax", "svhn", "aupr").difference is None
    assert cell(table, "softmax", "svhn", "fpr95").difference is not None
    flipped = {**PLAIN, "name": "oe", "positive": "ood"}
    table = table1([record("ce", 1, [plain], evaluation={"protocol": flipped})], "energy", "oe", ["softmax"])
    assert cell(table, "softmax", "svhn", "fpr95").difference is None
    assert cell(table, "softmax", "svhn", "auroc").difference is not None
    assert "No difference of FPR95" in to_markdown(table)


def test_accuracy_stands_beside_the_papers() -> None:
    softmax = table1(full_table()).rows[0].id_cells
    assert close(softmax["accuracy"].difference, 92 - (100 - 5.16))
    assert close(softmax["ece"].mean, 4.0)
    assert softmax["ece"].paper.value is None


def test_an_untrained_classifier_has_no_accuracy_and_the_table_says_so() -> None:
    records = full_table()
    for one in records:
        if one["identity"]["method"]["name"] == "energy":
            one["evaluations"][0]["id"] |= {"accuracy": None, "ece": None, "no_accuracy": "never trained"}
    table = table1(records)
    (row,) = [row for row in table.rows if row.kind.key == "energy_ft"]
    assert row.id_cells["accuracy"].mean is None
    assert {cell.status for cell in row.id_cells.values()} == {"no classifier"}
    (line,) = [line for line in to_markdown(table).splitlines() if line.startswith("| accuracy | ours")]
    assert "92.00" in line and "no classifier" in line
    assert ",no classifier," in to_csv(table)


def test_differences_of_two_rows_of_one_network_have_their_paired_intervals() -> None:
    rows = [row(score, "svhn", rate) for score, rate in (("msp", 0.5), ("energy", 0.3), ("knn", 0.2))]
    figures = {"fpr95": [-0.2, -0.213, -0.186], "auroc": [0.05, 0.041, 0.06], "aupr": None}
    both = [{"first": "energy", "second": "msp", "ood": ood, **figures} for ood in ("svhn", "mean")]
    others = [{"first": "knn", "second": "msp", "ood": "svhn", **figures}]
    given = record("ce", 1, rows)
    given["evaluations"][0]["paired"] = {"differences": [*both, *others]}
    text = to_markdown(table1([given, record("oe", 1, [row("msp", "svhn", 0.1)])]))
    assert text.count("95 % interval]") == 1 and text.count("less softmax, seed 1") == 2
    assert "| energy less softmax, seed 1: SVHN | -20.00 [-21.30, -18.60] | +5.00 [+4.10, +6.00] |  |" in text
    assert "95 % interval" not in to_markdown(table1([record("ce", 1, rows)]))


def test_controls_far_from_chance_warn() -> None:
    text = to_markdown(table1(full_table()))
    assert "| resampled |  | 52.00 |" in text
    assert "| jpeg |  | ⚠ 66.00 |" in text
    assert text.count("⚠ control") == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"backbone": {"name": "wrn_40_2"}}, "two kinds of backbone"),
        ({"id_data": "cifar100"}, "two kinds of id_data"),
    ],
)
def test_what_cannot_share_a_table_is_refused(more: dict[str, Any], message: str) -> None:
    other = record("energy", 1, [row("energy", "svhn", 0.1)], identity=more)
    with pytest.raises(ConfigError, match=message):
        table1([record("ce", 1, [row("msp", "svhn", 0.5)]), other])


def test_a_row_holds_one_setting_and_one_run_per_seed() -> None:
    one = record("ce", 1, [row("msp", "svhn", 0.5)])
    full = record("ce", 2, [row("msp", "svhn", 0.5)], identity={"scale": "full"})
    with pytest.raises(ConfigError, match=r"two kinds of scale \(small and full\)"):
        table1([one, full])
    assert table1(where([one, full], ["scale=full"])).rows[0].runs[0].seed == 2
    with pytest.raises(ConfigError, match="two runs of the same seed"):
        table1([one, {**one, "run": "again"}])
    assert len(table1([one, one]).rows[0].runs) == 1  # the same run twice is one run


def test_records_without_use_are_named_or_refused() -> None:
    scratch = record("oe", 1, [row("msp", "svhn", 0.2)], identity={"parent": None})
    text = to_markdown(table1([record("ce", 1, [row("msp", "svhn", 0.5)]), scratch]))
    assert "Runs that belong to no row here: oe-s1." in text
    for records in ([], [scratch]):
        with pytest.raises(ConfigError):
            table1(records)
    with pytest.raises(ConfigError, match="there is: energy"):
        table1([scratch], protocol="plain")
    with pytest.raises(ConfigError, match="it has: softmax"):
        table1([scratch], rows=["softmaks"])


def test_where_reads_groups_by_name_and_keeps_runs_without_the_key() -> None:
    records = full_table()
    assert where(records, ["backbone=resnet20", "outliers=cifar100", "m_in=1"][:2]) == records
    assert [r["run"] for r in where(records, ["seed=2"])] == ["ce-s2"]
    assert [r["run"] for r in where(records, ["method.m_in=-27"])] == ["ce-s1", "ce-s2"]
    for wrong in ("scale", "sclae=small"):
        with pytest.raises(ConfigError):
            where(records, [wrong])


def test_an_expected_set_has_a_line_and_digits_have_no_paper() -> None:
    digits = record("ce", 1, [row("msp", "blobs", 0.5)], identity={"id_data": "digits"})
    text = to_markdown(table1([digits], expected={"letters": "Letters"}))
    assert "| Letters | ours | not run |" in text
    assert "paper |" not in text
    assert "SVHN" not in text.replace("the SVHN", "")


def test_the_oe_paper_tells_tuned_from_scratch() -> None:
    protocol = {"protocol": {**PLAIN, "name": "oe", "positive": "ood", "ratio": 5}}
    rows = [row("msp", "svhn", 0.1, base_rate=1 / 6, positive="ood")]
    tuned = record("oe", 1, rows, evaluation=protocol)
    scratch = record("oe_scratch", 1, rows, evaluation=protocol, identity={"parent": None})
    table = table1([tuned, scratch], "oe", "oe")
    assert close(cell(table, "oe_tune", "svhn").difference, 10 - 4.76)
    assert close(cell(table, "oe_scratch", "svhn").difference, 10 - 2.11)


def test_every_table_says_in_which_precision_its_rows_were_trained() -> None:
    rows = [row("msp", "svhn", 0.1)]
    mixed = [record("ce", 1, rows), record("oe", 1, rows, identity={"precision": "bf16"})]
    text = to_markdown(table1(mixed))
    assert re.search(r"at commit abcdef0123 in fp32 \(softmax.*\), bf16 \(OE.*\); evaluated", text)
    assert "The papers trained in fp32" in text and "The papers trained" not in to_markdown(table1(mixed[:1]))
    others = record("ce", 1, rows, identity={"method": {"name": "imported"}})
    assert "in a precision not known to us" in to_markdown(table1([others]))


def test_markdown_equals_the_golden_table() -> None:
    assert to_markdown(table1(full_table())) == GOLDEN.read_text("utf-8")


def test_ties_share_the_stress() -> None:
    rows = [row("msp", "a", 0.2), row("energy", "a", 0.2), row("msp", "b", 0.3), row("energy", "b", 0.3)]
    table = table1([record("ce", 1, rows), record("oe", 1, [row("msp", "a", 0.4), row("msp", "b", 0.3)])])
    text = to_markdown(table)
    assert "| A | ours | **20.00** | **20.00** | 40.00 | not run |" in text
    assert "| B | ours | 30.00 | 30.00 | 30.00 | not run |" in text  # all equal: none is best


def test_csv_gives_back_every_figure() -> None:
    table = table1(full_table())
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    found = {(x["row"], x["ood"], x["metric"], x["seed"]): x for x in lines}
    assert len(found) == len(lines)
    for r in table.rows:
        for (ood, metric), c in r.cells.items():
            for seed, value in c.seeds.items():
                assert math.isclose(float(found[r.kind.key, ood, metric, str(seed)]["percent"]), value, abs_tol=1e-8)
    assert found["softmax", "svhn", "fpr95", "sd"]["percent"] == "2.828427125"
    assert found["softmax", "svhn", "fpr95", "mean"]["difference"] == "-0.49"
    assert found["softmax", "houses_resized", "fpr95", "mean"]["stand_in_for"] == "LSUN-R"
    assert found["softmax", "isun", "fpr95", ""]["status"] == "missing"
    assert found["energy_ft", "mean", "auroc", "1"]["run"] == "energy-s1"
    assert found["softmax", "id", "accuracy", "mean"]["paper_percent"] == "94.84"


def test_the_terminal_table_fits() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(to_terminal(table1(full_table())))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 100
    assert any("48.00 ± 2.83" in line and "38.00 ± 2.83" in line and "1.04" in line for line in lines)


def test_an_evaluation_added_later_joins_the_first() -> None:
    first = record("ce", 1, [row("msp", "svhn", 0.5)], evaluation={"missing": [{"ood": "isun", "reason": "absent"}]})
    later = record("ce", 1, [row("msp", "isun", 0.3)])["evaluations"]
    table = table1([{**first, "evaluations": first["evaluations"] + later}])
    assert close(cell(table, "softmax", "mean").mean, 40.0)
    assert "Missing" not in to_markdown(table)


def test_write_table_writes_both_files(tmp_path: Path) -> None:
    table = write_table([record("ce", 1, [houses("msp", "resized", 0.2)])], tmp_path / "new", rows=["softmax"])
    assert (tmp_path / "new/table1.md").read_text("utf-8") == to_markdown(table)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["table1.csv", "table1.md"]
