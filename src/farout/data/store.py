"""The store: every split once as a memory-mapped array, built under a lock, moved into place when complete.

DataPaths.store/NAME/SPLIT-KEY/{images.npy, labels.npy, meta.json}; KEY is a hash of the definition, and of what your
own images consist of, so that a changed definition or source never meets an old array. What is damaged is moved aside
and built again.
"""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from farout.data.catalogue import Definition, define, function_of, split_names
from farout.data.class_folders import LAYOUT, open_index, write_index
from farout.data.image_set import Decoded, ImageSet
from farout.data.listing import Listing, list_images
from farout.data.own_sources import (
    HOLDOUT_SEED,
    classes_of,
    find_part,
    held_out,
    is_divided,
    numbered_as,
    sized,
    within,
)
from farout.data.pack import ResizeCrop, holds_strips, read_listed, select_classes
from farout.data.pack_files import checked, same_file
from farout.data.paths import DataPaths
from farout.data.stored import Damaged, open_stored, read_meta, verify, write_stored
from farout.errors import ConfigError, FaroutError, MissingDataError, UnwritableError, printable
from farout.files import BUILDING, REFUSALS, save_json, set_aside, whole_folder

__all__ = ["available", "build", "is_built", "open_dataset", "open_verified", "register_folder", "verify"]

log = logging.getLogger(__name__)


def open_dataset(name: str, split: str, paths: DataPaths, side: int | None = None) -> ImageSet:
    """Open one split; build it first where a pack, an own source or a generator can provide it.

    `side` is what generated images, and your own that declare no size, are brought to; None: their own side where all
    of them have one, else 32. Sets of the catalogue have theirs.

    Raises ConfigError for an unknown name or split and MissingDataError where only a download would help.
    """
    definition = _known(define(name, split, paths, side), paths)
    folder = store_folder(definition, paths)
    if definition.own.get("folder"):
        if not _is_built(folder):
            raise MissingDataError(_how_to_get(definition))
        return open_index(definition, folder)
    if _is_built(folder):
        try:
            reason = _changed(definition, folder, paths)
            if reason is None:
                return _open(definition, folder)
            log.info("building %s (%s) anew: %s", definition.title, definition.split, reason)
            build(definition, paths, _provider_or_error(definition, paths), force=True)
        except Damaged as damage:
            _replace_damaged(definition, paths, damage)
    else:
        build(definition, paths, _provider_or_error(definition, paths))
    return _open(definition, folder)


def open_verified(name: str, split: str, paths: DataPaths, side: int | None = None) -> ImageSet:
    """`open_dataset`, and the stored bytes are those that were written, looked at once in a process.

    What is damaged is moved aside and built again, and a line says so.
    """
    image_set = open_dataset(name, split, paths, side)
    try:
        verify(image_set)
    except Damaged as damage:
        _replace_damaged(_known(define(name, split, paths, side), paths), paths, damage, image_set)
        return open_dataset(name, split, paths, side)
    return image_set


def _known(definition: Definition, paths: DataPaths) -> Definition:
    """The same set as it is stored without a wanted side, where it has that side anyway."""
    if definition.own.get("source") is None or "side" not in definition.own:
        return definition
    plain = replace(definition, own={key: value for key, value in definition.own.items() if key != "side"})
    folder = store_folder(plain, paths)
    with suppress(Damaged):
        if _is_built(folder) and read_meta(folder)["shape"][-1] == definition.own["side"]:
            return plain
    return definition


def _provider_or_error(definition: Definition, paths: DataPaths) -> Provider:
    provide = provider(definition, paths)
    if provide is None:
        raise MissingDataError(_how_to_get(definition))
    return provide


def _replace_damaged(definition: Definition, paths: DataPaths, damage: Damaged, seen: ImageSet | None = None) -> None:
    """Move a damaged store aside and build it again, unless another process has done so; a line says so.

    Raises MissingDataError where there is nothing to build it from.
    """
    folder = store_folder(definition, paths)
    with _writing(paths), FileLock(_lock_of(folder)):
        if _is_sound(definition, folder, seen):
            return
        place = set_aside(folder) if folder.exists() else None
    said = f"{damage}: moved to {place}" if place else str(damage)
    provide = provider(definition, paths)
    if provide is None:
        raise MissingDataError(f"{said}; {_how_to_get(definition)}")
    log.warning("%s, and built again", said)
    build(definition, paths, provide)


