"""Data sets of a user's own, folders or archives: which part is a split, how classes are numbered, the images' size."""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from farout.data.decode import ResizeCrop, is_picture, naming, needs_head
from farout.data.image_set import Decoded
from farout.data.listing import Listing, folder_files, in_byte_order
from farout.data.pack import ONE_CLASS, class_folders, holds_strips
from farout.errors import ConfigError, printable

SPLIT_WORDS = frozenset(
    ("train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval", "evaluation")
)
HOLDOUT_SEED = 0
DEFAULT_SIDE = 32
WHOLE = "."


@dataclass(frozen=True)
class Files:
    """What a source consists of, without reading it: a hash of every file's name, size and time, and image names.

    The names of an archive's images are None: listing a compressed one reads all of it.
    """

    stamp: str
    images: list[str] | None


def survey(source: Path) -> Files:
    """Look at every file below a folder (links followed), or at the archive. Raises FaroutError, OSError."""
    names = list(folder_files(source, Counter())) if source.is_dir() else []
    digest = hashlib.sha256()
    for name in in_byte_order(names) if source.is_dir() else [""]:
        status = os.stat(source / name)
        digest.update(os.fsencode(f"{name}\0{status.st_mtime_ns}\0{status.st_size}\n"))
    images = [name for name in names if needs_head(name) or is_picture(name)]
    return Files(digest.hexdigest(), images if source.is_dir() else None)


def find_part(names: Iterable[str], split: str, chosen: str | None, source: Path) -> str:
    """The folder, ending in '/', that is a split of the source; '' where the source as a whole is the set.

    `chosen` is the folder that the YAML names for this split. Raises ConfigError where the source is divided into
    folders for splits but has none for this one: the whole would mix training and test images.
    """
    if chosen == WHOLE:
        return ""
    wanted, names = chosen or split, list(names)
    above = _wrapper(names, wanted)
    tops = _top_folders(name.removeprefix(above) for name in names)
    same = [top for top in tops if top == wanted] or [top for top in tops if top.casefold() == wanted.casefold()]
    divided = _is_divided(tops)
    if len(same) == 1 and (chosen or divided or wanted.casefold() not in SPLIT_WORDS):
        return f"{above}{same[0]}/"
    if not (same or chosen or divided):
        return ""
    raise ConfigError(_no_such_part(source, split, wanted, sorted(tops), bool(same)))


def is_divided(names: Iterable[str]) -> bool:
    """Whether a source has folders for splits."""
    names = list(names)
    above = _wrapper(names, "")
    return _is_divided(_top_folders(name.removeprefix(above) for name in names))


def _no_such_part(source: Path, split: str, wanted: str, tops: list[str], ambiguous: bool) -> str:
    where, there = printable(source), printable(", ".join(tops) or "no folders", 200)
    if ambiguous:
        return (
            f"{where}: {wanted} may be a class or a split: write `splits: {{{split}: {wanted}}}`, or `{{{split}: .}}`"
        )
    other = next((top for top in tops if top.casefold() not in (split, "train", "training")), tops[0] if tops else "F")
    return (
        f"{where} has {there} but no {wanted}: name the folder with `splits: {{{split}: {printable(other, 40)}}}` "
        "in the YAML of the set, or give a source without such folders and `splits: {holdout: 0.2}`"
    )


def _top_folders(names: Iterable[str]) -> dict[str, bool]:
    """Folders at the top, and whether they hold folders in turn."""
    tops: dict[str, bool] = {}
    for name in names:
        top, below, rest = name.partition("/")
        if below:
            tops[top] = tops.get(top, False) or "/" in rest
    return tops


def _is_divided(tops: dict[str, bool]) -> bool:
    """Whether these are folders of splits: all are called so, or one that is has class folders."""
    called = {top: inside for top, inside in tops.items() if top.casefold() in SPLIT_WORDS}
    return bool(called) and (len(called) == len(tops) or any(called.values()))


def _wrapper(names: Sequence[str], wanted: str) -> str:
    """The folder that holds everything, as in an archive of it; '' where there is none or it is a split itself."""
    above = ""
    while names:
        tops = {name.removeprefix(above).partition("/")[0] for name in names}
        (top, *others) = tops
        inside = f"{above}{top}/"
        is_split = top.casefold() in SPLIT_WORDS | {wanted.casefold()}
        if others or is_split or not all(name.startswith(inside) for name in names):
            break
        above = inside
    return above


