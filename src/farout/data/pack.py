"""Reading images from folders and archives, and the pack format.

A pack is a tar of class folders. Members are images, or strips: equal-sized square images stacked from top
to bottom in one lossless WebP, `CLASS/NNN.webp`, whose width is the side. Order: byte order of member names.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.transforms import functional as vision

from farout.data.image_set import Decoded, ImageSet
from farout.data.pack_files import checksum_file, write_checksum
from farout.errors import FaroutError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff"}
STRIP = re.compile(r"\d+\.webp$")
STRIP_LENGTH = 500
WEBP_LIMIT = 16383  # pixels a side
WIDEST_STRIP = 128  # a wider numbered WebP is a photograph, not a strip
ONE_CLASS = "all"


@dataclass(frozen=True)
class Handling:
    """PIL resize (of the shorter side, or to [height, width]), then centre crop; None: neither.

    The papers' transforms resize bilinearly; `filter` names another of torchvision's interpolation modes.
    """

    resize: int | list[int] | None = None
    crop: int | None = None
    filter: str = "bilinear"

    def __call__(self, image: Image.Image) -> np.ndarray:
        """RGB, resized and cropped, as uint8 (3, H, W)."""
        image = image.convert("RGB")
        if self.resize is not None:
            image = vision.resize(image, self.resize, vision.InterpolationMode(self.filter))
        if self.crop is not None:
            image = vision.center_crop(image, [self.crop])
        return np.asarray(image).transpose(2, 0, 1)


Keep = Callable[[str], bool]


def is_image(name: str) -> bool:
    """By suffix; hidden files (such as the ._ twins of macOS archives) are none."""
    path = Path(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def members(path: Path, keep: Keep = is_image) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the wanted files of a folder, tar (any compression) or zip, in stored order."""
    if path.is_dir():
        for file in path.rglob("*"):
            name = file.relative_to(path).as_posix()
            if keep(name) and file.is_file():
                yield name, file.read_bytes()
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if keep(name):
                    yield name, archive.read(name)
    elif path.is_file() and tarfile.is_tarfile(path):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isfile() and keep(member.name):
                    content = tar.extractfile(member)
                    assert content is not None
                    yield member.name.removeprefix("./"), content.read()
    else:
        raise FaroutError(f"{path} is neither a folder nor a tar nor a zip file")


def names_in(path: Path) -> list[str]:
    """Names of all images in a folder, tar or zip, in byte order; reads no image."""
    if path.is_dir():
        names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    elif zipfile.is_zipfile(path):
        names = zipfile.ZipFile(path).namelist()
    else:
        with tarfile.open(path) as tar:
            names = [member.name.removeprefix("./") for member in tar if member.isfile()]
    return sorted(filter(is_image, names), key=str.encode)


def is_pack(path: Path) -> bool:
    """Whether a file is a tar of nothing but strips."""
    if not path.is_file() or not tarfile.is_tarfile(path):
        return False
    names = names_in(path)
    return bool(names) and all(STRIP.search(name) for name in names)


def read_images(path: Path, handling: Handling | None = None, keep: Keep = is_image) -> Decoded:
    """All images of a pack, a folder or archive of class folders, or a flat folder; classes in byte order."""
    handling = handling or Handling()
    strips = not path.is_dir()
    found: list[tuple[str, list[np.ndarray]]] = []
    for name, content in members(path, keep):
        try:
            found.append((name, _decode(name, content, handling, strips)))
        except OSError as error:
            raise FaroutError(f"{path}: cannot read the image {name} ({error})") from error
    if not found:
        raise FaroutError(f"{path} holds no images")
    found.sort(key=lambda item: item[0].encode())
    return _collect(path, found)


def _decode(name: str, content: bytes, handling: Handling, strips: bool) -> list[np.ndarray]:
    with Image.open(io.BytesIO(content)) as image:
        width, height = image.size
        strip = strips and STRIP.search(name) and height > width and height % width == 0
        if not strip or width > WIDEST_STRIP:
            return [handling(image)]
        rows = np.asarray(image.convert("RGB")).reshape(-1, width, width, 3)
    if handling.resize in (None, width) and handling.crop in (None, width):
        return list(rows.transpose(0, 3, 1, 2))
    return [handling(Image.fromarray(row)) for row in rows]