def _is_sound(definition: Definition, folder: Path, seen: ImageSet | None) -> bool:
    try:
        opened = _open(definition, folder)
        if seen is not None:
            verify(opened)
    except Damaged:
        return False
    return True


def _changed(definition: Definition, folder: Path, paths: DataPaths) -> str | None:
    """Why a stored split is no longer what it was built from: another base, or another file as its pack."""
    meta = read_meta(folder)
    base, built_from = definition.base, meta["facts"].get("base_sha256")
    if base is not None and built_from is not None and (base.own.get("source") or is_built(base, paths)):
        side = base.own.get("side") or (base.own.get("make") or {}).get("side")
        if open_dataset(base.name, base.split, paths, side).info["sha256"] != built_from:
            return f"{base.title} has changed"
    pack = paths.packs / definition.own["pack"] if paths.packs is not None and definition.own.get("pack") else None
    origin = meta.get("origin")
    if pack is None or not isinstance(origin, dict) or not pack.is_file() or same_file(pack, origin):
        return None
    try:
        seen = checked(pack, definition.own.get("pack_sha256"))
    except FaroutError as error:
        log.warning("%s; %s stays as it was built from the pack before", error, definition.title)
        return None
    if seen["sha256"] == origin.get("sha256"):
        with suppress(UnwritableError):  # the same content at another time: not hashed again
            save_json(folder / "meta.json", {**meta, "origin": seen})
        return None
    return f"{pack.name} is another file than before"


def available(name: str, split: str, paths: DataPaths) -> bool:
    """Whether `open_dataset` would succeed without a download; reads no images."""
    definition = define(name, split, paths)
    if _is_built(store_folder(definition, paths)):
        return True
    if definition.base is not None:
        return available(definition.base.name, split, paths)
    return provider(definition, paths) is not None


def is_built(definition: Definition, paths: DataPaths) -> bool:
    """Whether the store holds this split."""
    return _is_built(store_folder(definition, paths))


def store_folder(definition: Definition, paths: DataPaths) -> Path:
    return paths.store / definition.name / f"{definition.split}-{definition.key}"


