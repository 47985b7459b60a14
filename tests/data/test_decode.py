"""One reader of pictures: the store, files that are read where they lie, and detectors see the same pixels."""

import io
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from farout.data.crop import random_crop_boxes
from farout.data.cropped_views import CroppedViews
from farout.data.decode import ResizeCrop, is_picture, shown, suffixes
from farout.data.image_files import ImageFiles
from farout.data.pack import read_images
from farout.data.pictures import batches
from farout.data.streams import stable_seed
from farout.data.views import ViewTransform
from farout.engine.processes import ALONE
from farout.errors import FaroutError

SIDE = 16
RGB = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
GREY = RGB[..., 0]
ALPHA = np.where(np.arange(SIDE)[:, None] < 5, 0, 255).repeat(SIDE, 1).astype(np.uint8)
ON_WHITE = np.where(ALPHA[..., None] == 0, 255, RGB).astype(np.uint8)
AS_GREY = np.stack([GREY] * 3, 2)


def png16(levels: np.ndarray, colour: int, extra: bytes = b"", size: tuple[int, int] | None = None) -> bytes:
    """A PNG of 16 bits a channel (Pillow writes none with colours); colour 0 grey, 2 RGB, 4 grey with alpha, 6 RGBA."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = levels.astype(">u2").reshape(len(levels), -1)
    width, height = size or levels.shape[1::-1]
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    transparent = chunk(b"tRNS", extra) if extra else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + transparent + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    back = {3: 180, 6: 90, 8: 270}[orientation]
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    return saved(Image.fromarray(RGB).rotate(back), kind, exif=exif, **options)


def palette(**options: object) -> bytes:
    image = Image.fromarray((np.arange(SIDE * SIDE) % 4).astype(np.uint8).reshape(SIDE, SIDE)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 1, 2, 3])
    return saved(image, "PNG", **options)


PALETTE = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [1, 2, 3]])[np.arange(SIDE * SIDE) % 4]
PALETTE = PALETTE.reshape(SIDE, SIDE, 3).astype(np.uint8)
THROUGH = np.where((np.arange(SIDE * SIDE) % 4 == 0).reshape(SIDE, SIDE, 1), 255, PALETTE).astype(np.uint8)
DEEP = GREY.astype(np.uint16) << 8 | 77
RGB16 = RGB.astype(np.uint16) << 8 | 5
ALPHA16 = ALPHA[..., None].astype(np.uint16) * 257


def frames(kind: str) -> bytes:
    first, second = (Image.fromarray(x) for x in (GREY // 2, 255 - GREY))
    options = {"lossless": True} if kind == "WEBP" else {}
    return saved(first, kind, save_all=True, append_images=[second], **options)


# name -> (content, the pixels that a viewer shows; None: whatever, but the same for all)
KINDS: dict[str, tuple[bytes, np.ndarray | None]] = {
    "grey16.png": (png16(DEEP, 0), AS_GREY),
    "grey16_transparent.png": (png16(DEEP, 0, struct.pack(">H", int(DEEP[3, 3]))), None),
    "grey16.tif": (saved(Image.fromarray(DEEP), "TIFF"), AS_GREY),
    "grey16_big_endian.tif": (saved(Image.fromarray(DEEP.astype(">u2")), "TIFF"), AS_GREY),
    "grey16.jp2": (saved(Image.fromarray(DEEP), "JPEG2000"), AS_GREY),
    "grey16.pgm": (b"P5 16 16 65535\n" + DEEP.astype(">u2").tobytes(), AS_GREY),
    "dark16.pgm": (b"P5 16 16 65535\n" + GREY.astype(">u2").tobytes(), np.zeros_like(RGB)),
    "rgb16.png": (png16(RGB16, 2), RGB),
    "rgba16.png": (png16(np.concatenate([RGB16, ALPHA16], 2), 6), ON_WHITE),
    "la16.png": (png16(np.concatenate([DEEP[..., None], ALPHA16], 2), 4), None),
    "turned.png": (turned("PNG", 6), RGB),
    "turned.tif": (turned("TIFF", 8), RGB),
    "turned.jpg": (turned("JPEG", 3), None),
    "turned.webp": (turned("WEBP", 8), None),
    "rgba.png": (saved(Image.fromarray(np.dstack([RGB, ALPHA])), "PNG"), ON_WHITE),
    "rgba.webp": (saved(Image.fromarray(np.dstack([RGB, ALPHA])), "WEBP", lossless=True, exact=True), ON_WHITE),
    "la.png": (saved(Image.fromarray(np.dstack([GREY, ALPHA]), "LA"), "PNG"), None),
    "rgb_transparent.png": (saved(Image.fromarray(RGB), "PNG", transparency=tuple(map(int, RGB[2, 2]))), None),
    "palette.png": (palette(), PALETTE),
    "palette_transparent.png": (palette(transparency=0), THROUGH),
    "palette_bytes.png": (palette(transparency=bytes([0, 255, 255, 255])), THROUGH),
    "palette.gif": (saved(Image.fromarray(GREY), "GIF"), AS_GREY),
    "frames.gif": (frames("GIF"), np.stack([GREY // 2] * 3, 2)),
    "frames.webp": (frames("WEBP"), np.stack([GREY // 2] * 3, 2)),
    "frames.png": (frames("PNG"), np.stack([GREY // 2] * 3, 2)),
    "pages.tiff": (frames("TIFF"), np.stack([GREY // 2] * 3, 2)),
    "cmyk.jpg": (saved(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=100), None),
    "bits.png": (saved(Image.fromarray(GREY > 99), "PNG"), np.stack([np.where(GREY > 99, 255, 0)] * 3, 2)),
    "bits.pbm": (saved(Image.fromarray(GREY > 99), "PPM"), np.stack([np.where(GREY > 99, 255, 0)] * 3, 2)),
    "plain.bmp": (saved(Image.fromarray(RGB), "BMP"), RGB),
    "plain.tga": (saved(Image.fromarray(RGB), "TGA"), RGB),
    "plain.jfif": (saved(Image.fromarray(RGB), "JPEG"), None),
    "plain.avif": (saved(Image.fromarray(RGB), "AVIF"), None),
    "a_png_named.jpg": (saved(Image.fromarray(RGB), "PNG"), RGB),
    "without_suffix": (saved(Image.fromarray(RGB), "PNG"), RGB),
    "IMG.0001": (saved(Image.fromarray(RGB), "PPM"), RGB),
}


def archived(folder: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return folder / "all.zip"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """All of KINDS in a folder and in a zip."""
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "all").mkdir()
    for name, (content, _) in KINDS.items():
        (folder / "all" / name).write_bytes(content)
    return folder / "all", archived(folder, {name: content for name, (content, _) in KINDS.items()})


@pytest.mark.parametrize("side", [SIDE, 10])
def test_every_reader_sees_the_same_pixels(places: tuple[Path, Path], side: int) -> None:
    folder, archive = places
    names, resize_crop = sorted(KINDS, key=str.encode), ResizeCrop(side, side)
    stored = torch.from_numpy(read_images(folder, resize_crop).images)
    assert len(stored) == len(KINDS)
    assert torch.equal(torch.from_numpy(read_images(archive, resize_crop).images), stored)
    assert torch.equal(torch.cat(list(batches(folder, side, 7))), stored)
    assert torch.equal(ImageFiles(folder, names, resize_crop, "")[:], stored)
    opened = [Image.open(folder / name) for name in names]
    assert torch.equal(torch.cat(list(batches(opened, side, 7))), stored)
    assert all(
        np.array_equal(resize_crop(Image.open(folder / name)), row) for name, row in zip(names, stored, strict=True)
    )


def test_pixels_are_those_that_a_viewer_shows(places: tuple[Path, Path]) -> None:
    found = dict(zip(sorted(KINDS, key=str.encode), read_images(places[0], ResizeCrop(SIDE, SIDE)).images, strict=True))
    for name, (_, expected) in KINDS.items():
        if expected is not None:
            assert np.array_equal(found[name], expected.transpose(2, 0, 1)), name
    assert np.abs(found["turned.jpg"].astype(int) - RGB.transpose(2, 0, 1)).mean() < 3
    assert (found["la.png"][:, :5] == 255).all() and np.array_equal(found["la.png"][0, 5:], GREY[5:])
    assert (found["la16.png"][:, :5] == 255).all() and np.array_equal(found["la16.png"][0, 5:], GREY[5:])
    assert found["rgb_transparent.png"][:, 2, 2].tolist() == [255] * 3
    assert found["grey16_transparent.png"][:, 3, 3].tolist() == [255] * 3


def test_views_are_cut_from_the_upright_picture(tmp_path: Path) -> None:
    tall = np.random.default_rng(1).integers(0, 256, (40, 20, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(tall).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "0.png", exif=exif)
    files = ImageFiles(tmp_path, ["0.png"], ResizeCrop(8, 8), "")
    assert np.array_equal(np.asarray(files.picture(0)), tall)
    transform = ViewTransform([0] * 3, [1] * 3, 2, 8, (0.1, 1), (0.5, 2), False, (0, 0, 0, 0), 0, 0)
    views = CroppedViews(files, transform, lambda step: torch.tensor([0]), 3, "x", ALONE)(0, torch.Generator())
    chance = torch.Generator().manual_seed(stable_seed(3, "x", "crop", 0, 0))
    boxes = random_crop_boxes(2, 40, 20, (0.1, 1), (0.5, 2), chance, torch.device("cpu"))
    for view, (top, left, height, width) in zip(views, boxes.tolist(), strict=True):
        part = Image.fromarray(tall).crop((left, top, left + width, top + height))
        expected = np.asarray(part.resize((8, 8), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert np.array_equal((view * 255).round().byte().numpy(), expected)


def test_a_picture_stays_as_it_was_and_is_turned_once(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(turned("PNG", 6))
    image = Image.open(tmp_path / "a.tif")
    before = image.tobytes()
    once = shown(image)
    assert np.array_equal(np.asarray(shown(once)), RGB)
    assert image.tobytes() == before and image.mode == "RGB"


def test_damaged_camera_data_turn_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(saved(Image.fromarray(RGB), "PNG", exif=b"Exif\0\0nonsense"))
    assert np.array_equal(read_images(tmp_path).images[0], RGB.transpose(2, 0, 1))


def test_suffixes_are_those_that_pillow_opens_as_pictures() -> None:
    wanted = ".gif .jfif .pgm .pbm .pnm .ppm .jp2 .bmp .tiff .tif .avif .webp .png .jpg .jpeg .mpo .ico .tga"
    assert set(wanted.split()) <= set(suffixes())
    for other in (".pdf", ".eps", ".ps", ".mpg", ".h5", ".wmf", ".txt", ".npy", ".svg", ".fits"):
        assert not is_picture(f"a{other}")
    assert not is_picture("README", b"P6 is no picture") and not is_picture(
        "LICENSE", b"BMW makes cars, not pictures..."
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("float.tif", saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "floating-point pixels"),
        ("wide.tif", saved(Image.fromarray(GREY.astype(np.int32) * 10**6), "TIFF"), "numbers of an unknown range"),
        ("cut.png", KINDS["turned.png"][0][:150], "cannot be read"),
        ("empty.png", b"", "no image, or of an unknown kind"),
        ("text.png", b"not an image at all", "no image, or of an unknown kind"),
        ("vector.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image, or of an unknown kind"),
        ("bomb.png", png16(np.zeros((1, 1)), 0, size=(60000, 60000)), "exceeds limit"),
        ("thin.png", saved(Image.new("1", (2_000_000, 1)), "PNG"), "too long and thin"),
        ("no_pixels.gif", b"GIF89a" + b"\0" * 30, "cannot be read"),
        ("two\nlines.png", b"", r"two\\nlines.png"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_cannot_be_read_is_named_in_one_line_by_all(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / name).write_bytes(content)
    resize_crop = ResizeCrop(32, 32)
    for read in (
        lambda: read_images(folder, resize_crop),
        lambda: read_images(archived(tmp_path, {f"cat/{name}": content}), resize_crop),
        lambda: list(batches(folder, 32, 4)),
        lambda: ImageFiles(folder, [name], resize_crop, "")[:],
    ):
        with pytest.raises(FaroutError, match=said) as caught:
            read()
        assert len(str(caught.value).splitlines()) == 1 and name.split(".")[0].split("\n")[0] in str(caught.value)


def test_a_crop_never_reaches_beyond_the_picture() -> None:
    picture = Image.fromarray(RGB)
    assert ResizeCrop(crop=SIDE)(picture).shape == (3, SIDE, SIDE)
    with pytest.raises(FaroutError, match="16 x 16 pixels have no part of 17 x 17: add a resize"):
        ResizeCrop(crop=SIDE + 1)(picture)


def test_large_pictures_are_read_without_a_warning_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (100, 100), 7).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_images(tmp_path, ResizeCrop(8, 8)).images.max() == 7
