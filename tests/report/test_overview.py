"""index.html: every folder has its line whatever state it is in, figures as recorded, names that stay names."""

import base64
import html
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_reader import Reader
from synthetic_evidence import ENERGY, entry
from synthetic_runs import EVIL, NAMES, SCORES, N, values_of, write_all, write_run

from farout.config.settings import Paths
from farout.data.image_set import Decoded
from farout.data.stored import write_stored
from farout.errors import MissingDataError
from farout.report.headline import own_score
from farout.report.overview import digests
from farout.report.overview import page as overview
from farout.report.overview.curves import sampled
from farout.report.overview.digests import read_runs
from farout.report.overview.listing import ListedRun
from farout.report.overview.page import write_overview
from farout.report.overview.references import references
from farout.report.overview.thumbnails import contact_sheet
from farout.report.page.rebuild import rebuild_report
from farout.report.parents import parent_of
from farout.runs import evaluation_files
from farout.runs.run import Run

ROWS = sampled(N)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("outputs"))


@pytest.fixture(scope="module")
def page(outputs: Path) -> str:
    return write_overview(outputs).read_text("utf-8")


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert found
    known: dict[str, Any] = json.loads(found[1])
    return known


def test_every_folder_has_a_state_and_its_problem_in_words(outputs: Path, page: str) -> None:
    runs = {run.name: run for run in read_runs(outputs)}
    states = {name: run.state for name, run in runs.items()}
    assert states == {
        **dict.fromkeys(NAMES.values(), "evaluated"),
        "trained-net": "trained",
        "begun-net": "begun",
        EVIL: "begun",
        "cut-record": "damaged",
        "cut-results": "damaged",
        "odd-results": "damaged",
        "list-record": "damaged",
        "empty": "half-written",
        "ce-net.damaged": "set aside",
    }
    words = " ".join(Reader(page).words.split())
    for name, said in {
        "cut-record": "run.json is not valid JSON",
        "odd-results": "is no record of a run (evaluations[0].protocol is missing)",
        "list-record": "run.json holds no JSON object",
        "empty": "it has no run.json",
    }.items():
        assert said in runs[name].problem and str(outputs) not in runs[name].problem
        assert f"{name}: {states[name]}, {runs[name].problem}" in words
    assert "3 evaluated" in words and "4 damaged" in words


def test_the_table_has_every_mean_without_a_script(page: str) -> None:
    head, below, *lines = next(iter(Reader(page).tables.values()))
    assert head[:7] == ["run", "state", "method", "data", "scale", "protocol", "OOD list"]
    order = head[10:12]
    assert head[7:10] == ["own score", "accuracy", "ECE"] and order == ["msp", "energy"] and head[12] == "network"
    assert below == ["score", "FPR95", "AUROC", *["FPR95", "AUROC"] * 2]
    for method, own in (("ce", "msp"), ("oe", "msp"), ("energy", "energy")):
        made = entry(values_of(method), ENERGY)
        means = {m["score"]: [f"{100 * m[x]:.2f}" for x in ("fpr95", "auroc")] for m in made["means"]}
        (line,) = [cells for cells in lines if cells[0] == NAMES[method] and cells[5] == "energy"]
        assert line[1:7] == ["evaluated", method, "cifar10", "small", "energy", "energy"]
        assert line[7:10] == [own, *means[own]]
        assert line[10:12] == ["93.39", "3.12"]
        assert line[12:16] == [figure for score in order for figure in means[score]]
        assert line[16:] == ["net", "1", "2026-11-22", "CPU (made up)", "made-up accelerator"]
    assert len([cells for cells in lines if cells[1] == "reported"]) == len(
        [row for row in references({(method, "cifar10") for method in NAMES}) if row["mean"] != [None, None]]
    )


def test_nothing_is_loaded_and_names_stay_names(page: str) -> None:
    read = Reader(page)
    assert EVIL not in page and read.words.count(EVIL) >= 1 and read.tags["img"] == 0
    assert read.tags["script"] == 2 and "default-src 'none'" in (policy := html.unescape(page))
    assert "script-src 'sha256-" in policy
    files = [link for link in read.links if not link.startswith(("#", "data:"))]
    assert sorted(set(files)) == sorted(f"runs/{name}/report.html" for name in NAMES.values())
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert [name for name, n in read.ids.items() if n > 1] == []


def test_markup_and_figures_that_are_none_in_a_record(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", "ce")
    record = json.loads((run / "results.json").read_text())
    row = record["evaluations"][0]["rows"][0]
    row["title"], row["fpr95"] = f"</script>{EVIL}", float("nan")
    record["evaluations"][0]["id"]["accuracy"] = "much"
    (run / "results.json").write_text(json.dumps(record))
    page = write_overview(tmp_path).read_text("utf-8")
    assert Reader(page).tags["script"] == 2 and EVIL not in page
    (first, _) = data_of(page)["rows"]
    assert first["evaluation"]["sets"]["svhn"]["title"] == f"</script>{EVIL}"
    assert first["evaluation"]["sets"]["svhn"]["scores"]["msp"][0] is None and first["evaluation"]["accuracy"] is None


def _bits(text: str) -> Any:
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8)).astype(bool)


