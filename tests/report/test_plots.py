"""Plots: valid PNG files of a sane size that show every set, without pyplot's global state."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike
from PIL import Image

from farout.report.plots import roc_curves, save_plots, score_histogram

RNG = np.random.default_rng(0)
ID = RNG.normal(3, 1, 500)
OOD = {f"set {i}": RNG.normal(i / 3, 1, 200) for i in range(9)}


def test_plots_are_png_files_of_sane_size(tmp_path: Path) -> None:
    constant = {"SVHN": np.ones(20, dtype=np.float32)}
    scores: dict[str, tuple[ArrayLike, Mapping[str, ArrayLike]]] = {
        "energy": (ID, OOD),
        "msp": (np.ones(30, dtype=np.float32), constant),
    }
    written = save_plots(tmp_path / "plots", scores, "a run")
    assert sorted(p.name for p in written) == sorted(p.name for p in (tmp_path / "plots").iterdir())
    assert {p.name for p in written} == {
        "histogram_energy.png", "roc_energy.png", "histogram_msp.png", "roc_msp.png",
    }  # fmt: skip
    for path in written:
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG"
            assert 300 < image.width < 2500
            assert 300 < image.height < 2500
        assert 5_000 < path.stat().st_size < 500_000


def test_every_set_has_its_panel_and_axes_are_named() -> None:
    figure = score_histogram(ID, OOD, "title", "energy")
    assert {axis.get_title() for axis in figure.axes if axis.get_visible()} == set(OOD)
    assert "larger = more in-distribution" in figure.get_supxlabel()
    threshold = np.asarray(figure.axes[0].lines[0].get_xdata())[0]
    assert np.mean(threshold <= ID) == pytest.approx(0.95, abs=0.002)


def test_roc_has_id_as_positive() -> None:
    figure = roc_curves([3.0, 4.0], {"apart": [1.0, 2.0], "turned": [5.0, 6.0], "tied": [3.0, 4.0]}, "title")
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]  # type: ignore[union-attr]
    assert labels == [
        "apart (AUROC 100.0 %)",
        "turned (AUROC 0.0 %)",
        "tied (AUROC 50.0 %)",
        "95 % of ID accepted",
    ]
    assert figure.axes[0].get_xlabel() == "OOD accepted (%)"


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        score_histogram([1.0, float("nan")], {}, "title")


def test_pyplot_is_not_loaded() -> None:
    code = "import sys, farout.report.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
