"""The figures: their numbers against scikit-learn and the metrics, their words, and their SVG."""

import re
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from sklearn.metrics import auc as sklearn_area
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import precision_recall_curve as sklearn_precision_recall
from sklearn.metrics import roc_curve as sklearn_roc

from farout.errors import FaroutError
from farout.metrics import detection_metrics, expected_calibration_error
from farout.report.figures.curves import (
    POINTS,
    precision_recall_curve,
    precision_recall_figure,
    roc_curve,
    roc_figure,
    thinned,
)
from farout.report.figures.heat_map import heat_map
from farout.report.figures.histograms import Panel, heights, score_histogram, score_row, shared_edges
from farout.report.figures.reliability import reliability_diagram, reliability_panels
from farout.report.figures.style import line_style, png_bytes, short_path, svg_text

RNG = np.random.default_rng(0)
ID = RNG.normal(3, 1, 800)
OOD = RNG.normal(1, 1.5, 500)
TIED_ID, TIED_OOD = np.round(ID), np.round(OOD)
NASTY = 'a<b> & "c" $x^2$ _d'


def _binary(id_scores: Any, ood_scores: Any, positive: str) -> tuple[Any, Any]:
    truth = np.r_[np.ones(len(id_scores)), np.zeros(len(ood_scores))]
    pooled = np.r_[id_scores, ood_scores]
    return (truth, pooled) if positive == "id" else (1 - truth, -pooled)


def _words(figure: Figure) -> list[str]:
    root = ET.fromstring(svg_text(figure))
    return ["".join(part.itertext()) for part in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("positive", ["id", "ood"])
@pytest.mark.parametrize("pair", [(ID, OOD), (TIED_ID, TIED_OOD)], ids=["smooth", "tied"])
def test_curves_are_those_of_scikit_learn(pair: tuple[Any, Any], positive: str) -> None:
    truth, pooled = _binary(*pair, positive)
    found = roc_curve(*pair, positive)
    fpr, tpr, _ = sklearn_roc(truth, pooled, drop_intermediate=False)
    np.testing.assert_allclose(found.x, fpr, atol=1e-12)
    np.testing.assert_allclose(found.y, tpr, atol=1e-12)
    assert found.area == pytest.approx(roc_auc_score(truth, pooled), abs=1e-12)
    found = precision_recall_curve(*pair, positive)
    precision, recall, _ = sklearn_precision_recall(truth, pooled)
    np.testing.assert_allclose(found.x[1:], recall[:-1][::-1], atol=1e-12)
    np.testing.assert_allclose(found.y[1:], precision[:-1][::-1], atol=1e-12)
    assert found.area == pytest.approx(average_precision_score(truth, pooled), abs=1e-12)
    assert found.area == pytest.approx(detection_metrics(*pair, positive)["aupr"], abs=1e-12)


@pytest.mark.parametrize("positive", ["id", "ood"])
def test_a_base_rate_is_the_same_as_copies_of_the_other_class(positive: str) -> None:
    more = (ID, np.repeat(OOD, 8)) if positive == "id" else (np.repeat(ID, 8), OOD)
    sizes = len(more[0]), len(more[1])
    rate = (sizes[0] if positive == "id" else sizes[1]) / sum(sizes)
    found, wanted = precision_recall_curve(ID, OOD, positive, rate), precision_recall_curve(*more, positive)
    np.testing.assert_allclose(found.y, wanted.y, atol=1e-12)
    assert found.area == pytest.approx(wanted.area, abs=1e-12)
    assert found.area != pytest.approx(precision_recall_curve(ID, OOD, positive).area, abs=0.01)


def test_precision_below_the_scale_stays_in_the_frame() -> None:
    worst_first = precision_recall_figure([1.0, 2.0, 3.0, 4.0] * 20, {"a": [5.0, *np.full(9, 0.0)]}, "title")
    assert worst_first.axes[0].get_ylim()[0] > 0
    assert min(np.min(line.get_ydata()) for line in worst_first.axes[0].lines) < worst_first.axes[0].get_ylim()[0]
    assert all(line.get_clip_on() for line in worst_first.axes[0].lines)


def test_thinning_keeps_the_ends_and_the_shape() -> None:
    curve = roc_curve(RNG.normal(2, 1, 20_000), RNG.normal(0, 1, 20_000))
    x, y = thinned(curve.x, curve.y)
    assert len(x) <= POINTS <= 500
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(x) >= 0)
    assert sklearn_area(x, y) == pytest.approx(curve.area, abs=2e-5)
    short = thinned(curve.x[:50], curve.y[:50])
    np.testing.assert_array_equal(short[0], curve.x[:50])