def within(listing: Listing, part: str) -> Listing:
    """The images below one folder of a source, named from there."""
    names = [name.removeprefix(part) for name in listing.names if name.startswith(part)]
    heads = {name: listing.heads[part + name] for name in names if part + name in listing.heads}
    if listing.archive is None:
        return replace(listing, path=listing.path / part, names=names, heads=heads)
    return replace(listing, names=names, heads=heads, members={name: listing.members[part + name] for name in names})


def classes_of(listing: Listing) -> tuple[str, ...]:
    """The names of the class folders in byte order, as `read_listed` numbers them."""
    return tuple(map(printable, in_byte_order(set(class_folders(listing.names)))))


def numbered_as(decoded: Decoded, training: tuple[str, ...], where: str) -> Decoded:
    """With the labels that the classes have in training. Raises ConfigError for a class that training lacks.

    Images without class folders beside a training set that has some get no labels.
    """
    if training == (ONE_CLASS,) or decoded.classes == training:
        return decoded
    if decoded.classes == (ONE_CLASS,) and ONE_CLASS not in training:
        return replace(decoded, labels=None, classes=())
    unknown = sorted(set(decoded.classes) - set(training))
    if unknown:
        known = printable(", ".join(training), 200)
        raise ConfigError(
            f"{where}: class {unknown[0]} is unknown to training, which has {known}: rename its folder or take it away"
        )
    assert decoded.labels is not None
    number = np.array([training.index(name) for name in decoded.classes])
    return replace(decoded, labels=number[decoded.labels], classes=training)


def held_out(decoded: Decoded, share: float, split: str) -> Decoded:
    """The part of a whole set that is `train` or `test`: of every class a share is for the test, drawn once.

    A class with one image has it in training; with more, it has at least one in either.
    """
    assert decoded.labels is not None
    test = np.zeros(len(decoded.labels), bool)
    for label, name in enumerate(decoded.classes):
        rows = np.flatnonzero(decoded.labels == label)
        seed = int.from_bytes(hashlib.sha256(f"{HOLDOUT_SEED} {name}".encode()).digest()[:8], "big")
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        test[np.random.default_rng(seed).permutation(rows)[:count]] = True
    rows = np.flatnonzero(test if split == "test" else ~test)
    return replace(decoded, images=decoded.images[rows], labels=decoded.labels[rows])


def sized(own: dict[str, Any], listing: Listing) -> tuple[ResizeCrop, str]:
    """How the images of a source come to their size, and the same in words for the log and the record.

    What the YAML declares, and nothing else; else to the side that the other sets have (`side`), as the Detector
    does; else as they are, where all images of the source are squares of one size; else 32 x 32.
    """
    declared = {key: own[key] for key in ("resize", "crop", "filter") if own.get(key) is not None}
    if declared.keys() & {"resize", "crop"}:
        said = ", ".join(f"{key}: {value}" for key, value in declared.items())
        return ResizeCrop(**declared), f"{said}, as its YAML says"
    side = own.get("side")
    if side is None and (uniform := uniform_side(listing)) is not None:
        return ResizeCrop(), f"all images are {uniform} x {uniform} and stay so"
    why = "its YAML says nothing and the images have several sizes" if side is None else "the side of the ID set"
    side = side or DEFAULT_SIDE
    return ResizeCrop(side, side, **declared), f"shorter side to {side}, centre crop {side} ({why})"


def uniform_side(listing: Listing) -> int | None:
    """The side of all images where they are squares of one size; reads no further than the first that is not."""
    seen: int | None = None
    strips = holds_strips(listing)
    for width, height in _sizes(listing):
        if (width != height and not strips) or seen not in (None, width):
            return None
        seen = width
    return seen


def _sizes(listing: Listing) -> Iterator[tuple[int, int]]:
    """(width, height) of every image file as it is stored; of a folder's files only the heads are read."""
    if listing.archive is None:
        for name in listing.names:
            with naming(listing.where(name)), Image.open(listing.path / name) as image:
                size = image.size
            yield size
        return
    for name, content in listing.contents():
        with naming(listing.where(name)), Image.open(io.BytesIO(content)) as image:
            size = image.size
        yield size
