"""Your own folder in ImageNet's layout, train/CLASS/*.JPEG and val/CLASS/*.JPEG, and a list of the classes to use.

Nothing is copied: the store keeps an index (which files, in which order, and a hash of their content).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from farout.data.catalogue import Definition
from farout.data.decode import READER, ResizeCrop, naming, read_file
from farout.data.image_files import ImageFiles, pool
from farout.data.image_set import ImageSet
from farout.data.listing import list_images, passed_over_line
from farout.data.own_sources import survey
from farout.errors import ConfigError, MissingDataError, UnwritableError
from farout.files import write_text, writing

log = logging.getLogger(__name__)
LAYOUT = "train/CLASS/*.JPEG and val/CLASS/*.JPEG"


def read_class_list(path: str | Path) -> list[str]:
    """Class folders' names (WNIDs) in byte order, from a file with one a line; # begins a comment.

    Raises ConfigError: no such file, an empty list, a class said twice, or what cannot be a folder's name.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"id_data.class_list={path} cannot be read ({reason}): one WNID a line") from None
    names = [name for line in lines if (name := line.partition("#")[0].strip())]
    if not names:
        raise ConfigError(f"id_data.class_list={path} names no class: one WNID a line")
    for i, name in enumerate(names):
        if name in names[:i] or name in (".", "..") or set(name) & set("/\\ \t"):
            raise ConfigError(f"id_data.class_list={path}: '{name}' is there twice or is no folder's name")
    return sorted(names, key=str.encode)


def name_with_classes(name: str, classes: Sequence[str]) -> str:
    """`imagenet100@1a2b3c4d`: the classes are part of the set's name, so that other classes are another set."""
    return f"{name}@{hashlib.sha256(chr(10).join(classes).encode()).hexdigest()[:8]}"


def write_index(place: Path, source: Path, classes: Sequence[str]) -> None:
    """Make `place`/meta.json say what `source` holds of `classes`, unless it does already.

    The first time every file is read, for its hash. Raises MissingDataError naming a class without folder or images.
    """
    source = source.expanduser().absolute()
    if not source.is_dir():
        raise MissingDataError(f"{source} is no folder: id_data.folder needs {LAYOUT}")
    wanted = {"source": str(source), "classes": list(classes), "stamp": _stamp(source, classes)}
    if _kept(place).items() >= wanted.items():
        return
    passed: Counter[str] = Counter()
    files = {name: _images_in(source / name, passed) for name in classes}
    if passed:
        log.warning("%s", passed_over_line(source, passed))
    log.info("reading the %s images of %s once, to know them again", f"{sum(map(len, files.values())):,}", source)
    index = {**wanted, "files": files, "sha256": _digest(source, files)}
    index |= {"passed_over": dict(passed)} if passed else {}
    try:
        with writing(place):
            place.mkdir(parents=True, exist_ok=True)
            (place / "hashes.npy").unlink(missing_ok=True)  # of the files that were there before
        write_text(place / "meta.json", json.dumps(index))
    except UnwritableError as error:
        why = str(error).replace("paths.outputs=FOLDER", "paths.data=FOLDER or FAROUT_DATA")
        raise UnwritableError(f"{source} has changed or is new, and {why}") from None


def _kept(place: Path) -> dict[str, Any]:
    """The index in the store; nothing where there is none, or what is there is none."""
    try:
        kept = json.loads((place / "meta.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    whole = isinstance(kept, dict) and {"source", "classes", "stamp", "files", "sha256"} <= kept.keys()
    return kept if whole and isinstance(kept["files"], dict) else {}


def _stamp(source: Path, classes: Sequence[str]) -> str:
    """Changes with the name, size or time of any file of a class."""
    absent = [name for name in classes if not (source / name).is_dir()]
    if absent:
        more = f" (and {len(absent) - 1} more)" if absent[1:] else ""
        raise MissingDataError(f"class {absent[0]}{more} of the class list has no folder in {source}: correct either")
    return hashlib.sha256("".join(survey(source / name).stamp for name in classes).encode()).hexdigest()


def _images_in(folder: Path, passed: Counter[str]) -> list[str]:
    listing = list_images(folder)
    passed.update(listing.passed_over)
    if not listing.names:
        raise MissingDataError(f"class {folder.name} of the class list has no image in {folder}: correct either")
    return listing.names


def _digest(source: Path, files: Mapping[str, Sequence[str]]) -> str:
    """SHA-256 over every file's name and content."""

    def line(name: str) -> str:
        with naming(source / name):
            return f"{name} {hashlib.sha256(read_file(source / name)).hexdigest()}\n"

    digest = hashlib.sha256()
    for folder, names in files.items():
        digest.update(
            "".join(pool().map(line, [f"{folder}/{name}" for name in names])).encode(errors="surrogateescape")
        )
    return digest.hexdigest()


def open_index(definition: Definition, place: Path) -> ImageSet:
    """The images that an index in the store lists, in the order of classes and names; none is read.

    Raises MissingDataError where the folder is gone; where it has changed it is read anew.
    """
    index = _kept(place)
    if not index:
        raise MissingDataError(f"{place / 'meta.json'} is damaged: add id_data.folder=FOLDER, and it is written again")
    write_index(place, Path(index["source"]), index["classes"])
    index = _kept(place)
    own, files = definition.own, index["files"]
    resize_crop = ResizeCrop(own["resize"], own["crop"], own.get("filter", "bilinear"))
    names = [f"{folder}/{name}" for folder, inside in files.items() for name in inside]
    labels = np.repeat(np.arange(len(files)), [len(inside) for inside in files.values()])
    images = ImageFiles(Path(index["source"]), names, resize_crop, f"{index['sha256']}/{resize_crop}/{READER}")
    info = {**definition.facts(), "split": definition.split, "n": len(names), "side": own["crop"]}
    info |= {"sha256": index["sha256"], "classes": list(files)}
    info |= {"passed_over": index["passed_over"]} if index.get("passed_over") else {}
    classes = tuple(files)
    return ImageSet(
        definition.name, definition.split, images, torch.from_numpy(labels), classes, False, info, folder=place
    )