def test_the_positive_class_names_the_axes_and_orders_the_curve() -> None:
    sets = {"apart": [1.0, 2.0], "turned": [5.0, 6.0], "tied": [3.0, 4.0]}
    for positive, axis in (("id", "OOD accepted (%)"), ("ood", "ID flagged (%)")):
        words = _words(roc_figure([3.0, 4.0], sets, "title", positive))
        assert axis in words
        assert {"apart  100.0", "turned  0.0", "tied  50.0"} <= set(words)
    assert roc_curve([3.0, 4.0], [1.0], "id").x.tolist() == [0, 0, 0, 1]
    assert roc_curve([3.0, 4.0], [1.0], "ood").x.tolist() == [0, 0, 0.5, 1]
    assert "recall: OOD flagged (%)" in _words(precision_recall_figure(ID, sets, "title", "ood"))


def test_lines_differ_by_more_than_colour() -> None:
    styles = [line_style(i) for i in range(14)]
    assert len(set(styles)) == 14
    assert len({dashes for _, dashes in styles[:8]}) == 2


@pytest.mark.parametrize("positive", ["id", "ood"])
def test_every_set_has_its_panel_on_common_axes(positive: str) -> None:
    sets = {f"set {i}": RNG.normal(i / 3, 1, 200) for i in range(9)}
    figure = score_histogram(ID, sets, "title", "energy", positive, {"set 0": "FPR95 1.0"})
    panels = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title(loc="left") for axis in panels] == list(sets)
    assert {axis.get_xlim() for axis in panels} == {panels[0].get_xlim()}
    assert {axis.get_ylim() for axis in panels} == {panels[0].get_ylim()}
    assert "larger = more in-distribution" in figure.get_supxlabel()
    assert panels[0].get_title(loc="right") == "FPR95 1.0"
    threshold = np.asarray(panels[3].lines[0].get_xdata())[0]
    if positive == "id":
        assert np.mean(threshold <= ID) == pytest.approx(0.95, abs=0.002)
    else:
        assert np.mean(sets["set 3"] <= threshold) == pytest.approx(0.95, abs=0.006)


def test_histograms_are_densities_on_shared_bins() -> None:
    figure = score_histogram(ID, {"far": OOD}, "title")
    steps = [patch for patch in figure.axes[0].patches if isinstance(patch, StepPatch)]
    assert len(steps) == 2
    first, second = (step.get_data() for step in steps)
    np.testing.assert_array_equal(first.edges, second.edges)
    assert np.sum(first.values * np.diff(first.edges)) == pytest.approx(1)
    assert np.sum(second.values * np.diff(second.edges)) == pytest.approx(1)


@pytest.mark.parametrize(
    "others",
    [[np.ones(5)], [np.full(9, -1e12)], [np.full(9, 1e12), np.zeros(3)], [np.full(4, 1 + 1e-15)]],
    ids=["constant", "far below", "both", "a rounding apart"],
)
@pytest.mark.parametrize("values", [np.ones(40), ID], ids=["one value", "a bell"])
def test_odd_scores_still_have_bins(values: np.ndarray, others: list[np.ndarray]) -> None:
    edges, _ = shared_edges(values, others)
    assert np.all(np.diff(edges) > 0)
    for part in (values, *others):
        assert np.sum(heights(part, edges) * np.diff(edges)) == pytest.approx(1)
    png_bytes(score_histogram(values, {"other": others[0]}, "title"), dpi=40)


def test_far_noise_does_not_flatten_id() -> None:
    edges, beyond = shared_edges(ID, [np.full(50, -1e6)])
    assert beyond
    assert np.count_nonzero(heights(ID, edges)) > 12


def test_a_spike_gets_a_logarithmic_axis() -> None:
    spike = np.r_[np.full(900, 1.0), np.linspace(0.2, 1, 100)]
    figure = score_histogram(spike, {"a": np.linspace(0.2, 1, 300)}, "title")
    assert figure.axes[0].get_yscale() == "log"
    assert score_histogram(ID, {"a": OOD}, "title").axes[0].get_yscale() == "linear"


def test_the_row_shares_its_vertical_axis() -> None:
    figure = score_row([Panel(f"score {i}", ID * 10**i, OOD * 10**i, f"AUROC {i}.0") for i in range(6)], "title")
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title(loc="left") for axis in shown] == [f"score {i}" for i in range(6)]
    assert {axis.get_ylim() for axis in shown} == {(0, 1.08)}
    for axis in shown:
        tallest = max(np.max(p.get_data().values) for p in axis.patches if isinstance(p, StepPatch))
        assert tallest == pytest.approx(1)
    assert "AUROC 5.0" in _words(figure)


def test_scores_that_are_not_finite_are_refused_by_name() -> None:
    with pytest.raises(FaroutError, match="energy: the ID scores"):
        score_histogram([1.0, float("nan")], {"a": [1.0]}, "title", "energy")
    with pytest.raises(FaroutError, match="energy: the scores of SVHN"):
        score_histogram([1.0], {"SVHN": [float("inf")]}, "title", "energy")


