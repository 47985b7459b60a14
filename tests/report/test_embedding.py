"""Geometry in the report: the card's figures, the picture's points and angles, and the page again from a folder."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.patches import PathPatch, StepPatch
from page_reader import Reader
from PIL import Image
from scipy.ndimage import label
from sklearn.decomposition import PCA
from synthetic_evidence import CLASSES, ENERGY, entry, evidence, features, head, key, measured, scores

from farout.errors import ConfigError
from farout.report.evidence import Evidence, Sphere
from farout.report.figures.drawings import save_figures
from farout.report.figures.embedding import CLASS_COLOURS, angle_edges, angle_figure, dots, embedding_figure, shared_box
from farout.report.figures.style import DPI, canvas, png_bytes, svg_text
from farout.report.page.html import write_report
from farout.report.page.rebuild import read_sphere, rebuild_report
from farout.runs.geometry import Space
from farout.runs.projection import SHOWN, Plane, PlaneProjection
from farout.scores import Outputs

TITLES = ("SVHN", "iSUN", "CIFAR-100")
SMALL = scores(90, ("msp",), TITLES)
SETS = features(TITLES)
SPACE = measured(SETS)
SPHERE = SPACE.sphere("embedding", CLASSES)
FACTS = {"features": SPACE.facts() | {"directions": "class means of 90 training images"}, "embedding": SPACE.facts()}
NAMES = {key(title): title for title in TITLES}


def units(points: torch.Tensor) -> np.ndarray:
    rows = points.double().numpy()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_plane_is_the_first_two_components_of_scikit_learn() -> None:
    own, directions = units(SETS["id"].features), units(SPACE.directions)
    oracle = PCA(2, svd_solver="full").fit(np.concatenate([own, directions]))
    np.testing.assert_allclose(SPHERE.share, oracle.explained_variance_ratio_, rtol=1e-6)
    signs = np.sign((oracle.transform(own) * SPHERE.points["id"]).sum(0))
    np.testing.assert_allclose(SPHERE.points["id"], oracle.transform(own) * signs, atol=1e-6)
    np.testing.assert_allclose(SPHERE.directions, oracle.transform(directions) * signs, atol=1e-6)
    isun = oracle.transform(units(SETS["isun"].features)) * signs
    np.testing.assert_allclose(SPHERE.points["isun"], isun, atol=1e-6)
    again = Plane.fit(torch.from_numpy(np.concatenate([own, directions])[::-1].copy()))
    np.testing.assert_allclose(again.project(torch.from_numpy(own)), SPHERE.points["id"], atol=1e-6)


def test_angles_are_those_to_the_nearest_direction() -> None:
    directions = units(SPACE.directions)
    for name, outputs in SETS.items():
        there = outputs.features.abs().sum(1) > 0
        wanted = np.degrees(np.arccos(units(outputs.features[there]) @ directions.T)).min(axis=1)
        np.testing.assert_allclose(SPHERE.angles[name], wanted, atol=1e-4)
        mean = np.degrees(np.arccos(np.cos(np.radians(SPHERE.angles[name].astype(float))).mean()))
        assert mean == pytest.approx(SPACE.nearest[name], abs=1e-4), "the record's angle is that of these cosines' mean"
    assert len(SPHERE.angles["svhn"]) == 89, "a zero vector has no angle"


def test_a_sample_is_drawn_and_every_angle_kept() -> None:
    plane_projection = PlaneProjection(torch.eye(4))
    points = torch.randn(3 * SHOWN, 4, generator=torch.Generator().manual_seed(0))
    plane_projection.add("id", points, torch.arange(3 * SHOWN) % 4)
    plane_projection.add("ood", points, None)
    sphere = plane_projection
    assert sphere.points["id"].shape == (SHOWN, 2)
    assert sphere.labels is not None and sphere.plane is not None
    assert set(sphere.labels) == {0, 1, 2, 3}
    assert len(sphere.angles["id"]) == 3 * SHOWN
    np.testing.assert_array_equal(sphere.points["id"], sphere.points["ood"])
    every = sphere.plane.project(torch.nn.functional.normalize(points.double(), dim=1))
    np.testing.assert_array_equal(sphere.points["id"][[0, -1]], every[[0, -1]])


def test_images_of_a_class_without_a_direction_are_marked() -> None:
    directions, classes = torch.eye(3)[:2], torch.tensor([0, 2])
    space = Space(
        lambda points: points, directions, classes, "two of four", plane_projection=PlaneProjection(directions)
    )
    labels = torch.tensor([2, 0, 1, 3, 2])
    space.measure("id", "id", Outputs(torch.zeros(5, 4), torch.eye(3)[[1, 0, 0, 2, 1]], labels))
    sphere = space.sphere("features", ["a", "b", "c", "d"])
    assert sphere is not None
    assert sphere.labels.tolist() == [1, 0, -1, -1, 1]
    assert sphere.class_names == ["a", "c"]
    assert space.id["compactness"] == pytest.approx(0)
    assert len(embedding_figure(sphere, {}, "title").axes[0].patches) == 3


def test_points_that_are_all_one_still_have_a_plane() -> None:
    plane_projection = PlaneProjection(torch.ones(2, 3))
    plane_projection.add("id", torch.ones(5, 3), torch.zeros(5, dtype=torch.long))
    assert plane_projection.plane is not None
    assert np.isfinite(plane_projection.points["id"]).all()
    assert float(plane_projection.plane.share.sum()) <= 1
    first, last, low, high = shared_box([plane_projection.points["id"]])
    assert first < last and low < high


def _corners(patch: PathPatch) -> np.ndarray:
    return np.asarray(patch.get_path().vertices)[::2]


def test_the_figure_draws_these_points_in_these_panels() -> None:
    figure = embedding_figure(SPHERE, NAMES, "title")
    by_class, *panels = figure.axes
    assert [axis.get_title(loc="left") for axis in panels] == list(TITLES)
    dots = [patch for patch in by_class.patches if isinstance(patch, PathPatch)]
    assert len(dots) == 10
    for place, patch in enumerate(dots):
        np.testing.assert_allclose(_corners(patch), SPHERE.points["id"][SPHERE.labels == place])
    marks = np.concatenate([line.get_xydata() for line in by_class.lines])
    np.testing.assert_allclose(marks, SPHERE.directions)
    for axis, name in zip(panels, NAMES, strict=True):
        own, other, *marks = (_corners(patch) for patch in axis.patches)
        np.testing.assert_allclose(own, SPHERE.points["id"])
        np.testing.assert_allclose(other, SPHERE.points[name])
        np.testing.assert_allclose(marks, [SPHERE.directions] * 2)
        assert (axis.get_xlim(), axis.get_ylim()) == (by_class.get_xlim(), by_class.get_ylim())
    for axis in figure.axes:
        box = axis.get_window_extent()
        spans = np.diff(axis.get_xlim())[0], np.diff(axis.get_ylim())[0]
        assert box.width / spans[0] == pytest.approx(box.height / spans[1]), "a unit is as long across as up"
    words = svg_text(figure)
    assert f"{100 * SPHERE.share[0]:.1f} % of variance" in words
    assert all(f">{name}<" in words for name in CLASSES)


def test_every_dot_survives_the_way_to_svg() -> None:
    svg = svg_text(embedding_figure(SPHERE, {}, "title"))
    paths = re.findall(r'<path d="([^"]*)" style="[^"]*stroke-linecap: round', svg)
    assert sum(path.count("M") for path in paths) == len(SPHERE.labels)
    assert sum(len(re.findall(r"[HL]", path)) for path in paths) == len(SPHERE.labels), "none has lost its length"


def test_files_stay_small() -> None:
    """Eight sets of more images than are drawn."""
    sphere = measured(features(n=600)).sphere("embedding", CLASSES)
    figure = embedding_figure(sphere, {name: name for name in sphere.points if name != "id"}, "title")
    assert len(svg_text(figure)) < 300_000
    small = png_bytes(figure, palette=True)
    assert len(small) < 300_000
    whole, drawn = (
        np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int) for data in (png_bytes(figure), small)
    )
    assert np.abs(drawn - whole).mean() < 2
    for colour in CLASS_COLOURS:
        there = (whole == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=-1)
        assert there.sum() > 50
        assert np.abs(drawn - whole)[there].max() < 12, "the palette keeps the colours of a few marks"


@pytest.mark.parametrize(("size", "cap"), [(2.0, "round"), (3.4, "projecting")])
def test_every_dot_is_in_the_png(size: float, cap: str) -> None:
    figure = canvas(3.0, "")
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.set_axis_off()
    grid = np.stack(np.meshgrid(np.linspace(0.05, 0.95, 13), np.linspace(0.05, 0.95, 11)), -1).reshape(-1, 2)
    dots(axis, grid.astype(np.float32), "#000000", 1.0, size, cap)
    dark = np.asarray(Image.open(io.BytesIO(png_bytes(figure))).convert("L")) < 128
    _, blobs = label(dark)
    assert blobs == len(grid)
    widths = np.sqrt(dark.sum() / blobs) * 72 / DPI
    assert widths == pytest.approx(size * (np.sqrt(np.pi) / 2 if cap == "round" else 1), rel=0.12)


def test_more_classes_than_colours_have_no_legend() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(500, 2)).astype(np.float32)
    many = Sphere(
        "features",
        SPHERE.share,
        points[:100],
        [f"class {i}" for i in range(100)],
        np.arange(500) % 100,
        {"id": points, **{f"set {i}": points for i in range(9)}},
        {"id": np.ones(9)},
    )
    figure = embedding_figure(many, {f"set {i}": f"set {i}" for i in range(9)}, "title")
    svg = svg_text(figure)
    assert "class 1<" not in svg
    assert len(svg) < 300_000


def test_the_histograms_count_every_angle() -> None:
    figure = angle_figure(SPHERE, NAMES, "title", {"iSUN": "+3.0°"})
    panels = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title(loc="left") for axis in panels] == list(TITLES)
    assert [axis.get_title(loc="right") for axis in panels] == ["", "+3.0°", ""]
    edges = angle_edges([np.asarray(SPHERE.angles[name], dtype=float) for name in ("id", *NAMES)])
    for axis, name in zip(panels, NAMES, strict=True):
        for patch, own in zip([p for p in axis.patches if isinstance(p, StepPatch)], ("id", name), strict=True):
            counts, _ = np.histogram(SPHERE.angles[own], edges)
            assert counts.sum() == len(SPHERE.angles[own]), "none lies beyond"
            np.testing.assert_allclose(patch.get_data().values, counts / counts.sum() / np.diff(edges))
        assert np.mean(SPHERE.angles["id"] <= axis.lines[0].get_xdata()[0]) == pytest.approx(0.95, abs=0.012)
    assert angle_edges([np.array([80.0, 81.0])])[0] == pytest.approx(80, abs=0.01)
    assert angle_edges([np.array([5.0, 81.0])])[0] == 0


def _page(folder: Path, geometry: Any, sphere: Sphere | None = SPHERE) -> str:
    facts = replace(evidence(SMALL), sphere=sphere)
    return write_report(folder / "report.html", head(), [entry(SMALL, ENERGY, geometry=geometry)], facts).read_text(
        "utf-8"
    )


def test_the_card_holds_the_record(tmp_path: Path) -> None:
    read = Reader(_page(tmp_path, FACTS))
    tables = [rows for rows in read.tables.values() if rows[0][0] in ("measure", "set")]
    measures, angles = ({row[0]: row[1:] for row in rows} for rows in tables)
    assert measures["measure"] == ["penultimate features", "projected embedding"]
    own = FACTS["embedding"]
    assert measures["Dispersion (°)"] == [f"{own['dispersion']:.2f}"] * 2
    assert measures["Compactness (°)"] == [f"{own['compactness']:.2f}"] * 2
    assert measures["Nearest-class accuracy (%)"] == [f"{100 * own['nearest_class_accuracy']:.2f}"] * 2
    assert measures["Separability, mean (°)"] == [f"{own['mean_separability']:.2f}"] * 2
    assert angles["ID: CIFAR-10"] == [f"{own['nearest']['id']:.2f}", "–"] * 2
    for name, title in NAMES.items():
        assert angles[title] == [f"{own['nearest'][name]:.2f}", f"{own['separability'][name]:.2f}"] * 2
    assert angles["mean"] == ["", f"{own['mean_separability']:.2f}"] * 2
    for words in (
        "penultimate features: directions are class means of 90 training images.",
        "SVHN, projected embedding: 1 left out, which are zero or not finite and have no direction.",
        "Smaller is better",
        f"these explain {100 * SPHERE.share[0]:.1f} % and {100 * SPHERE.share[1]:.1f} % of their variance",
        f"{own['separability']['isun']:+.1f}°",
    ):
        assert words in read.words, words


@pytest.mark.parametrize(
    ("geometry", "words"),
    [
        ({"reason": "the network has collapsed"}, "No geometry: the network has collapsed."),
        (None, "No geometry: this evaluation is older than these measures"),
        (FACTS, "the points of this evaluation were not kept"),
    ],
)
def test_what_is_absent_is_said(tmp_path: Path, geometry: Any, words: str) -> None:
    page = _page(tmp_path, geometry, None)
    assert words in Reader(page).words
    assert "on two principal components" not in page


def _section(page: str) -> str:
    """The card, without the line that figures of files have and the page hides, and without groups of nothing."""
    found = re.search(r'<section class="card" id="geometry">.*?</section>', page, flags=re.DOTALL)
    assert found
    return re.sub(r'<g class="heading">\n<text.*?</text>\n</g>\n|<g>\n?|</g>\n?', "", found[0])


def _folder(folder: Path, geometry: Any = FACTS) -> Path:
    """A finished run as an evaluation leaves it."""
    folder.joinpath("scores").mkdir()
    for name, by_score in SMALL.items():
        np.savez(folder / f"scores/{name}.npz", allow_pickle=False, **by_score)
    np.savez_compressed(folder / "geometry.npz", allow_pickle=False, **SPHERE.arrays())
    record = {**head(), "evaluations": [entry(SMALL, ENERGY, geometry=geometry)]}
    folder.joinpath("results.json").write_text(json.dumps(record))
    return folder


def test_the_card_again_from_a_run_folder(tmp_path: Path) -> None:
    facts = Evidence(SMALL, SMALL["id"]["msp"], sphere=SPHERE)
    made = entry(SMALL, ENERGY, geometry=FACTS)
    paths, drawings = save_figures(tmp_path / "plots", made, facts, "a run")
    assert {"embedding.png", "angles.png"} <= {path.name for path in paths}
    assert Image.open(tmp_path / "plots/embedding.png").mode == "P", "with a palette"
    first = write_report(tmp_path / "report.html", head(), [made], facts, drawings).read_text("utf-8")
    assert 'class="heading"' in first
    again = rebuild_report(_folder(tmp_path), tmp_path / "again").read_text("utf-8")
    assert _section(first) == _section(again)
    assert _section(again).count("<svg") == 2


def test_an_older_evaluations_points_are_not_drawn_for_one_without_geometry(tmp_path: Path) -> None:
    run = _folder(tmp_path, {"reason": "not asked for (geometry_images=0)"})
    page = rebuild_report(run).read_text("utf-8")
    assert "No geometry: not asked for (geometry_images=0)." in page
    assert "<svg" not in _section(page)


def test_a_damaged_file_of_points_is_one_line(tmp_path: Path) -> None:
    run, known = _folder(tmp_path), {"geometry": FACTS}
    (run / "geometry.npz").write_bytes(b"PK nonsense")
    with pytest.raises(ConfigError, match=r"geometry\.npz is damaged"):
        read_sphere(run, known)
    np.savez(run / "geometry.npz", space=np.array("features"))
    with pytest.raises(ConfigError, match=r"geometry\.npz lacks 'class_names'"):
        read_sphere(run, known)
    (run / "geometry.npz").unlink()
    assert read_sphere(run, known) is None
