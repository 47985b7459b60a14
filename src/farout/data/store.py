"""The store: every split once as a memory-mapped array, built under a lock, moved into place when complete.

DataPaths.store/NAME/SPLIT-KEY/{images.npy, labels.npy, meta.json}; KEY is a hash of the definition, so that a
changed definition never meets an old array.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from farout.data.catalogue import DataPaths, Definition, define, split_names
from farout.data.class_folders import LAYOUT, open_index, write_index
from farout.data.image_set import Decoded, ImageSet
from farout.data.listing import list_images
from farout.data.pack import Handling, holds_strips, read_listed, select_classes
from farout.data.pack_files import checked
from farout.errors import ConfigError, FaroutError, MissingDataError, printable

log = logging.getLogger(__name__)
CHUNK = 4096  # images copied and hashed at a time


def open_dataset(name: str, split: str, paths: DataPaths) -> ImageSet:
    """Open one split; build it first where a pack, an own source or a generator can provide it.

    Raises ConfigError for an unknown name or split and MissingDataError where only a download would help.
    """
    definition = define(name, split, paths)
    folder = store_folder(definition, paths)
    if not _is_built(folder):
        provide = provider(definition, paths)
        if provide is None:
            raise MissingDataError(_how_to_get(definition))
        build(definition, paths, provide)
    return _open(definition, folder)


def available(name: str, split: str, paths: DataPaths) -> bool:
    """Whether `open_dataset` would succeed without a download; reads no images."""
    definition = define(name, split, paths)
    if _is_built(store_folder(definition, paths)):
        return True
    base = (definition.own.get("make") or {}).get("base")
    if base is not None:
        return available(base, split, paths)
    return provider(definition, paths) is not None


def is_built(definition: Definition, paths: DataPaths) -> bool:
    """Whether the store holds this split."""
    return _is_built(store_folder(definition, paths))


def store_folder(definition: Definition, paths: DataPaths) -> Path:
    return paths.store / definition.name / f"{definition.split}-{definition.key}"


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
        return functools.partial(from_images, definition, Path(own["source"]))
    if own.get("pack") and paths.packs is not None and (paths.packs / own["pack"]).is_file():
        return functools.partial(from_images, definition, paths.packs / own["pack"])
    if own.get("make"):
        return functools.partial(_make, definition, paths)
    return None


def _make(definition: Definition, paths: DataPaths) -> Decoded:
    arguments = dict(definition.own["make"])
    function = locate(arguments.pop("_target_"))
    return function(split=definition.split, paths=paths, **arguments)


def locate(target: str) -> Callable[..., Decoded]:
    """The function of farout that a dotted name in the catalogue points to; nothing else is imported.

    Raises ConfigError.
    """
    module, _, name = target.rpartition(".")
    if module.partition(".")[0] != "farout":
        raise ConfigError(f"the catalogue names {target}, which is no function of farout: put it below src/farout")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"the catalogue names a function that is not there: {target} ({error})") from error
    if not inspect.isfunction(found) or not found.__module__.startswith("farout."):
        raise ConfigError(f"the catalogue names {target}, which is no function of farout: put it below src/farout")
    return found


def handling_of(definition: Definition) -> Handling:
    return Handling(definition.own.get("resize"), definition.own.get("crop"), definition.own.get("filter", "bilinear"))


def from_images(definition: Definition, path: Path, names: list[str] | None = None) -> Decoded:
    """A split from a pack, a folder or an archive of class folders.

    Where the catalogue chooses among the files (`choose`), `names` or a draw from its seed says which; the
    list and its hash are kept. A pack holds what was chosen when it was written.
    """
    own, keep = definition.own, None
    origin = checked(path, own.get("pack_sha256")) if path.name == own.get("pack") and path.is_file() else None
    try:
        listing = list_images(path)
        if own.get("choose") and not holds_strips(listing):
            names = _listed(names, listing.names) if names else _draw(listing.names, **own["choose"])
            wanted = set(names)
            keep = lambda name: name in wanted or Path(name).name in wanted  # noqa: E731
        decoded = read_listed(listing, handling_of(definition), keep)
    except FaroutError as error:
        raise type(error)(f"{definition.name}: {error}") from None
    decoded.origin = origin
    if keep is not None:
        decoded.names = names
    if own.get("drop_classes"):
        decoded = select_classes(decoded, own["drop_classes"])
    decoded.facts.setdefault("built_from", printable(path.name))
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

    `strict` refuses a count other than the catalogue's; `force` replaces what is there.
    """
    folder = store_folder(definition, paths)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        if _is_built(folder) and not force:
            return folder
        log.info("building %s (%s) in %s", definition.title, definition.split, folder.parent)
        # what a killed build left: nobody else builds while we hold the lock
        for stale in folder.parent.glob(f".{folder.name}-building-*"):
            shutil.rmtree(stale, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-building-"))
        try:
            decoded = provide()
            _check_count(definition, decoded, strict)
            _write(temporary, decoded, definition)
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


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


def _write(folder: Path, decoded: Decoded, definition: Definition) -> None:
    images = decoded.images
    if images.dtype not in (np.uint8, np.float32) or images.ndim != 4 or images.shape[1] != 3:
        found = f"{images.dtype} {images.shape}"
        raise FaroutError(f"{definition.title}: expected uint8 or float32 (N, 3, H, W), got {found}")
    digest = hashlib.sha256()
    out = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=images.dtype, shape=images.shape)
    for start in range(0, len(images), CHUNK):
        chunk = np.ascontiguousarray(images[start : start + CHUNK])
        out[start : start + CHUNK] = chunk
        digest.update(chunk.data)
    out.flush()
    if decoded.labels is not None:
        np.save(folder / "labels.npy", np.asarray(decoded.labels, np.int64))
    facts = dict(decoded.facts)
    if decoded.names is not None:
        text = "".join(f"{name}\n" for name in decoded.names)
        (folder / "names.txt").write_bytes(os.fsencode(text))
        facts["names_sha256"] = hashlib.sha256(os.fsencode(text)).hexdigest()
    meta = {
        "shape": list(images.shape),
        "dtype": str(images.dtype),
        "sha256": digest.hexdigest(),
        "classes": list(decoded.classes),
        "facts": facts,
        "origin": decoded.origin,
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1))


def _open(definition: Definition, folder: Path) -> ImageSet:
    if definition.own.get("folder"):
        return open_index(definition, folder)
    meta = json.loads((folder / "meta.json").read_text())
    # mode "c", copy on write: torch gets a writable array, and the file never changes through it
    images = np.load(folder / "images.npy", mmap_mode="c")
    if list(images.shape) != meta["shape"]:
        raise FaroutError(f"{folder} is damaged: delete it and it is built again")
    labels = folder / "labels.npy"
    info: dict[str, Any] = {**definition.facts(), "split": definition.split, "n": len(images)}
    info |= {"side": images.shape[-1], "sha256": meta["sha256"], **meta["facts"]}
    return ImageSet(
        name=definition.name,
        split=definition.split,
        images=torch.from_numpy(images),
        labels=torch.from_numpy(np.load(labels)) if labels.is_file() else None,
        classes=tuple(meta["classes"]),
        raw=images.dtype == np.float32,
        info=info,
        folder=folder,
    )