def _lock_of(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.lock"


def register_folder(name: str, source: Path, classes: Sequence[str], paths: DataPaths) -> None:
    """Let `open_dataset(name, ...)` find the class folders below `source`; raises MissingDataError as `write_index`."""
    for split in split_names(name, paths):
        definition = define(name, split, paths)
        write_index(store_folder(definition, paths), source / definition.own["folder"], classes)


def _is_built(folder: Path) -> bool:
    return (folder / "meta.json").is_file()  # folders appear complete or not at all


Provider = Callable[[], Decoded]


def provider(definition: Definition, paths: DataPaths) -> Provider | None:
    """The way to obtain a split without a network, or None."""
    own = definition.own
    if own.get("source"):
        if not Path(own["source"]).exists():
            return None
        return functools.partial(_from_source, definition, paths)
    if own.get("pack") and paths.packs is not None and (paths.packs / own["pack"]).is_file():
        return functools.partial(from_images, definition, paths.packs / own["pack"])
    if own.get("make"):
        return functools.partial(_make, definition, paths)
    return None


def _make(definition: Definition, paths: DataPaths) -> Decoded:
    arguments = dict(definition.own["make"])
    function = function_of(arguments.pop("_target_"))
    return function(split=definition.split, paths=paths, **arguments)


def resize_crop_of(definition: Definition) -> ResizeCrop:
    return ResizeCrop(
        definition.own.get("resize"), definition.own.get("crop"), definition.own.get("filter", "bilinear")
    )


@contextmanager
def _naming_the_set(definition: Definition) -> Iterator[None]:
    try:
        yield
    except FaroutError as error:
        raise type(error)(f"{definition.name}: {error}") from None


def _from_source(definition: Definition, paths: DataPaths) -> Decoded:
    """A split of your own images; its facts say which part of the source it is and how they came to their size."""
    with _naming_the_set(definition):
        return _part_of_source(definition, Path(definition.own["source"]), paths)


def _part_of_source(definition: Definition, source: Path, paths: DataPaths) -> Decoded:
    own, everything = definition.own, list_images(source)
    part = "" if "holdout" in own else find_part(everything.names, definition.split, own.get("part"), source)
    resize_crop, sizes = sized(own, everything)
    log.info("%s (%s): %s", definition.title, definition.split, sizes)
    decoded = _read(definition, within(everything, part), resize_crop)
    decoded.facts |= {"built_from": printable(source.name), "sizes": sizes}
    if "holdout" in own:
        if is_divided(everything.names):
            raise ConfigError(
                f"{printable(source)}: `splits: {{holdout: ...}}` is for a source that has no folders for its splits"
            )
        decoded = held_out(decoded, own["holdout"], definition.split)
        decoded.facts["splits"] = {"holdout": own["holdout"], "seed": HOLDOUT_SEED}
    else:
        decoded.facts["splits"] = {definition.split: part.rstrip("/") or "whole"}
        training = _training_classes(definition, everything, part, paths)
        decoded = decoded if training is None else numbered_as(decoded, training, definition.split)
    return select_classes(decoded, own["drop_classes"]) if own.get("drop_classes") else decoded


def _training_classes(
    definition: Definition, everything: Listing, part: str, paths: DataPaths
) -> tuple[str, ...] | None:
    """The classes of the training split, by which those of the others are numbered; None where there is none."""
    if definition.split == "train":
        return None
    try:
        training = define(definition.name, "train", paths)
        source = Path(training.own.get("source") or "")
        other = everything if source == everything.path else list_images(source)
        its_part = find_part(other.names, "train", training.own.get("part"), source)
    except FaroutError:  # no training split: these are images of their own
        return None
    if other is everything and its_part == part:
        return None
    return classes_of(within(other, its_part))


def from_images(definition: Definition, path: Path, names: list[str] | None = None) -> Decoded:
    """A split from a pack, a folder or an archive of class folders.

    Where the catalogue chooses among the files (`choose`), `names` or a draw from its seed says which; the
    list and its hash are kept. A pack holds what was chosen when it was written.
    """
    own = definition.own
    origin = checked(path, own.get("pack_sha256")) if path.name == own.get("pack") and path.is_file() else None
    with _naming_the_set(definition):
        decoded = _read(definition, list_images(path), resize_crop_of(definition), names)
    if own.get("drop_classes"):
        decoded = select_classes(decoded, own["drop_classes"])
    decoded.origin = origin
    decoded.facts.setdefault("built_from", printable(path.name))
    return decoded


def _read(definition: Definition, listing: Listing, resize_crop: ResizeCrop, names: list[str] | None = None) -> Decoded:
    own, keep = definition.own, None
    if own.get("choose") and not holds_strips(listing):
        names = _listed(names, listing.names) if names else _draw(listing.names, **own["choose"])
        wanted = set(names)
        keep = lambda name: name in wanted or Path(name).name in wanted  # noqa: E731
    decoded = read_listed(listing, resize_crop, keep)
    if keep is not None:
        decoded.names = names
    return decoded


def _listed(wanted: list[str], names: list[str]) -> list[str]:
    here = {*names, *(Path(name).name for name in names)}
    absent = [name for name in wanted if name not in here]
    if absent:
        count = f"{len(absent):,} of the {len(wanted):,} listed images are"
        raise FaroutError(f"{count} not there, the first is {absent[0]}: correct the list, or give the other files too")
    return wanted


def _draw(names: list[str], count: int, seed: int) -> list[str]:
    if len(names) < count:
        raise FaroutError(f"{count:,} images are to be chosen but here are only {len(names):,}")
    rows = np.random.default_rng(seed).choice(len(names), count, replace=False)
    return [names[i] for i in np.sort(rows)]


def _how_to_get(definition: Definition) -> str:
    wanted = f"{definition.title}, split {definition.split}"
    if definition.own.get("folder"):
        return f"{wanted} is missing: add id_data.folder=FOLDER, with {LAYOUT}, and id_data.class_list=FILE"
    if definition.own.get("source"):
        return f"{wanted} is missing: its source {definition.own['source']} does not exist"
    base = f"python scripts/prepare_data.py {definition.name}"
    by_hand = f"{base} --split {definition.split} --from FILE_OR_FOLDER"
    command = f"{base} --split {definition.split}" if definition.own.get("optional") else base
    if definition.own.get("files"):
        return f"{wanted} is missing: run `{command}` to download it, or `{by_hand}`"
    pack = f", or put {definition.own['pack']} into the packs folder" if definition.own.get("pack") else ""
    return f"{wanted} is missing: run `{by_hand}`{pack}"


def build(
    definition: Definition, paths: DataPaths, provide: Provider, *, strict: bool = True, force: bool = False
) -> Path:
    """Build one split unless another process has done so meanwhile; returns its folder.

    `strict` refuses a count other than the catalogue's; `force` replaces what is there. Whatever fails, nothing half
    made is left. Raises UnwritableError where the disk is full or read-only, and what `provide` raises.
    """
    folder = store_folder(definition, paths)
    lock = FileLock(_lock_of(folder))
    with _writing(paths):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        if _is_built(folder) and not force:
            return folder
        log.info("building %s (%s) in %s", definition.title, definition.split, folder.parent)
        _remove_debris(folder)
        decoded = provide()
        _check(definition, decoded, strict)
        with _writing(paths), whole_folder(folder) as temporary:
            write_stored(temporary, decoded, definition.stamp)
        if definition.stamp is not None:
            _remove_older(folder, definition.stamp)
    finally:
        lock.release()
    return folder


@contextmanager
def _writing(paths: DataPaths) -> Iterator[None]:
    """Whatever the disk refuses becomes one line about the store."""
    try:
        yield
    except OSError as error:
        why = REFUSALS.get(error.errno or 0, (error.strerror or str(error), ""))[0]
        raise UnwritableError(
            f"the store {paths.store} cannot be written ({why}): make room there, or name another folder with "
            "paths.data=FOLDER or FAROUT_DATA"
        ) from None


def _remove_debris(folder: Path) -> None:
    """What killed builds of this split left; of other versions of it only where nobody builds them now."""
    split = folder.name.rpartition("-")[0]
    for debris in folder.parent.glob(f".{split}-*{BUILDING}*"):
        version = debris.name[1:].partition(BUILDING)[0]
        if version == folder.name:  # nobody else builds while we hold the lock
            shutil.rmtree(debris, ignore_errors=True)
            continue
        with suppress(Timeout, OSError), FileLock(_lock_of(folder.with_name(version)), timeout=0):
            shutil.rmtree(debris, ignore_errors=True)


def _remove_older(folder: Path, stamp: str) -> None:
    """Of your own images keep what was built from the files as they are, and of what came before the newest.

    That one may still be in use by another process.
    """
    others = []
    for other in folder.parent.glob(f"{folder.name.rpartition('-')[0]}-*"):
        with suppress(Damaged, OSError):
            if other != folder and _is_built(other) and read_meta(other).get("stamp") != stamp:
                others.append((other.stat().st_mtime_ns, other))
    for _, old in sorted(others)[:-1]:
        with suppress(Timeout, OSError), FileLock(_lock_of(old), timeout=0):
            shutil.rmtree(old, ignore_errors=True)
            _lock_of(old).unlink(missing_ok=True)


def _check(definition: Definition, decoded: Decoded, strict: bool) -> None:
    images = decoded.images
    if images.dtype not in (np.uint8, np.float32) or images.ndim != 4 or images.shape[1] != 3 or len(images) == 0:
        found = f"{images.dtype} {images.shape}"
        raise FaroutError(f"{definition.title}: expected uint8 or float32 (N, 3, H, W), got {found}")
    height, width = images.shape[2:]
    if height != width:
        raise ConfigError(
            f"{definition.title}: its images are {width} x {height} pixels: add `crop: {min(height, width)}`, the side "
            "of a square in their centre, to the YAML of the set"
        )
    _check_count(definition, decoded, strict)


def _check_count(definition: Definition, decoded: Decoded, strict: bool) -> None:
    n, expected = len(decoded.images), definition.own.get("size")
    if expected is None or n == expected:
        return
    if decoded.origin is not None and n == definition.own.get("pack_size"):
        decoded.facts["part"] = f"{n:,} of {expected:,} images"
        return
    message = f"{definition.title} ({definition.split}) should have {expected:,} images but here are {n:,}"
    if strict:
        raise FaroutError(message)
    log.warning(message)


def _open(definition: Definition, folder: Path) -> ImageSet:
    stored = open_stored(folder)
    images, meta = stored.images, stored.meta
    info: dict[str, Any] = {**definition.facts(), "split": definition.split, "n": len(images)}
    info |= {"side": images.shape[-1], "sha256": meta["sha256"], **meta["facts"]}
    return ImageSet(
        name=definition.name,
        split=definition.split,
        images=torch.from_numpy(images),
        labels=None if stored.labels is None else torch.from_numpy(stored.labels),
        classes=tuple(meta["classes"]),
        raw=images.dtype == np.float32,
        info=info,
        folder=folder,
    )
