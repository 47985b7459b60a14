"""Pictures of every kind become the pixels that a viewer shows, in the network's size; damaged ones are named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from farout.data.pictures import Pictures, batches, image_files
from farout.errors import FaroutError


def read(pictures: Pictures, side: int = 32) -> Tensor:
    """All batches as one."""
    return torch.cat(list(batches(pictures, side, 4)))


@pytest.fixture
def pixels() -> np.ndarray:
    """(32, 32, 3) uint8, all four corners different."""
    return np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def chw(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def test_what_fits_is_left_as_it_is(pixels: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tensor = chw(pixels)
    for picture in (tensor, Image.fromarray(pixels), tmp_path / "a.png", str(tmp_path / "a.png")):
        assert torch.equal(read(picture), tensor[None])
        assert torch.equal(read([picture, picture]), torch.stack([tensor, tensor]))
    assert read(tensor).dtype == torch.uint8
    assert torch.equal(read(torch.stack([tensor] * 9)), torch.stack([tensor] * 9))
    assert torch.equal(read(tensor / 255), tensor[None] / 255)
    assert torch.equal(read(tensor[:1]), tensor[None, :1].expand(-1, 3, -1, -1))
    assert list(batches([], 32, 4)) == []


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (100, 20), (32, 40), (500, 333)])
def test_others_are_resized_by_the_shorter_side_and_cropped_in_the_centre(size: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    scale = 32 / min(size)
    width, height = (int(side * scale) if side != min(size) else 32 for side in size)
    small = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    top, left = round((height - 32) / 2), round((width - 32) / 2)
    expect = chw(small[top : top + 32, left : left + 32])
    assert torch.equal(read(image)[0], expect)
    assert torch.equal(read(chw(np.asarray(image)))[0], expect)
    floats = read(chw(np.asarray(image)) / 255)[0]
    assert floats.dtype == torch.float32
    # PIL rounds after each of its two passes where pixels are whole numbers.
    torch.testing.assert_close(floats * 255, expect.float(), atol=1.01, rtol=0)


@pytest.mark.parametrize(("orientation", "back"), [(3, 180), (6, 90), (8, 270)])
def test_cameras_that_were_turned_are_understood(
    pixels: np.ndarray, tmp_path: Path, orientation: int, back: int
) -> None:
    turned = Image.fromarray(pixels).rotate(back)  # what the sensor saw
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned.save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(read(tmp_path / "turned.png")[0], chw(pixels))


def test_grey_palette_and_other_modes(pixels: np.ndarray, tmp_path: Path) -> None:
    grey = Image.fromarray(pixels[..., 0])
    expect = torch.from_numpy(pixels[..., 0].copy()).expand(3, -1, -1)
    grey.save(tmp_path / "grey.png")
    assert torch.equal(read(tmp_path / "grey.png")[0], expect)
    assert torch.equal(read(grey.convert("P"))[0], expect)
    assert torch.equal(read(grey.convert("I"))[0], expect)
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    deep.save(tmp_path / "deep.png")
    assert torch.equal(read(tmp_path / "deep.png")[0], expect), "the upper of 16 bits"
    bits = grey.point(lambda level: 255 * (level > 99)).convert("1")
    assert torch.equal(read(bits)[0], torch.where(expect > 99, 255, 0).to(torch.uint8))
    for mode in ("CMYK", "YCbCr", "HSV"):
        close = read(Image.fromarray(pixels).convert(mode))[0].float()
        assert (close - chw(pixels)).abs().mean() < 12, mode
    with pytest.raises(FaroutError, match="floating-point pixels"):
        read(grey.convert("F"))


def test_transparent_parts_are_white(pixels: np.ndarray, tmp_path: Path) -> None:
    alpha = np.full((32, 32, 1), 255, np.uint8)
    alpha[:8] = 0
    Image.fromarray(np.concatenate([pixels, alpha], 2)).save(tmp_path / "rgba.png")
    expect = chw(pixels).clone()
    expect[:, :8] = 255
    assert torch.equal(read(tmp_path / "rgba.png")[0], expect)
    palette = Image.fromarray(np.arange(1024, dtype=np.uint8).reshape(32, 32) % 4).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 1, 2, 3])
    palette.save(tmp_path / "palette.png", transparency=0)
    found = read(tmp_path / "palette.png")[0]
    assert found[:, 0, 0].tolist() == [255, 255, 255]
    assert found[:, 0, 1].tolist() == [40, 50, 60]
    assert read(Image.fromarray(pixels[..., :2], "LA")).shape == (1, 3, 32, 32)


def _damaged(folder: Path, pixels: np.ndarray) -> dict[str, Path]:
    whole = folder / "whole.jpg"
    Image.fromarray(pixels).resize((200, 200)).save(whole)
    contents = {
        "cut.jpg": whole.read_bytes()[:1000],
        "empty.png": b"",
        "text.png": b"not an image at all",
        "header.png": b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


@pytest.mark.parametrize("name", ["cut.jpg", "empty.png", "text.png", "header.png"])
def test_damaged_files_are_named_in_one_line(pixels: np.ndarray, tmp_path: Path, name: str) -> None:
    path = _damaged(tmp_path, pixels)[name]
    with pytest.raises(FaroutError, match=f"{name} cannot be read") as caught:
        read([tmp_path / "whole.jpg", path])
    assert "\n" not in str(caught.value)


def test_a_picture_of_a_billion_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (200, 200)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(FaroutError, match=r"large\.png cannot be read"):
        read(tmp_path / "large.png")


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (torch.zeros(3, 32, 32, dtype=torch.int64), "uint8 in 0..255, or floats"),
        (torch.full((3, 32, 32), 2.0), r"must lie in \[0, 1\]"),
        (torch.full((3, 32, 32), torch.nan), r"must lie in \[0, 1\]"),
        (torch.zeros(2, 5, 32, 32), r"tensors \(N, 3, H, W\)"),
        (torch.zeros(32, 32), r"one is \(3, H, W\)"),
        ([3], "int is no picture"),
        ("nowhere.png", r"nowhere\.png is not there"),
    ],
)
def test_what_is_no_picture_is_refused(picture: Pictures, message: str) -> None:
    with pytest.raises(FaroutError, match=message):
        read(picture)


def test_whole_numbers_and_floats_mix(pixels: np.ndarray) -> None:
    found = read([chw(pixels), chw(pixels) / 255])
    assert torch.equal(found[0], found[1])


def test_folders_stand_for_the_images_below_them(pixels: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "none").mkdir()
    for name in ("c.png", "b/z.JPG", "b/.hidden.png", "a.png"):
        Image.fromarray(pixels).save(tmp_path / name, "PNG")
    (tmp_path / "b/notes.txt").write_text("")
    found = image_files([tmp_path])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a.png", "b/z.JPG", "c.png"]
    assert len(read([tmp_path, tmp_path / "a.png"])) == 4
    with pytest.raises(FaroutError, match="none is a folder without images"):
        image_files([tmp_path / "none"])
