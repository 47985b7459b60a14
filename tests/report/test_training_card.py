"""How training went: what metrics.jsonl means after resumes and divergences, its figures, and the card."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_reader import Reader
from synthetic_evidence import ENERGY, entry, evidence, head, scores

from farout.report.figures.style import svg_text
from farout.report.figures.training_curves import POINTS, CurvePanel, stretches, training_curves_figure
from farout.report.page.html import write_report
from farout.report.page.markup import Inliner
from farout.report.page.training import read_training_curves, save_training, training_card

RESTART = {"diverged_at": 430, "resumed_from": 250, "reason": "the loss <nan> is not finite at step 430"}


def line(step: int, **values: float) -> str:
    named = {f"train/{name}": value for name, value in values.items()}
    return json.dumps({"step": step, **named, "lr": 0.1, "images_per_s": 10.0})


def run(folder: Path, *lines: str) -> Path:
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_a_run_that_logged_nothing_has_no_card(tmp_path: Path) -> None:
    assert training_card(None, {}, Inliner()) == training_card(tmp_path, {}, Inliner()) == ""
    assert training_card(run(tmp_path), {}, Inliner()) == ""
    assert training_card(run(tmp_path, '{"step": 1, "lr": 0.1}'), {}, Inliner()) == ""
    assert save_training(tmp_path, {}) == [] and not (tmp_path / "plots").exists()


def test_the_last_line_of_a_step_counts_and_a_resume_takes_back_what_lay_ahead(tmp_path: Path) -> None:
    lines = [line(step, total=step) for step in (100, 200, 300, 400)]
    again = [line(step, total=-step) for step in (250, 350)]  # resumed from 240, logging elsewhere
    curves = read_training_curves(run(tmp_path, *lines, *again, line(350, total=9.0)))
    assert curves is not None
    assert curves.steps.tolist() == [100, 200, 250, 350]
    assert curves.values["total"].tolist() == [100, 200, -250, 9]


def test_a_divergence_takes_back_the_steps_after_its_checkpoint(tmp_path: Path) -> None:
    lines = [line(step, total=1.0) for step in (100, 200, 300, 400)]
    event = json.dumps({"step": 430, "event": "training diverged", "text": "...", "resumed_from": 300})
    curves = read_training_curves(run(tmp_path, *lines, event))
    assert curves is not None and curves.steps.tolist() == [100, 200, 300]


def test_the_figure_by_which_an_epoch_is_chosen_is_no_point_of_the_curves(tmp_path: Path) -> None:
    chosen = [json.dumps({"step": step, "selection": 0.5}) for step in (100, 150)]
    curves = read_training_curves(run(tmp_path, chosen[0], line(100, total=1.0), chosen[1], line(200, total=2.0)))
    assert curves is not None
    assert (curves.steps.tolist(), curves.values["total"].tolist()) == ([100, 200], [1, 2])


def test_torn_lines_absent_values_and_infinity(tmp_path: Path) -> None:
    torn = ['{"step": 20', "[1]", '{"step": "x"}', '{"total": 1}']
    lines = [line(10, total=1.0), *torn, line(20, total=math.nan, p_x=2.0), line(30, total=math.inf, p_x=3.0)]
    curves = read_training_curves(run(tmp_path, *lines))
    assert curves is not None and curves.unreadable == 4
    np.testing.assert_array_equal(curves.values["total"], [1, math.nan, math.inf])
    np.testing.assert_array_equal(curves.values["p_x"], [math.nan, 2, 3])
    words = Reader(training_card(tmp_path, {}, Inliner())).words
    assert "3 values are absent or not finite: gaps in the lines. 4 lines of metrics.jsonl cannot be read." in words


def test_nothing_but_torn_lines_is_said(tmp_path: Path) -> None:
    read = Reader(training_card(run(tmp_path, "\x00\x00"), {}, Inliner()))
    assert "1 line of metrics.jsonl cannot be read." in read.words and read.tags["svg"] == 0


def jem(folder: Path, count: int = 30) -> Path:
    """Energies of data, samples and noise that stand 1 and 40 apart; the loss spikes once."""
    lines = []
    for step in range(10, 10 * count + 1, 10):
        data, spike = -step / 100, 1e6 if step == 50 else 0.0
        energies = {"energy_data": data, "energy_samples": data + 1, "energy_noise": data + 40}
        lines.append(line(step, total=2 + spike, p_x=-1.0, p_y_given_x=3 - step / 200, **energies))
    return run(folder, *lines)


def test_losses_energies_and_restarts_in_the_card(tmp_path: Path) -> None:
    read = Reader(training_card(jem(tmp_path), {"trained": {"restarts": [RESTART]}}, Inliner()))
    assert read.tags["svg"] == 2 and not [link for link in read.links if not link.startswith("#")]
    for words in (
        "total", "p(y|x)", "energy above data", "diverged, went back",
        "the energy of samples and noise less that of data, on a logarithmic scale",
        "1 point lies outside the frames, which follow the bulk of the values; the largest: total 1e+06 at step 50.",
        "Training diverged once", "from step 430 to step 250: the loss <nan> is not finite",
    ):  # fmt: skip
        assert words in read.words, words
    (table,) = read.tables.values()
    names = ["total", "p(x)", "p(y|x)", *(f"energy of {name}" for name in ("data", "samples", "noise"))]
    assert table[0] == ["step", *names]
    assert table[1] == ["10", "2", "-1", "2.95", "-0.1", "0.9", "39.9"] and table[-1][0] == "300"


def test_a_method_without_energies_has_one_figure_and_energies_of_fine_tuning_are_compared_with_id(
    tmp_path: Path,
) -> None:
    plain = run(tmp_path, line(10, total=1.0), line(20, total=0.5))
    read = Reader(training_card(plain, {"trained": {}}, Inliner()))
    assert read.tags["svg"] == 1 and "Training diverged" not in read.words and "p(x)" not in read.words
    figures = {"total": 1.0, "cross_entropy": 0.5, "energy_margin": 5.0, "energy_id": -9.0, "energy_outliers": -3}
    tuned = run(tmp_path, line(10, **figures), line(20, **figures))
    read = Reader(training_card(tuned, {}, Inliner()))
    assert "energy above ID" in read.words and "the energy of outliers less that of ID." in read.words
    assert next(iter(read.tables.values()))[0] == [
        "step", "total", "cross_entropy", "energy_margin", "energy of ID", "energy of outliers",
    ]  # fmt: skip


def test_one_point_is_a_line_of_figures_and_no_curve(tmp_path: Path) -> None:
    short = run(tmp_path, line(10, total=1.25))
    read = Reader(training_card(short, {}, Inliner()))
    assert read.tags["svg"] == 0 and next(iter(read.tables.values())) == [["step", "total"], ["10", "1.25"]]
    assert save_training(short, {}) == []


def test_figures_are_kept_as_png_and_svg(tmp_path: Path) -> None:
    paths = save_training(jem(tmp_path), {"trained": {"restarts": [RESTART]}}, "a run")
    assert [path.name for path in paths] == ["training_losses.png", "training_energies.png"]
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert "a run" in path.with_suffix(".svg").read_text()


def test_lines_frames_and_marks() -> None:
    steps = np.arange(10.0, 310.0, 10.0)
    noisy = np.where(steps == 50, 1e9, np.sin(steps))
    far = np.where(steps == 60, np.nan, 100 + steps)
    panels = [CurvePanel("loss", {"total": noisy, "a": far / 100}), CurvePanel("gap", {"a": far}, logarithmic=True)]
    figure = training_curves_figure("Title", steps, panels, [120, 430, 120], "a run")
    upper, lower = figure.axes
    low, high = upper.get_ylim()
    assert -1.5 < low < -1 and 4.1 < high < 4.5, "the spike does not choose the frame"
    drawn = np.asarray(upper.lines[0].get_ydata())
    np.testing.assert_allclose(np.delete(drawn, 4), np.delete(noisy, 4))
    assert high < drawn[4] < high + 1, "but it leaves it"
    assert np.isnan(np.asarray(lower.lines[0].get_ydata())).tolist() == (steps == 60).tolist()
    assert upper.lines[1].get_color() == lower.lines[0].get_color() != upper.lines[0].get_color()
    assert lower.get_yscale() == "symlog" and lower.get_xlim() == (0, 430)
    marks = [x[0] for x in (np.asarray(each.get_xdata()) for each in upper.lines) if len(x) == 2 and x[0] == x[1]]
    assert marks == [120, 430]
    assert [np.flatnonzero(flags).tolist() for flags in panels[0].outside().values()] == [[4], []]


def test_a_logarithmic_frame_always_has_ticks() -> None:
    panel = CurvePanel("gap", {"a": np.array([20.0, 30]), "b": np.array([60.0, 80])}, logarithmic=True)
    (axis,) = training_curves_figure("T", np.arange(2.0), [panel]).axes
    low, high = axis.get_ylim()
    assert low < 0 and 80 < high < 200
    assert {0, 1, 10} <= {tick for tick in axis.get_yticks() if low <= tick <= high}


@pytest.mark.parametrize("value", [0.0, -3.5, 1e30, math.nan])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_frame_of_equal_or_no_values_is_a_frame(value: float, logarithmic: bool) -> None:
    panel = CurvePanel("x", {"a": np.full(3, value)}, logarithmic)
    low, high = panel.frame()
    assert math.isfinite(low) and low < high and not (value < low or value > high)
    assert not any(flags.any() for flags in panel.outside().values())
    svg_text(training_curves_figure("T", np.arange(3.0), [panel]))


def test_long_runs_are_drawn_stretch_by_stretch() -> None:
    steps, rng = np.arange(1.0, 10_001.0), np.random.default_rng(0)
    values = rng.normal(size=10_000)
    values[1234], values[5000:5100], values[7000] = -77, math.inf, math.nan
    x, middle, lowest, highest = stretches(steps, values)
    assert len(x) == POINTS and (np.diff(x) > 0).all()
    parts = values.reshape(POINTS, 50)
    gap = np.isnan(middle)
    assert np.flatnonzero(gap).tolist() == [100, 101]
    np.testing.assert_array_equal(lowest[~gap], np.nanmin(parts, axis=1)[~gap])
    np.testing.assert_array_equal(highest[~gap], np.nanmax(parts, axis=1)[~gap])
    np.testing.assert_array_equal(middle[~gap], np.nanmedian(parts, axis=1)[~gap])
    assert lowest[24] == -77
    panels = [CurvePanel("loss", {"a": values, "b": values + 1, "c": 2 * values})]
    assert len(svg_text(training_curves_figure("T", steps, panels))) < 60_000


def test_the_page_has_the_card(tmp_path: Path) -> None:
    small = scores(30, ("msp",), ("SVHN",))
    record: dict[str, Any] = {**head(), "trained": {**head()["trained"], "restarts": [RESTART]}}
    written = write_report(tmp_path / "report.html", record, [entry(small, ENERGY)], evidence(small), run=jem(tmp_path))
    read = Reader(written.read_text("utf-8"))
    assert read.ids["training"] == 1 and [name for name, n in read.ids.items() if n > 1] == []
    assert all(link.startswith(("data:", "#")) for link in read.links)
    assert "Energies in training" in read.words and "from step 430 to step 250" in read.words