def _collect(path: Path, found: list[tuple[str, list[np.ndarray]]]) -> Decoded:
    folders = class_folders([name for name, _ in found])
    classes = tuple(sorted(set(folders), key=str.encode))
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number[f] for f, (_, rows) in zip(folders, found, strict=True) for _ in rows])
    # a class's rows stay together even where a name such as `a-b/` sorts between `a/` and `a/b`
    order = np.argsort(labels, kind="stable")
    rows = [row for _, rows in found for row in rows]
    shapes = {row.shape[1:] for row in rows}
    if len(shapes) > 1:
        raise FaroutError(f"{path}: {len(shapes)} image sizes; say `resize: 32` and `crop: 32` in the YAML")
    return Decoded(np.stack([rows[i] for i in order]), labels[order].astype(np.int64), classes)


def class_folders(names: list[str]) -> list[str]:
    """Each file's class: its first folder, below any folder that holds everything (`my_set/cat/1.png`)."""
    parts = [name.split("/") for name in names]
    while len({p[0] for p in parts}) == 1 and min(map(len, parts)) > 2:
        parts = [p[1:] for p in parts]
    return [p[0] if len(p) > 1 else ONE_CLASS for p in parts]


def select_classes(decoded: Decoded, drop: list[str]) -> Decoded:
    """Without the classes in `drop`; the others are renumbered."""
    assert decoded.labels is not None
    unknown = sorted(set(drop) - set(decoded.classes))
    if unknown:
        raise FaroutError(f"drop_classes names classes that are not there: {', '.join(unknown[:5])}")
    classes = tuple(c for c in decoded.classes if c not in drop)
    number = np.array([classes.index(c) if c in classes else -1 for c in decoded.classes])
    labels = number[decoded.labels]
    return Decoded(decoded.images[labels >= 0], labels[labels >= 0], classes, decoded.facts)


def write_pack(image_set: ImageSet, path: Path) -> None:
    """Write a set as a pack of lossless strips, and its checksum beside it; the same set always gives the same bytes.

    Images must be square uint8. Classes come back sorted by name, each in its old order.
    """
    images = image_set.images.numpy()
    if images.dtype != np.uint8 or images.shape[2] != images.shape[3]:
        found = f"{images.dtype} {images.shape[2:]}"
        raise FaroutError(f"a pack holds square uint8 images; {image_set.name} is {found}")
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as raw:
            if path.suffix == ".gz":
                with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as stream:
                    _write_tar(image_set, images, stream)
            else:
                _write_tar(image_set, images, raw)
        checksum_file(path).unlink(missing_ok=True)  # of what lay there before
        temporary.replace(path)
        write_checksum(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_tar(image_set: ImageSet, images: np.ndarray, stream: io.BufferedIOBase | gzip.GzipFile) -> None:
    length = min(STRIP_LENGTH, WEBP_LIMIT // images.shape[3])
    labels = np.zeros(len(images), int) if image_set.labels is None else image_set.labels.numpy()
    classes = image_set.classes or (ONE_CLASS,)
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for label in sorted(range(len(classes)), key=lambda i: classes[i].encode()):
            rows = np.flatnonzero(labels == label)
            for start in range(0, len(rows), length):
                strip = images[rows[start : start + length]].transpose(0, 2, 3, 1)
                content = _lossless_webp(strip.reshape(-1, images.shape[3], 3))
                entry = tarfile.TarInfo(f"{_folder_name(classes[label])}/{start // length:03d}.webp")
                entry.size, entry.mode = len(content), 0o644
                tar.addfile(entry, io.BytesIO(content))


def _folder_name(name: str) -> str:
    return re.sub(r"[^\w.,+-]", "_", name) or ONE_CLASS


def _lossless_webp(rows: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(rows))
    picture.save(buffer, "WEBP", lossless=True, exact=True, quality=80, method=4)
    return buffer.getvalue()
