"""Reading the images of folders and archives, and the pack format.

A pack is a tar of class folders with nothing but strips: equal-sized square images stacked from top to bottom in one
lossless WebP, `CLASS/NNN.webp`, whose width is the side. Order: byte order of member names. Unpacked it stays that set.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from farout.data.archives import open_archive
from farout.data.decode import ResizeCrop, decoded, naming
from farout.data.image_set import Decoded, ImageSet
from farout.data.listing import Keep, Listing, in_byte_order, is_hidden, list_images, passed_over_line
from farout.data.pack_files import checksum_file, write_checksum
from farout.errors import FaroutError, printable
from farout.files import write_atomically

__all__ = ["ResizeCrop", "class_folders", "is_pack", "read_images", "read_listed", "select_classes", "write_pack"]

STRIP = re.compile(r"(?:^|/)\d{3,}\.webp$")
STRIP_LENGTH = 500
WEBP_LIMIT = 16383  # pixels a side
USUAL_SIDE = 128  # of strips; what is wider must be as long as no photograph is
PHOTO_ASPECT, PHOTO_SIDE = 16, 8  # no photograph is that long and thin, or that small
ONE_CLASS = "all"


def is_pack(path: Path) -> bool:
    """Whether a file is an archive of nothing but strips."""
    return path.is_file() and open_archive(path) is not None and holds_strips(list_images(path))


def holds_strips(listing: Listing) -> bool:
    """Whether these are the strips of a pack, and not numbered WebP photographs that are taller than wide.

    Strips are lossless, of one width, whole squares high; and as each is filled before the next begins, all but the
    last of a class are longer than any photograph.
    """
    if not listing.names or not all(map(STRIP.search, listing.names)):
        return False
    sizes = [_lossless_size(listing.heads.get(name, b"")) for name in listing.names]
    width = sizes[0][0]
    if width == 0 or any(other != width or height % width for other, height in sizes):
        return False
    heights = defaultdict(list)
    for name, (_, height) in zip(listing.names, sizes, strict=True):
        heights[name.rpartition("/")[0]].append(height)
    filled = [height for inside in heights.values() for height in inside[:-1]]
    long = min(PHOTO_ASPECT, WEBP_LIMIT // width) * width
    if width > USUAL_SIDE and max(height for _, height in sizes) < long:
        return False
    return width < PHOTO_SIDE or all(height >= long for height in filled)


def _lossless_size(head: bytes) -> tuple[int, int]:
    """(width, height) that the first bytes of a lossless WebP tell; (0, 0) for any other file."""
    if len(head) < 25 or head[:4] != b"RIFF" or head[8:16] != b"WEBPVP8L":
        return 0, 0
    bits = int.from_bytes(head[21:25], "little")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def read_images(path: Path | str, resize_crop: ResizeCrop | None = None, keep: Keep | None = None) -> Decoded:
    """All images of a pack, a folder or archive of class folders, or a flat folder; classes in byte order.

    What is passed over is said in one line, and kept in the facts. Raises FaroutError, which names the file.
    """
    return read_listed(list_images(path), resize_crop or ResizeCrop(), keep)


def read_listed(listing: Listing, resize_crop: ResizeCrop, keep: Keep | None = None) -> Decoded:
    """As `read_images`, of what has been listed."""
    strips = holds_strips(listing)
    found: dict[str, list[np.ndarray]] = {}
    for name, content in listing.contents(keep):
        with naming(listing.where(name)):
            picture = decoded(content, name)
            found[name] = _squares(picture, resize_crop) if strips else [resize_crop.fit(picture)]
    if not found:
        why = f": {passed_over_line(listing.path, listing.passed_over)}" if listing.passed_over else ""
        raise FaroutError(f"{printable(listing.path)} holds no images{why}")
    listing.say()
    result = _collect(listing, found, strips)
    if listing.passed_over:
        result.facts["passed_over"] = dict(listing.passed_over)
    return result


def _squares(strip: Image.Image, resize_crop: ResizeCrop) -> list[np.ndarray]:
    width = strip.width
    rows = np.asarray(strip).reshape(-1, width, width, 3)
    if resize_crop.resize in (None, width) and resize_crop.crop in (None, width):
        return list(rows.transpose(0, 3, 1, 2))
    return [resize_crop.fit(Image.fromarray(row)) for row in rows]


def _collect(listing: Listing, found: Mapping[str, list[np.ndarray]], strips: bool) -> Decoded:
    names = in_byte_order(found)
    folders = class_folders(names if strips else _below_root(listing, names))
    classes = in_byte_order(set(folders))
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number[folder] for folder, name in zip(folders, names, strict=True) for _ in found[name]])
    # a class's rows stay together even where a name such as `a-b/` sorts between `a/` and `a/b`
    order = np.argsort(labels, kind="stable")
    rows = [row for name in names for row in found[name]]
    shapes = {row.shape[1:] for row in rows}
    if len(shapes) > 1:
        where = printable(listing.path)
        raise FaroutError(f"{where}: {len(shapes)} image sizes; say `resize: 32` and `crop: 32` in the YAML")
    images = np.stack([rows[i] for i in order])
    return Decoded(images, labels[order].astype(np.int64), tuple(map(printable, classes)))


def _below_root(listing: Listing, names: list[str]) -> list[str]:
    """Names without a folder that the archive is of, so that `photos.tar` of photos/ is what photos/ is."""
    if listing.archive is None:
        return names
    root = f"{re.sub(r'(?i)([.]tar([.][a-z0-9]+)?|[.](tgz|tbz2?|txz|zip))$', '', listing.path.name)}/"
    return [name.removeprefix(root) for name in names] if all(name.startswith(root) for name in names) else names


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
    folders = [_folder_name(name) for name in image_set.classes]
    if len(set(folders)) < len(folders):
        twice = next(name for name in folders if folders.count(name) > 1)
        raise FaroutError(f"two classes of {image_set.name} would have the folder {twice} in a pack: rename one")
    if any(len(name.encode()) > 150 for name in folders):
        raise FaroutError(
            f"a class of {image_set.name} has a name of more than 150 bytes, too long for a pack: rename it"
        )
    write_atomically(path, partial(_write_pack, image_set, path))
    write_checksum(path)


def _write_pack(image_set: ImageSet, path: Path, file: BinaryIO) -> None:
    if path.suffix == ".gz":
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as stream:
            _write_tar(image_set, stream)
    else:
        _write_tar(image_set, file)
    checksum_file(path).unlink(missing_ok=True)  # of what lay there before


def _write_tar(image_set: ImageSet, stream: BinaryIO | gzip.GzipFile) -> None:
    images = image_set.images.numpy()
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
    """A class as a folder that every system takes, and that is not hidden."""
    plain = re.sub(r"[^\w.,+-]", "_", name) or ONE_CLASS
    return f"_{plain.lstrip('.')}" if is_hidden(plain) else plain


def _lossless_webp(rows: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(rows))
    picture.save(buffer, "WEBP", lossless=True, exact=True, quality=80, method=4)
    return buffer.getvalue()