def test_the_diagram_shows_counts_gaps_and_the_error() -> None:
    confidence = RNG.beta(8, 2, 3000)
    correct = RNG.random(3000) < confidence**2
    figure = reliability_diagram(confidence, correct, 10)
    title = f"Reliability on ID: ECE {100 * expected_calibration_error(confidence, correct, 10):.2f} % (10 bins)"
    assert title in _words(figure)
    counts = np.histogram(confidence, np.linspace(0, 1, 11))[0]
    assert {f"{count:,}" for count in counts if count} <= set(_words(figure))
    accuracy, gaps = figure.axes[0].containers
    tops = [bar.get_y() + bar.get_height() for bar in gaps]
    last = (confidence > 0.9) & (confidence <= 1)
    assert accuracy[-1].get_height() == pytest.approx(100 * correct[last].mean())
    assert tops[-1] == pytest.approx(100 * confidence[last].mean())


def test_the_diagrams_of_several_networks_stand_beside_each_other() -> None:
    networks = {}
    for name, power in (("CE", 3.0), ("JEM", 1.0), ("a third", 2.0)):
        confidence = RNG.beta(8, 2, 2000)
        networks[name] = (confidence, RNG.random(2000) < confidence**power)
    figure = reliability_panels(networks, 20)
    titles = [axis.get_title(loc="left") for axis in figure.axes if axis.get_visible()]
    errors = [100 * expected_calibration_error(*pair, 20) for pair in networks.values()]
    assert titles == [f"{name}\nECE {error:.2f} %" for name, error in zip(networks, errors, strict=True)]
    assert errors[1] < 3 < errors[0]  # where right is as frequent as sure, the second is calibrated
    left, right = (axis.get_position() for axis in figure.axes[:2])
    assert left.y0 == right.y0 and left.x1 < right.x0


def test_the_heat_map_holds_every_number_and_marks_gaps() -> None:
    values = {("msp", "SVHN"): 0.1234, ("energy", "SVHN"): 1.0, ("energy", "iSUN"): 0.0}
    words = _words(heat_map(values, ["msp", "energy"], ["SVHN", "iSUN"]))
    assert {"12.3", "100.0", "0.0", "–", "msp", "energy", "SVHN", "iSUN"} <= set(words)


@pytest.mark.parametrize(
    "figure",
    [
        score_histogram(ID, {NASTY: OOD}, NASTY, NASTY, heading="0.123456789"),
        roc_figure(ID, {NASTY: OOD}, NASTY, heading="0.123456789"),
        precision_recall_figure(ID, {NASTY: OOD}, NASTY, heading="0.123456789"),
        heat_map({(NASTY, NASTY): 0.5}, [NASTY], [NASTY], NASTY, heading="0.123456789"),
        score_row([Panel(NASTY, ID, OOD)], NASTY, heading="0.123456789"),
    ],
    ids=["histogram", "roc", "pr", "heat map", "row"],
)
def test_names_are_taken_as_they_are(figure: Figure) -> None:
    words = _words(figure)
    assert NASTY in words, "neither markup, nor mathematics, nor hidden"
    assert "0.123456789" in words, "numbers are rounded in paths, never in names"
    assert png_bytes(figure, dpi=50).startswith(b"\x89PNG")


def test_a_leading_underscore_hides_nothing() -> None:
    assert any("_hidden" in word for word in _words(roc_figure(ID, {"_hidden": OOD}, "title")))


def test_equal_figures_are_equal_files() -> None:
    one, two = (svg_text(roc_figure(ID, {"a": OOD}, "title")) for _ in range(2))
    assert one == two
    assert len(one) < 40_000


def _points(path: str) -> list[tuple[float, float]]:
    """The corners of an SVG path of straight lines."""
    corners: list[tuple[float, float]] = []
    for command, numbers in re.findall(r"([MLHVz])([-\d. ]*)", path):
        values = [float(word) for word in numbers.split()]
        x, y = corners[-1] if corners else (0.0, 0.0)
        if command != "z":
            corners.append({"H": (values[0], y), "V": (x, values[0])}.get(command) or (values[0], values[1]))
    return corners


def test_short_paths_have_the_same_corners() -> None:
    steps = np.repeat(RNG.uniform(0, 300, (60, 2)), 2, axis=0).ravel()[1:-1].reshape(-1, 2)
    for corners in (steps, RNG.uniform(0, 300, (60, 2))):
        long = " \n".join(f"{'L' if i else 'M'} {x:.6f} {y:.6f}" for i, (x, y) in enumerate(corners)) + " z"
        short = short_path(long)
        assert len(short) < 0.6 * len(long)
        assert short.endswith("z")
        np.testing.assert_allclose(_points(short), corners, atol=0.051)
    assert short_path("M 0 0 C 1 1 2 2 3 3") == "M 0 0 C 1 1 2 2 3 3", "curves stay"
