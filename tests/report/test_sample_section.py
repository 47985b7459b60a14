"""The card of generated images, and the sheets in it."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from farout.errors import ConfigError, FaroutError
from farout.report.figures.samples import mosaic, mosaic_png, sheet_figure
from farout.report.figures.style import png_bytes
from farout.report.page.samples import sample_card

SAMPLING: dict[str, Any] = {"source": "noise", "rounds": 3, "steps": 40, "batch_size": 64, "seed": 7, "n": 98}
SAMPLING["never_drawn"] = 2


def image(value: int) -> bytes:
    return mosaic_png(torch.full((4, 3, 8, 8), value, dtype=torch.uint8))


def embedded(html: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")) for data in found]


def test_nothing_to_show(tmp_path: Path) -> None:
    assert sample_card(None) == sample_card(tmp_path / "absent") == sample_card(tmp_path) == ""


def test_training_over_time_is_a_few_pictures_from_the_first_to_the_last(tmp_path: Path) -> None:
    for step in range(1, 21):
        (tmp_path / f"buffer-{50 * step:07d}.png").write_bytes(image(10 * step))
    html = sample_card(tmp_path)
    assert re.findall(r'alt="(step [\d,]+)"', html) == ["step 50", "step 350", "step 700", "step 1,000"]
    assert [int(picture[5, 5, 0]) for picture in embedded(html)] == [10, 70, 140, 200]
    assert "4 of 20 moments" in html


def test_one_picture_of_training(tmp_path: Path) -> None:
    (tmp_path / "buffer-0000003.png").write_bytes(image(30))
    assert re.findall(r'alt="(step [\d,]+)"', sample_card(tmp_path)) == ["step 3"]


def test_samples_with_their_figures(tmp_path: Path) -> None:
    for stem in ("samples", "predicted_class", "class_chains", "chain"):
        (tmp_path / f"{stem}.png").write_bytes(image(99))
    score = {"mean": 8.7612, "n": 1000, "subset": "surest 10 % of each predicted class"}
    fid = {"value": 38.4, "n": 9000, "subset": "surest 90 %", "reference": "50,000 a <train>"}
    own = {"features": "ce-run", "reference": "cifar10 test", "dimensions": 64, "samples": {"value": 12.3456}}
    facts = {"sampling": SAMPLING, "inception": {"inception_score": score, "fid": fid}, "frechet_distance": own}
    (tmp_path / "samples.json").write_text(json.dumps(facts))
    html = sample_card(tmp_path)
    assert len(embedded(html)) == 4 and html.count("<label") == 4
    for words in ("98 samples from uniform noise after 3 rounds of 64 chains of 40 steps, seed 7", "2 rows"):
        assert words in html
    for words in ("IS 8.761 (1,000 images", "FID 38.40", "a &lt;train&gt;", "(not FID) on the features of ce-run"):
        assert words in html
    assert "samples 12.35" in html


@pytest.mark.parametrize("damaged", ["{", "{}", '{"sampling": 3, "inception": {}}'])
def test_damaged_figures(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "samples.png").write_bytes(image(1))
    (tmp_path / "samples.json").write_text(damaged)
    with pytest.raises(ConfigError, match=r"samples.json is damaged .*sample the run again"):
        sample_card(tmp_path)


def test_a_mosaic_is_its_images_row_by_row() -> None:
    images = torch.arange(5 * 3 * 4 * 6, dtype=torch.int64).remainder(251).to(torch.uint8).view(5, 3, 4, 6)
    sheet = mosaic(images, 3)
    assert sheet.shape == (2 * 6 + 2, 3 * 8 + 2, 3)
    for place, picture in enumerate(images):
        top, left = 2 + 6 * (place // 3), 2 + 8 * (place % 3)
        assert np.array_equal(sheet[top : top + 4, left : left + 6], picture.permute(1, 2, 0).numpy())
    covered = torch.zeros(sheet.shape[:2], dtype=torch.bool)
    for place in range(5):
        top, left = 2 + 6 * (place // 3), 2 + 8 * (place % 3)
        covered[top : top + 4, left : left + 6] = True
    assert (sheet[~covered.numpy()] == 255).all()
    assert mosaic(images).shape == sheet.shape  # about a square


@pytest.mark.parametrize(
    "images", [torch.zeros(0, 3, 4, 4).byte(), torch.zeros(2, 1, 4, 4).byte(), torch.zeros(2, 3, 4, 4)]
)
def test_what_is_no_mosaic(images: torch.Tensor) -> None:
    with pytest.raises(FaroutError, match="uint8 images"):
        mosaic(images)


def test_a_sheet_names_its_rows_and_columns() -> None:
    images = torch.zeros(6, 3, 8, 8, dtype=torch.uint8)
    figure = sheet_figure(images, "Title", ["a_$1$", "b"], ["0", "1", "2"])
    assert [shown.get_text() for shown in figure.axes[0].texts] == [r"a_\$1\$", "b", "0", "1", "2"]
    with Image.open(io.BytesIO(png_bytes(figure))) as picture:
        assert picture.width == 840
    assert len(sheet_figure(images, "Title", columns=["0", "1"]).axes[0].texts) == 2
    for wrong in ({"rows": ["a"] * 4}, {"columns": ["a"] * 4}, {}, {"rows": ["a"], "columns": ["b"]}):
        with pytest.raises(FaroutError, match="do not fill"):
            sheet_figure(images, "Title", **wrong)
