"""report.html: one file that loads nothing, with every number, safe against any name, and made again from a folder."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_reader import Reader
from synthetic_evidence import ENERGY, OE, entry, evidence, head, scores

from farout.errors import ConfigError, FaroutError, MissingDataError
from farout.metrics.protocol import Protocol
from farout.report.evidence import Evidence
from farout.report.figures.drawings import save_figures
from farout.report.page.html import write_report
from farout.report.page.rebuild import last_evaluation, read_evidence, rebuild_report

SMALL = scores(90, ("msp", "energy"), ("SVHN", "iSUN", "CIFAR-100"))
EVIL = '<img src=x onerror="alert(1)">&amp;$x$'


def _written(folder: Path, *entries: dict[str, Any], facts: Evidence | None = None, **more: Any) -> str:
    path = write_report(folder / "report.html", head(**more), entries, facts or evidence(SMALL, focus="energy"))
    assert path == folder / "report.html"
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    plain = Protocol("plain")
    return _written(tmp_path_factory.mktemp("page"), entry(SMALL, ENERGY), entry(SMALL, plain))


def test_the_tables_hold_every_figure(page: str) -> None:
    made, tables = entry(SMALL, ENERGY), Reader(page).tables
    for metric, title in (
        ("fpr95", "FPR95 (%, lower is better)"),
        ("auroc", "AUROC (%, higher is better)"),
        ("aupr", "AUPR (%, higher is better)"),
    ):
        rows = {line[0]: line[1:] for line in tables[title]}
        assert [cell.rstrip("†") for cell in rows["score"]] == ["SVHN", "iSUN", "CIFAR-100", "mean"]
        for score in ("msp", "energy"):
            own = [row for row in made["rows"] if row["score"] == score]
            mean = next(m for m in made["means"] if m["score"] == score)
            assert rows[score] == [f"{100 * row[metric]:.2f}" for row in [*own, mean]]
    facts = {line[0]: line[1:] for line in tables["FPR95 (%, lower is better)"]}
    assert facts["n OOD"] == ["18", "18", "18", ""]
    assert facts["of available"] == ["90", "90", "90", ""]
    assert facts["n ID"] == ["90", "90", "90", ""]
    assert facts["base rate"][0] == f"{90 / 108:.4f}"


def test_differences_on_the_same_images_stand_with_their_intervals(tmp_path: Path) -> None:
    found = [
        {
            "first": "energy",
            "second": "msp",
            "ood": "isun",
            "fpr95": [-0.21, -0.3, -0.1],
            "auroc": [0.01, -0.02, 0.03],
        },
        {"first": "energy", "second": "msp", "ood": "mean", "fpr95": [0.1, -0.0002, 0.2], "auroc": [-0.2, -0.3, -0.1]},
    ]
    paired = {"level": 0.95, "resamples": 1000, "seed": 0, "differences": found}
    made = _written(tmp_path, entry(SMALL, ENERGY, paired=paired), entry(SMALL, Protocol("plain")))
    reader = Reader(made)
    assert reader.words.count("Less msp, on the same images") == 1
    assert "95 % paired bootstrap interval, 1,000 resamples" in reader.words
    tables = {rows[0][0]: rows for rows in reader.tables.values()}
    rows = tables["FPR95 (%, lower is better), less msp"]
    assert rows[0][1:] == ["iSUN", "mean"]
    assert rows[1:] == [["energy", "-21.0* [-30.0, -10.0]", "+10.0 [+0.0, +20.0]"]]
    rows = tables["AUROC (%, higher is better), less msp"]
    assert rows[1:] == [["energy", "+1.0 [-2.0, +3.0]", "-20.0* [-30.0, -10.0]"]]


def test_the_words_a_reader_needs(page: str) -> None:
    words = Reader(page).words
    for wanted in (
        "energy-wrn_40_2-cifar10-s1",
        "In-distribution: CIFAR-10 test, 90 images",
        "93.39 %",
        "3.12 %",
        "ECE (15 bins)",
        "m_in -23.0, m_out -5.0",
        "wrn_40_2 (depth 40)",
        "random_images_300k",
        "ce-wrn_40_2-cifar10-s1",
        "epochs 10, lr 0.001",
        "2026-11-20, made-up accelerator, commit 0123456789ab",
        "1 h 1 min",
        "2026-11-22, CPU (made up), commit abcdef012345",
        "CIFAR-10, test, PNG strips, sha256 abababababab",
        "Protocol energy: ID is positive",
        "OOD:ID 1:5",
        "The same under protocol plain",
        "Mean over 3 votes: SVHN; iSUN; CIFAR-100.",
        "† a stand-in: iSUN for lsun_r.",
        "celeba: no pack and no archive",
        "CIFAR-100: 3",
        "Far from chance: jpeg.",
        "SVHN: seen as most in-distribution",
        "CIFAR-10: seen as least in-distribution",
        "CIFAR-10: misclassified with most confidence",
    ):
        assert wanted in words, wanted
    assert page.count("⚠ ") == 3, "both scores of the far control, and the line that says it"


def test_nothing_is_loaded_nothing_runs_no_id_twice(page: str) -> None:
    read = Reader(page)
    assert all(link.startswith(("data:", "#")) for link in read.links)
    assert read.tags["script"] == read.tags["iframe"] == read.tags["object"] == 0
    assert not re.search(r"url\((?!#)|@import", page)
    assert "default-src 'none'" in page
    assert [name for name, n in read.ids.items() if n > 1] == []
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', page)) <= set(read.ids), "every reference has its target"
    assert read.tags["svg"] == 1 + 3 * 2 + 3 + 1
    assert read.tags["img"] == 6 * 3 + 6 + min(6, int((~np.asarray(evidence(SMALL).correct)).sum()))


def test_colours_follow_the_theme_and_fonts_the_page(page: str) -> None:
    drawings = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    for colour in ("#24292f", "#6b737c", "#d5dae0", "#ffffff", "#0072b2", "#e69f00"):
        assert colour not in drawings
        assert colour in page, "it stands in the style sheet"
    assert "DejaVu" not in page
    assert "prefers-color-scheme:dark" in page


def test_any_name_is_only_a_name(tmp_path: Path) -> None:
    made = entry(SMALL, ENERGY)
    for row in made["rows"]:
        row["title"] = f"{row['title']} {EVIL}"
    made["missing"] = [{"ood": EVIL, "reason": EVIL}]
    made["device"] = made["ood_data"] = made["id"]["info"]["title"] = EVIL
    facts = evidence(SMALL)
    facts = Evidence(SMALL, facts.confidence, facts.correct, facts.pictures, [EVIL] * 10)
    identity = {"method": {"name": EVIL, EVIL: EVIL}, "seed": EVIL}
    page = _written(tmp_path, made, facts=facts, run=EVIL, identity=identity)
    read = Reader(page)
    assert "<img src=x" not in page
    assert read.words.count('<img src=x onerror="alert(1)">&amp;$x$') > 20
    assert all(link.startswith(("data:", "#")) for link in read.links)


def test_ood_positive_and_both_conventions(tmp_path: Path) -> None:
    both = Protocol("openood", "ood", fpr_rule="first", aupr="trapezoid", both=True, bootstrap=20)
    made = entry(SMALL, both)
    page = _written(tmp_path, made)
    read = Reader(page)
    assert "OOD is positive" in read.words
    assert "ID flagged (%)" in read.words
    rows = {line[0]: line[1:] for line in read.tables["FPR95 (%, lower is better), ID positive"]}
    assert rows["msp"][:3] == [f"{100 * row['fpr95_in']:.2f}" for row in made["rows"][:3]]
    low, high = made["rows"][0]["intervals"]["fpr95"]
    assert f"{100 * low:.2f} to {100 * high:.2f} (95 % bootstrap interval)" in page


def test_absent_parts_are_said(tmp_path: Path) -> None:
    made = entry(SMALL, OE, controls=[], missing=[], duplicates={})
    words = Reader(_written(tmp_path, made, facts=Evidence(SMALL))).words
    assert "No images were at hand" in words
    assert "confidence of each image is not known" in words
    assert "No controls were run" in words
    assert "No set of the list is missing" in words
    made["skipped_scores"] = {"vim": "score vim: no residual is left"}
    words = Reader(_written(tmp_path, made, facts=Evidence(SMALL))).words
    assert "Scores that could not be had: vim: score vim: no residual is left" in " ".join(words.split())
    bare = entry(SMALL, OE, rows=[], means=[])
    assert "No OOD set was at hand" in Reader(_written(tmp_path, bare, facts=Evidence(SMALL))).words
    with pytest.raises(FaroutError, match="evaluate the run first"):
        write_report(tmp_path / "report.html", head(), [], Evidence(SMALL))


def test_figures_are_saved_as_png_and_svg_and_shared_with_the_page(tmp_path: Path) -> None:
    made, facts = entry(SMALL, ENERGY), evidence(SMALL, focus="energy")
    paths, drawings = save_figures(tmp_path / "plots", made, facts, "a run")
    kinds = [f"{kind}_{score}" for score in ("msp", "energy") for kind in ("histogram", "roc", "pr")]
    stems = ["heat_map", *kinds, "row_svhn", "row_isun", "row_cifar-100", "reliability", "mistakes_energy"]
    assert [path.name for path in paths] == [f"{stem}.png" for stem in stems]
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {f"{s}.{e}" for s in stems for e in ("png", "svg")}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    write_report(tmp_path / "report.html", head(), [made], facts, drawings)
    shared = (tmp_path / "report.html").read_text("utf-8")
    assert Reader(shared).tags["svg"] == 11
    assert 'class="heading"' in shared, "the page hides what the file needs to say"


def _run_folder(folder: Path, *entries: dict[str, Any], confidence: bool = False) -> Path:
    """A finished run as an evaluation leaves it."""
    folder.joinpath("scores").mkdir()
    facts = evidence(SMALL)
    pictures = facts.pictures["id"]
    extra = {"label": pictures.labels, "prediction": pictures.predictions}
    extra |= {"confidence": facts.confidence} if confidence else {}
    for name, by_score in {**SMALL, "control_jpeg": SMALL["id"]}.items():
        arrays: dict[str, Any] = {**by_score, **(extra if name == "id" else {})}
        np.savez(folder / f"scores/{name}.npz", allow_pickle=False, **arrays)
    folder.joinpath("results.json").write_text(json.dumps({**head(), "evaluations": entries}))
    return folder


def test_the_page_again_from_a_run_folder(tmp_path: Path, page: str) -> None:
    run = _run_folder(tmp_path, entry(SMALL, ENERGY), entry(SMALL, Protocol("plain")))
    path = rebuild_report(run, tmp_path / "elsewhere")
    assert path == tmp_path / "elsewhere/report.html"
    read, whole = Reader(path.read_text("utf-8")), Reader(page)
    assert "No images were at hand" in read.words
    assert read.tags["svg"] == whole.tags["svg"] == 11
    for title in ("FPR95 (%, lower is better)", "AUROC (%, higher is better)", "AUPR (%, higher is better)"):
        assert read.tables[title] == whole.tables[title]


def test_confidence_is_read_or_taken_from_msp(tmp_path: Path) -> None:
    for stored in (False, True):
        folder = tmp_path / str(stored)
        folder.mkdir()
        found = read_evidence(_run_folder(folder, confidence=stored) / "scores", entry(SMALL, ENERGY))
        wanted = evidence(SMALL).confidence if stored else SMALL["id"]["msp"]
        np.testing.assert_array_equal(np.asarray(found.confidence), np.asarray(wanted))
        np.testing.assert_array_equal(np.asarray(found.correct), np.asarray(evidence(SMALL).correct))
        assert list(found.scores) == ["id", "svhn", "isun", "cifar-100"]
        assert list(found.scores["id"]) == ["msp", "energy"]


def test_only_the_last_evaluation_is_reported(tmp_path: Path) -> None:
    old = entry(scores(90, ("msp",), ("SVHN",)), ENERGY)
    last = [entry(SMALL, ENERGY), entry(SMALL, Protocol("plain"))]
    record = {**head(), "evaluations": [old, entry(SMALL, Protocol("plain")), *last]}
    assert last_evaluation(record) == last
    with pytest.raises(MissingDataError, match="never evaluated"):
        last_evaluation({**head(), "evaluations": []})


def test_a_folder_without_its_scores_is_one_line(tmp_path: Path) -> None:
    run = _run_folder(tmp_path, entry(SMALL, ENERGY))
    (run / "scores/isun.npz").write_bytes(b"PK nonsense")
    with pytest.raises(ConfigError, match=r"isun\.npz is damaged"):
        rebuild_report(run)
    (run / "scores/isun.npz").unlink()
    with pytest.raises(MissingDataError, match=r"isun\.npz does not exist"):
        rebuild_report(run)
    (run / "results.json").unlink()
    with pytest.raises(MissingDataError, match=r"results\.json does not exist"):
        rebuild_report(run)


def test_pyplot_is_not_loaded() -> None:
    modules = "farout.report.figures.drawings, farout.report.page.html"
    code = f"import sys, {modules}; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