def test_what_runs_are_compared_by_follows_from_their_scores(page: str) -> None:
    curves = data_of(page)["curves"]
    for method, name in NAMES.items():
        values = values_of(method)
        for score in SCORES:
            tau = np.quantile(values["id"][score], 0.05)
            for ood in ("svhn", "isun"):
                known = curves[name][ood]["scores"][score]
                np.testing.assert_array_equal(_bits(known["accepts"]), values[ood][score][ROWS] >= tau)
                roc = np.frombuffer(base64.b64decode(known["roc"]), np.uint8) / 255
                level = np.quantile(values["id"][score], 1 - 48 / 64)
                assert roc[48] == pytest.approx((values[ood][score] >= level).mean(), abs=1 / 255)
                width = (known["edges"][1] - known["edges"][0]) / 48
                for part in ("id", "ood"):
                    heights = np.frombuffer(base64.b64decode(known[part][1]), np.uint8) / 255 * known[part][0]
                    assert heights.sum() * width == pytest.approx(1, abs=0.06)
            np.testing.assert_array_equal(
                _bits(curves[name]["id"]["scores"][score]["accepts"]), values["id"][score][ROWS] >= tau
            )
    images = [curves[name]["svhn"]["images"] for name in NAMES.values()]
    assert len(set(images)) == 1 != len({curves[NAMES["ce"]][ood]["images"] for ood in ("id", "svhn", "isun")})


def test_rows_are_taken_evenly_from_the_first_to_the_last() -> None:
    assert sampled(5).tolist() == [0, 1, 2, 3, 4] and sampled(1).tolist() == [0] and sampled(7, 3).tolist() == [0, 3, 6]
    assert len(ROWS) == 2000 and ROWS[-1] == N - 1 and set(np.diff(ROWS)) == {1, 2}


def test_scores_of_another_evaluation_are_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", "ce")
    arrays = dict(np.load(run / "scores/svhn.npz"))
    arrays["belongs_to"] = np.array(str(arrays["belongs_to"]).replace('"set": "', '"set": "f'))
    np.savez(run / "scores/svhn.npz", **arrays)
    assert set(read_runs(tmp_path)[0].curves) == {"isun", "id"}
    (run / "scores/id.npz").write_bytes(b"PK nonsense")
    os.utime(run / "results.json", ns=(0, 0))
    (listed,) = read_runs(tmp_path)
    assert (listed.state, dict(listed.curves)) == ("evaluated", {})


def test_only_what_has_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for method in ("ce", "oe"):
        write_run(tmp_path / "runs", method)
    first, read = read_runs(tmp_path), digests.read_run
    seen: list[str] = []

    def counted(folder: Path) -> ListedRun:
        seen.append(folder.name)
        return read(folder)

    monkeypatch.setattr(digests, "read_run", counted)
    assert read_runs(tmp_path) == first and seen == []
    os.utime(tmp_path / "runs" / NAMES["oe"] / "results.json", ns=(0, 0))
    kept = tmp_path / "cache/page" / f"{NAMES['ce']}.json"
    kept.write_text("{")
    assert read_runs(tmp_path) == first and seen == [NAMES["ce"], NAMES["oe"]]
    (tmp_path / "runs" / NAMES["ce"]).rename(tmp_path / "elsewhere")
    assert len(read_runs(tmp_path)) == 1 and not kept.exists()


def test_the_page_stays_small_and_says_what_it_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for method in NAMES:
        write_run(tmp_path / "runs", method)
    size = max(len(json.dumps(run.curves)) for run in read_runs(tmp_path))
    monkeypatch.setattr(overview, "CURVE_BYTES", size + 10)
    page = write_overview(tmp_path).read_text("utf-8")
    (kept,) = data_of(page)["curves"]
    words = Reader(page).words
    assert "without them are 2 older runs" in words
    assert all((name in words.split("older runs: ")[1].split(".")[0]) != (name == kept) for name in NAMES.values())


def _store(folder: Path, sha256: str) -> Path:
    """A stored set of N images, each of one grey, under that hash."""
    images = np.arange(N, dtype=np.uint16)[:, None, None, None] * 255 // (N - 1) * np.ones((1, 3, 8, 8), np.uint16)
    place = folder / "svhn/test-0"
    place.mkdir(parents=True)
    write_stored(place, Decoded(images.astype(np.uint8)))
    meta = json.loads((place / "meta.json").read_text())
    (place / "meta.json").write_text(json.dumps({**meta, "sha256": sha256}))
    return folder


