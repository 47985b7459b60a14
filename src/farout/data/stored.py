"""A stored split: images.npy, labels.npy and meta.json, written whole, and opened only where the three fit together.

meta.json has the shape, the classes, facts for `ImageSet.info`, and the SHA-256 of the bytes of images and labels.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from farout.data.image_set import Decoded, ImageSet
from farout.errors import FaroutError
from farout.files import new_file

CHUNK = 4096  # images copied and hashed at a time


class Damaged(FaroutError):
    """What the store holds cannot be what was written; the message says which file and why."""


@dataclass(frozen=True)
class Stored:
    """images: (N, 3, H, W), mapped copy on write; labels: int64 (N,) or None; meta: what meta.json says."""

    images: np.ndarray
    labels: np.ndarray | None
    meta: dict[str, Any]


def write_stored(folder: Path, decoded: Decoded, stamp: str | None = None) -> None:
    """Write a split into an empty folder, by ordinary writes (a mapped file on a full disk kills the process).

    `stamp` is what the source was known by. Raises OSError.
    """
    facts = dict(decoded.facts)
    if decoded.names is not None:
        text = os.fsencode("".join(f"{name}\n" for name in decoded.names))
        with new_file(folder / "names.txt") as file:
            file.write(text)
        facts["names_sha256"] = hashlib.sha256(text).hexdigest()
    meta: dict[str, Any] = {
        "shape": list(decoded.images.shape),
        "dtype": str(decoded.images.dtype),
        "sha256": _write_array(folder / "images.npy", decoded.images),
        "classes": list(decoded.classes),
        "facts": facts,
        "origin": decoded.origin,
        "stamp": stamp,
    }
    if decoded.labels is not None:
        meta["labels_sha256"] = _write_array(folder / "labels.npy", np.asarray(decoded.labels, np.int64))
    with new_file(folder / "meta.json") as file:
        file.write(json.dumps(meta, indent=1).encode())


def _write_array(path: Path, array: np.ndarray) -> str:
    """Write an array as np.save does, a part at a time; returns the SHA-256 of its values."""
    digest = hashlib.sha256()
    with new_file(path) as file:
        descr = np.lib.format.dtype_to_descr(array.dtype)
        np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": array.shape})
        for start in range(0, len(array), CHUNK):
            chunk = np.ascontiguousarray(array[start : start + CHUNK])
            file.write(chunk.data)
            digest.update(chunk.data)
    return digest.hexdigest()


def open_stored(folder: Path) -> Stored:
    """Map what `folder` holds; reads no image. Raises Damaged where its files do not fit each other."""
    meta = read_meta(folder)
    try:
        # mode "c", copy on write: torch gets a writable array, and the file never changes through it
        images = np.load(folder / "images.npy", mmap_mode="c")
    except (OSError, ValueError, EOFError) as error:
        raise Damaged(f"{folder / 'images.npy'} cannot be read ({_first_line(error)})") from None
    if list(images.shape) != meta["shape"] or str(images.dtype) != meta["dtype"] or images.ndim != 4:
        found = f"{images.dtype} {images.shape}"
        raise Damaged(f"{folder / 'images.npy'} holds {found} instead of {meta['dtype']} {tuple(meta['shape'])}")
    return Stored(images, _labels(folder, meta), meta)


def read_meta(folder: Path) -> dict[str, Any]:
    """What meta.json says. Raises Damaged where that is not what `write_stored` writes."""
    path = folder / "meta.json"
    try:
        meta = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(f"{path} cannot be read ({_first_line(error)})") from None
    kinds = {"shape": list, "dtype": str, "sha256": str, "classes": list, "facts": dict}
    if not isinstance(meta, dict) or not all(isinstance(meta.get(key), kind) for key, kind in kinds.items()):
        raise Damaged(f"{path} lacks some of {', '.join(kinds)}")
    if not all(isinstance(name, str) for name in meta["classes"]):
        raise Damaged(f"{path} has classes that are no names")
    return meta


def _labels(folder: Path, meta: dict[str, Any]) -> np.ndarray | None:
    path, n, classes = folder / "labels.npy", meta["shape"][0], len(meta["classes"])
    if not path.is_file():
        if classes or meta.get("labels_sha256"):
            raise Damaged(f"{path} is not there")
        return None
    try:
        labels = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise Damaged(f"{path} cannot be read ({_first_line(error)})") from None
    if labels.shape != (n,) or labels.dtype != np.int64:
        raise Damaged(f"{path} holds {labels.dtype} {labels.shape} instead of int64 ({n},)")
    if labels.min(initial=0) < 0 or (classes and labels.max(initial=0) >= classes):
        raise Damaged(f"{path} holds labels outside of the {classes} classes")
    return labels


def _first_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next(iter(str(error).splitlines()), type(error).__name__)


_verified: set[tuple[Path, str, int, int]] = set()


def verify(image_set: ImageSet) -> None:
    """Compare a stored set's bytes with the hashes that were written with it, once in a process.

    A subset, and images that are read where they lie, have none. Raises Damaged naming the file. Labels of stores
    that were built before labels had a hash are taken as they are.
    """
    folder = image_set.folder
    if folder is None or not (folder / "images.npy").is_file():
        return
    status = (folder / "images.npy").stat()
    known = (folder, image_set.info["sha256"], status.st_mtime_ns, status.st_size)
    if known in _verified:
        return
    meta = read_meta(folder)
    for name, expected in (("images.npy", meta["sha256"]), ("labels.npy", meta.get("labels_sha256"))):
        if expected is not None and (seen := _content_hash(folder / name)) != expected:
            raise Damaged(f"{folder / name} has sha256 {seen[:16]}... of its values instead of {expected[:16]}...")
    _verified.add(known)


def _content_hash(path: Path) -> str:
    """The SHA-256 of an array's values, by reading its file from the header on."""
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError, EOFError) as error:
        raise Damaged(f"{path} cannot be read ({_first_line(error)})") from None
