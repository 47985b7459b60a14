"""Tables of results/: what they show once, and what has tables of its own."""

import re

from farout.config.settings import ROOT
from farout.places import conf_file
from farout.reproduce.ledger import read_files
from farout.reproduce.paper_page import under_table
from farout.reproduce.result_tables import result_tables
from farout.reproduce.score_tables import score_tables


def test_no_table_has_a_column_twice_and_networks_of_others_stand_only_beside_what_began_with_them() -> None:
    """The ResNet-20 that others trained is evaluated on more lists of sets than what was fine-tuned from it."""
    text = result_tables(read_files(ROOT / "results"))
    heads = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|  |")]
    assert len(heads) >= 6
    assert [head for head in heads if len(set(head)) < len(head)] == []
    begun = text.split("### Energy: scale small, from a network that others trained")
    assert len(begun) == 2
    head = next(line for line in begun[1].splitlines() if line.startswith("|  |")).strip("| ").split(" | ")
    kinds = dict.fromkeys(re.sub(r" \(\w{8}\)", "", column) for column in head)  # a setting beside another has a name
    assert list(kinds) == ["softmax", "energy", "OE", "energy fine-tuned"]
    assert "literature-imported-cifar10_resnet56" not in text


def test_what_was_evaluated_on_all_images_has_no_second_table_of_fewer() -> None:
    (record,) = (each for each in read_files(ROOT / "results") if each["run"] == "ce-wrn_40_2-cifar10-288a3327-s1")
    limits = {entry["max_eval_images"] for entry in record["evaluations"] if entry["ood_data"] == "stand_in"}
    assert limits == {None, 2000}
    assert "at most 2000" not in result_tables([record])
    few = {**record, "evaluations": [entry for entry in record["evaluations"] if entry["max_eval_images"]]}
    assert "`stand_in`, at most 2000 images of each" in result_tables([few])
    tables = score_tables([record]).split("### ")
    assert [table.startswith("Every score") for table in tables if "at most 2000" in table[:120]] == [True]
    assert "### Calibration" in score_tables([few])


def test_every_table_of_a_papers_page_says_what_made_it_and_why_its_levels_are_others() -> None:
    text = result_tables(read_files(ROOT / "results"), folder="../../results", below=under_table)
    tables = [part for part in text.split("### ") if part]
    assert len(tables) >= 6
    for table in tables:
        assert "Made by<br>`python " in table, table[:80]
        assert ("[all differences, and why](#" in table) or table.split("\n")[0].count("demo"), table[:80]
    for name in set(re.findall(r"experiment=(\S+)", text)):
        assert conf_file(f"experiment/{name}").is_file(), name
    (full,) = (t for t in tables if t.startswith("Energy: scale full") and "sets of `stand_in`" in t[:90])
    assert "outliers cifar100, the paper's are 80 Million Tiny Images" in full and "schedule" not in full
    assert "wrn_40_2, the paper's" not in full and "(../stand_ins.md)" in full
    (begun,) = (t for t in tables if t.startswith("Energy: scale small, from a network"))
    assert "fine-tuned from a network that others trained" in begun and "=imagenet_stats`, and with seed=2" in begun
    (small,) = (t for t in tables if t.startswith("CIDER: scale small, CIFAR-10"))
    assert "resnet18 of width 16, the paper's is ResNet-18" in small and "epochs: ce 32, supcon 16, cider 16" in small
    (gone_on,) = (t for t in tables if t.startswith("CIDER: scale small from one trained network"))
    assert "every row goes on from one trained network" in gone_on and "epochs: ce 6, supcon 3, cider 3" in gone_on
    heads = next(line for line in gone_on.split("\n") if line.startswith("|  | MSP"))
    heads = re.sub(r"(\| [^|]+) \([0-9a-f]{8}\) (?:\1 \([0-9a-f]{8}\) )+", r"\1 ", heads)  # a row's settings, once
    assert "| CE + KNN | MSP after more CE | energy after more CE | more CE + KNN | SupCon + KNN |" in heads


def test_of_several_settings_of_a_row_each_is_told_by_what_only_it_has() -> None:
    """Cross-entropy went on from one network in two ways: the last stage alone, and whole with milder crops."""
    text = result_tables(read_files(ROOT / "results"), names=["cider"])
    (table,) = (part for part in text.split("### ") if part.startswith("CIDER: scale small from one trained network"))
    last_stage = "`backbone.freeze_statistics=true`, `backbone.trainable=[layer3]`, `transform.crop_scale=[0.2,1.0]`"
    for code, words in {"0e9924c8": "`transform.crop_scale=[0.8,1.0]`", "fef426c7": last_stage}.items():
        assert f"| more CE + KNN ({code}) |" in table
        assert re.search(rf"; {code} has {re.escape(words)}[;.]", table), code
    for other in text.split("### "):
        codes = set(re.findall(r" \(([0-9a-f]{8})\) \|", other))
        assert set(re.findall(r"; ([0-9a-f]{8}) has ", other)) == codes, (
            "told where a row has several settings, only there"
        )