def test_small_pictures_come_from_the_store_where_it_has_the_very_set(tmp_path: Path, outputs: Path) -> None:
    known = next(run.curves for run in read_runs(outputs) if run.curves)["svhn"]
    sheet = contact_sheet(known, _store(tmp_path / "own", "hash of svhn"))
    assert sheet is not None and len(sheet["places"]) == 100 and base64.b64decode(sheet["jpeg"])[:2] == b"\xff\xd8"
    assert contact_sheet(known, _store(tmp_path / "other", "another hash")) is None
    assert contact_sheet({**known, "n": N - 1}, tmp_path / "own") is None
    assert contact_sheet({**known, "stored": {"name": "../svhn", "sha256": "hash of svhn"}}, tmp_path / "own") is None
    assert contact_sheet(known, tmp_path / "nowhere") is None


def test_a_folder_without_runs_is_one_line_and_an_empty_one_a_page(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="name a folder that holds runs/"):
        write_overview(tmp_path)
    (tmp_path / "runs").mkdir()
    assert "No run yet" in write_overview(tmp_path).read_text("utf-8")


@pytest.mark.drawn
def test_a_page_that_cannot_be_written_fails_no_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(write_run(tmp_path / "runs", "ce"), {})
    evaluation_files.renew_overview(run, Paths(outputs=str(tmp_path)))
    assert (tmp_path / "index.html").is_file() and capsys.readouterr().out == ""
    evaluation_files.renew_overview(run, Paths(outputs=str(tmp_path / "other")))
    assert not (tmp_path / "other").exists(), "a run of elsewhere"

    def broken(*given: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(evaluation_files, "write_overview", broken)
    evaluation_files.renew_overview(run, Paths(outputs=str(tmp_path)))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("index.html stays as it was: RuntimeError: two lines")


@pytest.mark.drawn
def test_a_page_that_a_stopped_command_left_old_is_written_by_the_next(tmp_path: Path) -> None:
    run, paths = Run(write_run(tmp_path / "runs", "ce"), {}), Paths(outputs=str(tmp_path))
    page = tmp_path / "index.html"
    evaluation_files.complete_overview(run, paths)
    assert run.name in page.read_text("utf-8"), "it had none"
    page.write_text("newer than the results")
    evaluation_files.complete_overview(run, paths)
    assert page.read_text() == "newer than the results"
    written = page.stat().st_mtime_ns
    os.utime(run.results, ns=(written + 1, written + 1))
    evaluation_files.complete_overview(run, paths)
    assert run.name in page.read_text("utf-8")
    page.unlink()
    run.results.unlink()
    evaluation_files.complete_overview(run, paths)
    assert not page.exists(), "nothing to show"


def test_the_own_score_is_that_of_the_methods_paper() -> None:
    assert own_score("energy", "cifar10", ["msp", "energy"]) == "energy"
    assert own_score("imported", "cifar10", ["knn", "msp"]) == "msp"
    assert own_score("cider", "cifar100", ["knn_k100", "knn_k300"]) == "knn_k300"
    assert own_score("mine", "cifar10", ["gap"]) == "gap" and own_score("mine", "cifar10", []) is None


def test_a_report_names_its_parent_and_leads_to_it_and_to_all_runs(tmp_path: Path) -> None:
    for method in ("ce", "energy"):
        write_run(tmp_path / "runs", method)
    run = tmp_path / "runs" / NAMES["energy"]
    read = Reader(rebuild_report(run).read_text("utf-8"))
    files = [link for link in read.links if not link.startswith(("#", "data:"))]
    assert files == ["../../index.html", f"../{NAMES['ce']}/report.html"]
    mean = next(mean for mean in entry(values_of("energy"), ENERGY)["means"] if mean["score"] == "energy")
    headline = read.words.split("What ran")[0]
    for metric in ("fpr95", "auroc"):
        assert f"{metric.upper()}, energy, mean of 2 OOD sets{100 * mean[metric]:.2f} %" in headline
    targets = {link[1:] for link in read.links if link.startswith("#")}
    assert {"ran", "results", "missing", "controls", "scores", "sets", "mistakes"} <= targets <= set(read.ids)
    elsewhere = Reader(rebuild_report(run, tmp_path / "elsewhere").read_text("utf-8"))
    assert all(link.startswith(("#", "data:")) for link in elsewhere.links), "nothing leads nowhere"


def test_a_parent_is_found_by_fingerprint_and_seed_or_by_its_weights(tmp_path: Path) -> None:
    parent, run = (write_run(tmp_path / "runs", method) for method in ("ce", "energy"))
    assert parent_of(run, {"parent": "aaaa1111", "seed": 1}) == parent.name
    assert parent_of(run, {"parent": "aaaa1111", "seed": 2}) is None and parent_of(run, {"parent": None}) is None
    mark = {"parent": "weights-0123456789ab", "seed": 1}
    assert parent_of(run, mark) is None
    known = json.loads((parent / "run.json").read_text())
    known["files"] = {"weights.safetensors": "0123456789ab" + "c" * 52}
    (parent / "run.json").write_text(json.dumps(known))
    (tmp_path / "runs/a-damaged-one").mkdir()
    assert parent_of(run, mark) == parent.name
