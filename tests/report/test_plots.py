"""Plots: valid PNG files of a sane size that show every set, without pyplot's global state."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from farout.report.plots import save_plots

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


def test_pyplot_is_not_loaded() -> None:
    code = "import sys, farout.report.plots, farout.report.html; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
