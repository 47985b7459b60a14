"""Accuracy over epsilon and distal adversarials as they are drawn."""

import numpy as np

from farout.report.figures.robustness import DistalRow, RobustnessCurve, distal_figure, robustness_figure
from farout.report.figures.style import svg_text


def test_a_panel_a_norm_with_every_curve() -> None:
    names = ["baseline (CE)", "JEM-0", "JEM-1", "JEM-10", "more"]
    panels = {
        "linf": [RobustnessCurve(name, [0, 1, 8], [0.9, 0.5, 0.25 * i]) for i, name in enumerate(names)],
        "l2": [RobustnessCurve("JEM-1", [0, 0.5], [0.9, 0.25])],
    }
    figure = robustness_figure(panels, "the first 300 test images of CIFAR-10; PGD", "a run")
    upper, lower = figure.axes
    assert [line.get_ydata()[-1] for line in upper.lines] == [0, 25, 50, 75, 100]
    assert len({(line.get_color(), line.get_marker()) for line in upper.lines}) == 5
    assert lower.lines[0].get_color() == upper.lines[2].get_color()  # a classifier keeps its colour
    text = svg_text(figure)
    for word in (*names, "the first 300 test images of CIFAR-10; PGD", "255ths", "L2: epsilon", "a run"):
        assert word in text


def test_a_row_of_images_a_network_with_its_confidence() -> None:
    start = np.zeros((4, 3, 8, 8), dtype=np.float32)
    start[:, 0] = np.array([0.2, 0.4, 0.6, 0.8])[:, None, None]
    rows = [
        DistalRow(name, start + 0.1 * i, np.linspace(0, [0.5, 0.6, 0.7, 0.8], 6, dtype=np.float32))
        for i, name in enumerate(("baseline (CE)", "JEM"))
    ]
    figure = distal_figure(start, rows, ["plane", "car", "bird", "cat"], 0.25, "a run")
    pictures, curves = figure.axes
    assert len(pictures.images) == 3
    mosaic = np.asarray(pictures.images[2].get_array())
    assert mosaic.shape == (10, 40, 3)
    np.testing.assert_allclose(mosaic[5, [5, 15, 25, 35], 0], [0.3, 0.5, 0.7, 0.9], rtol=1e-6)
    np.testing.assert_allclose(curves.lines[1].get_ydata()[-1], 0.65, rtol=1e-6)
    text = svg_text(figure)
    for word in ("the noise", "JEM", "plane", "0.700", "steps of L2 length 0.25"):
        assert word in text
