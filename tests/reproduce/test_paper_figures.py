"""Figures under the tables of the papers' pages: what the records hold, and nothing where they hold nothing."""

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from farout.config.settings import ROOT
from farout.errors import ConfigError, FaroutError
from farout.files import save_json
from farout.metrics import reliability_curve
from farout.papers import load
from farout.papers.claims import ANGLES
from farout.report.figures.style import svg_text
from farout.report.records import read_record
from farout.reproduce.ledger import read_files
from farout.reproduce.paper_figures import PaperFigure, figures_of, shown
from farout.reproduce.result_tables import result_tables, tables_of

RECORDS = read_files(ROOT / "results")


def figures(records: list[dict[str, Any]], paper: str, kind: str) -> dict[str, PaperFigure]:
    """File -> figure."""
    found = [figure for table in tables_of(records, [paper]) for figure in figures_of(table)]
    return {figure.file: figure for figure in found if figure.file.endswith(f"-{kind}.svg")}


def words(figure: PaperFigure) -> list[str]:
    return re.findall(r">([^<>]*\S[^<>]*)<", svg_text(figure.draw()))


def test_angles_are_those_of_the_table_beside_the_papers() -> None:
    found = figures(RECORDS, "cider", "angles")
    tables = [t for t in result_tables(RECORDS, names=["cider"]).split("### ") if " of the features, degrees" in t]
    assert len(found) == len(tables) >= 3
    theirs = load("cider").extra_tables["geometry"]
    for figure, table in zip(found.values(), tables, strict=True):
        seen, columns = words(figure), [line for line in table.splitlines() if " of the features, degrees" in line]
        assert [line.split(" of ")[0].strip("| ") for line in columns] == list(ANGLES)
        for line in columns:
            assert {cell.strip() for cell in line.split("|")[2:-1]} <= set(seen)
        papers = {"87.5?", f"{theirs.value('cifar10', 'supcon', 'separability').value:.1f}"}
        assert papers <= set(seen) if "CIFAR-10," in table else not papers & set(seen), "the paper has no digits"
        sets = {line.split("|")[1].strip() for line in table.split("---: |\n")[1].split("| **mean")[0].splitlines()}
        assert sets and sets <= set(seen)
        assert ("not run" in seen) == (not re.search(r"\| MSP( \(\w+\))? \|", table))
        assert figure.draw().axes[3].lines, "dots of single sets"


def test_attacks_are_those_on_the_most_images() -> None:
    (figure,) = (found for name, found in figures(RECORDS, "jem", "attacks").items() if "-small-" in name)
    (record,) = [r for r in RECORDS if r["file"].startswith("small_jem-jem")]
    names = {"baseline (CE)": "classifier"}
    strong = {
        (curve["norm"], names.get(curve["label"], curve["label"])): [curve["clean_accuracy"], *curve["accuracy"]]
        for curve in record["robustness"]["curves"]
        if curve["images"]["n"] == 200
    }
    drawn = figure.draw()
    labels = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert labels == ["classifier", "JEM-0", "JEM-1", "JEM-10"]
    for norm, axis in zip(("linf", "l2"), drawn.axes, strict=True):
        for name, line in zip(labels, axis.lines, strict=True):
            np.testing.assert_allclose(line.get_ydata(), 100 * np.array(strong[norm, name]))
    assert "200 test images" in figure.caption and "commit bbe671f84c4b" in figure.caption
    assert "JEM-10 54.5, 46.5" in figure.alt


def test_seeds_of_a_curve_are_averaged() -> None:
    seeds = copy.deepcopy([r for r in RECORDS if r["file"].startswith("small_jem-")])
    for record in copy.deepcopy(seeds):
        renamed = {name: name.removesuffix("s1") + "s2" for name in (r["run"] for r in seeds)}
        for curve in record.get("robustness", {}).get("curves", ()):
            curve["run"] = renamed[curve["run"]]
            curve["accuracy"] = [share + 0.1 for share in curve["accuracy"]]
        seeds.append({**record, "run": renamed[record["run"]], "identity": {**record["identity"], "seed": 2}})
    ones = [r for r in seeds if r["identity"]["seed"] == 1]
    (one,), (both,) = (figures(of, "jem", "attacks").values() for of in (ones, seeds))
    for before, after in zip(one.draw().axes[0].lines, both.draw().axes[0].lines, strict=True):
        np.testing.assert_allclose(after.get_ydata()[1:], np.asarray(before.get_ydata()[1:]) + 5)
    assert "seeds 1 and 2" in both.caption


def test_reliability_is_drawn_where_a_record_has_the_bins(tmp_path: Path) -> None:
    bare = [r for r in RECORDS if r["file"].startswith("small_jem-")]
    without = [{**r, "evaluations": [_with_bins(e, None) for e in r["evaluations"]]} for r in bare]
    assert figures(without, "jem", "reliability") == {}
    confidence = np.linspace(0.1, 1, 999)
    curve = reliability_curve(confidence, np.arange(999) % 2, 20)
    having = [{**r, "evaluations": [_with_bins(e, curve.as_bins()) for e in r["evaluations"]]} for r in bare]
    (figure,) = figures(having, "jem", "reliability").values()
    panels = figure.draw().axes
    names = [axis.get_title(loc="left").split("\n") for axis in panels]
    assert names == [[f"{name}, seed 1", f"ECE {100 * curve.error:.2f} %"] for name in ("classifier", "JEM")]
    heights = [bar.get_height() for bar in panels[1].containers[0]]
    np.testing.assert_allclose(heights, 100 * curve.accuracy[curve.count > 0], atol=1e-4)
    assert shown([figure], "../")[0].startswith("![Reliability") and svg_text(figure.draw()) == svg_text(figure.draw())
    short = {**curve.as_bins(), "count": [1]}
    damaged = [{**r, "evaluations": [_with_bins(e, short) for e in r["evaluations"]]} for r in bare]
    with pytest.raises(FaroutError, match=r"small_jem-ce.*\.json: .*as many counts as means"):
        figures(damaged, "jem", "reliability")
    save_json(tmp_path / "x.json", {**having[0], "evaluations": [_with_bins(bare[0]["evaluations"][0], {"count": 1})]})
    with pytest.raises(ConfigError, match=r"evaluations\[0\]\.id\.reliability\.count is no list"):
        read_record(tmp_path / "x.json")


def _with_bins(entry: dict[str, Any], bins: dict[str, Any] | None) -> dict[str, Any]:
    facts = {key: value for key, value in entry["id"].items() if key != "reliability"}
    return {**entry, "id": facts | ({"reliability": bins} if bins else {})}
