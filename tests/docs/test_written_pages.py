"""README and docs/ say what results/ give; what people write around it stays."""

from pathlib import Path

import pytest

from farout.config.settings import ROOT
from farout.errors import FaroutError
from farout.report.blocks import is_current, pipe_table, update_page
from farout.reproduce.command_lines import command_of
from farout.reproduce.ledger import lacks, read_files, rounded_to
from farout.reproduce.pages import Ledger, old_pictures, outdated, pages_of, pictures_of
from farout.reproduce.trials import Trial

BEGIN, END = "<!-- begin one: written by make verdicts, do not edit -->", "<!-- end one -->"


def test_every_page_and_picture_is_what_the_records_give() -> None:
    ledger = Ledger.read(ROOT / "results")
    pages = pages_of(ledger, ledger.verdicts())
    assert len(pages) == 10
    old = [*outdated(pages), *old_pictures(pictures_of(ledger))]
    assert [str(path.relative_to(ROOT)) for path in old] == [], "make verdicts"


def test_every_record_says_scale_seed_device_commit_and_hashes() -> None:
    """What newer records have besides may be absent; the index says so."""
    allowed = {"what it depends on", "paired intervals"}
    ledger = Ledger.read(ROOT / "results")
    assert {record["file"]: lacks(record) for record in ledger.records if set(lacks(record)) - allowed} == {}
    assert all(record["identity"].get("scale") and "seed" in record["identity"] for record in ledger.records)


def test_the_index_says_the_command_as_recorded_or_by_the_experiment() -> None:
    (record,) = [r for r in read_files(ROOT / "results") if r["run"] == "oe-wrn_40_2-cifar10-cifar100-55f6d137-s1"]
    trial = Trial(record, record["evaluations"][0])
    assert (
        command_of(trial) == "train.py experiment=energy/full/cifar10_oe_ft seed=1 outliers=cifar100 ood_data=stand_in"
    )
    files = ["train", "method/oe", "experiment/energy/small/cifar10_oe_ft"]
    changed = {"paths.outputs": ["outputs", "x"], "holdout": [0.0, 0.1], "max_steps": [200, None], "m": [1, [2, 3]]}
    asked = {**record, "composition": {"files": files, "changed": changed}}
    words = "experiment=energy/small/cifar10_oe_ft seed=1 holdout=0.1 max_steps=null m=[2,3]"
    assert command_of(Trial(asked, record["evaluations"][0])) == f"train.py {words}"
    adopted = {"files": [{"name": "weights.safetensors", "rounded": {"float16": 41}}, {"name": "x", "rounded": None}]}
    assert rounded_to({**record, "adopted": [adopted]}) == ["float16"] and rounded_to({**record, "adopted": []}) == []


def test_only_what_stands_between_the_marks_is_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert not is_current(page, {"one": "new"})
    assert update_page(page, {"one": "new\n"})
    assert page.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert is_current(page, {"one": "new"})
    assert not update_page(page, {"one": "new"})


@pytest.mark.parametrize("text", ["nothing", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_page_without_a_place_is_named(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(FaroutError, match=r"page\.md has no place for one: it needs the lines"):
        update_page(page, {"one": "new"})
    assert page.read_text() == text


def test_a_bar_in_a_cell_makes_no_column() -> None:
    assert pipe_table(["", "p(y|x)"], [["a", "1"]], 1) == "|  | p(y\\|x) |\n| --- | ---: |\n| a | 1 |"
