"""What scripts/prepare_data.py does: builds the store from downloads or from files at hand."""

from __future__ import annotations

import functools
import logging
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from farout.data.catalogue import Definition, define, function_of, load_entry, split_names
from farout.data.download import Progress, fetch, file_name, silent, verify
from farout.data.image_set import Decoded
from farout.data.listing import list_images
from farout.data.own_sources import find_part
from farout.data.pack import select_classes
from farout.data.paths import DataPaths
from farout.data.store import (
    Provider,
    available,
    build,
    from_images,
    is_built,
    open_dataset,
    provider,
    resize_crop_of,
)
from farout.errors import ConfigError, FaroutError, MissingDataError

log = logging.getLogger(__name__)


def download_folder(name: str, paths: DataPaths) -> Path:
    return paths.store / ".downloads" / name


def prepare(
    name: str,
    splits: list[str],
    paths: DataPaths,
    *,
    progress: Progress = silent,
    names: list[str] | None = None,
    force: bool = False,
    keep: bool = False,
) -> list[str]:
    """Build `splits` of data set `name`, without a network where that is possible; returns those newly built.

    Archives are deleted once their splits are built, unless `keep`. Raises FaroutError.
    """
    built = []
    for split in splits:
        definition = define(name, split, paths)
        in_part = is_built(definition, paths) and _is_part(definition, paths)
        if is_built(definition, paths) and not in_part and not force:
            continue
        provide = None if names else provider(definition, paths)
        if definition.own.get("pack_size") and definition.own.get("files"):  # the pack is a part, all of it is wanted
            built += _whole_or_part(definition, paths, progress, provide, force)
            continue
        if provide is not None:
            build(definition, paths, provide, force=force)
        else:
            _download_and_build(definition, paths, progress, names, force)
        built.append(split)
    if not keep:
        shutil.rmtree(download_folder(name, paths), ignore_errors=True)
    return built


def _is_part(definition: Definition, paths: DataPaths) -> bool:
    """Whether the store holds what a pack has of a larger set."""
    return "part" in open_dataset(definition.name, definition.split, paths).info


def _whole_or_part(
    definition: Definition, paths: DataPaths, progress: Progress, pack: Provider | None, force: bool
) -> list[str]:
    """The official set; where it cannot be had, what the pack holds of it, and a line says so."""
    try:
        _download_and_build(definition, paths, progress, None, force=True)
    except FaroutError as error:
        if pack is None:
            raise
        log.warning("only a part of %s (%s): %s", definition.title, definition.split, error)
        if is_built(definition, paths) and not force:
            return []
        build(definition, paths, pack, force=force)
    return [definition.split]


def _download_and_build(
    definition: Definition, paths: DataPaths, progress: Progress, names: list[str] | None, force: bool
) -> None:
    wanted = definition.own.get("files")
    if not wanted:
        raise MissingDataError(f"{definition.title} has no download address: give --from FILE_OR_FOLDER")
    folder, files, seen = download_folder(definition.name, paths), [], {}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        for item in wanted:
            target = folder / official_name(item)
            if not target.is_file():  # verified before it got its name; another split may have fetched it
                fetch(item["urls"], item.get("checksum"), target, progress)
            files.append(target)
            seen[target.name] = verify(target, item.get("checksum"))
    build(definition, paths, functools.partial(read_official, definition, files, seen, names), force=force)


def official_name(item: dict[str, Any]) -> str:
    return item.get("name") or file_name(item["urls"][0])


def read_official(
    definition: Definition, files: list[Path], seen: dict[str, str], names: list[str] | None = None
) -> Decoded:
    """Read verified official files with the reader that the catalogue names; `seen` are their checksums."""
    arguments = dict(definition.own["read"])
    read = function_of(arguments.pop("_target_"))
    if definition.own.get("choose"):
        decoded = from_images(definition, files[0], names)
    else:
        decoded = read(files=files, split=definition.split, resize_crop=resize_crop_of(definition), **arguments)
    if definition.own.get("drop_classes") and not definition.own.get("choose"):
        decoded = select_classes(decoded, definition.own["drop_classes"])
    decoded.facts |= {"built_from": ", ".join(f.name for f in files), "archives": seen}
    return decoded


def prepare_from(
    name: str,
    splits: list[str],
    path: Path,
    paths: DataPaths,
    *,
    names: list[str] | None = None,
    force: bool = False,
) -> list[str]:
    """Build `splits` from `path`: official archives (known by name, verified), a pack, or images."""
    if not path.exists():
        raise MissingDataError(f"--from {path}: there is no such file or folder")
    if load_entry(name, paths).get("source"):
        raise ConfigError(f"{name} reads the source that its YAML names: write that path there instead of --from")
    built = []
    for split in splits:
        definition = define(name, split, paths)
        if is_built(definition, paths) and not force:
            continue
        files = _official_files(definition, path)
        if files:
            pinned = {official_name(i): i.get("checksum") for i in definition.own["files"]}
            seen = {f.name: verify(f, pinned[f.name]) for f in files}
            build(
                definition,
                paths,
                functools.partial(read_official, definition, files, seen, names),
                force=force,
            )
        else:
            source = _images_of_split(path, split, several=len(splits) > 1)
            # images by hand may be another selection than the paper's: their number is said, not refused
            provide = functools.partial(from_images, definition, source, names)
            build(definition, paths, provide, strict=False, force=force)
        built.append(split)
    return built


def _official_files(definition: Definition, path: Path) -> list[Path]:
    wanted = [official_name(item) for item in definition.own.get("files") or []]
    folder = path if path.is_dir() else path.parent
    if not wanted or (path.is_file() and path.name not in wanted):
        return []
    here = [folder / name for name in wanted if (folder / name).is_file()]
    if path.is_file() and len(here) < len(wanted):
        raise FaroutError(f"{definition.title} needs {', '.join(wanted)} in one folder")
    return here if len(here) == len(wanted) else []


def _images_of_split(path: Path, split: str, several: bool) -> Path:
    if path.is_dir() and (path / split).is_dir():
        return path / split
    if several:
        raise ConfigError(f"say which split {path} is, with --split: it has no folder '{split}'")
    return path


def splits_to_prepare(name: str, chosen: str | None, paths: DataPaths) -> list[str]:
    """The split asked for, or all but `optional` ones; your own source has those that it is divided into, or `test`.

    Raises ConfigError for a set that is read where it lies: there is nothing to build.
    """
    if any(define(name, split, paths).own.get("folder") for split in split_names(name, paths)):
        raise ConfigError(f"{name} is not built: `python train.py` reads it where it lies, with id_data.folder=FOLDER")
    if chosen:
        define(name, chosen, paths)
        return [chosen]
    listed = split_names(name, paths) or own_splits(name, paths)
    return [split for split in listed if not define(name, split, paths).own.get("optional")]


def own_splits(name: str, paths: DataPaths) -> list[str]:
    """`train` and `test` of your own source, as far as it is divided into them; an undivided one is a test set."""
    source = Path(define(name, "train", paths).own["source"]) if _has(name, "train", paths) else None
    if source is None or not source.exists():
        return ["test"]
    names = list_images(source).names
    found = []
    for split in ("train", "test"):
        with suppress(ConfigError):
            found += [split] if find_part(names, split, None, source) else []
    return found or ["test"]


def _has(name: str, split: str, paths: DataPaths) -> bool:
    try:
        define(name, split, paths)
    except ConfigError:
        return False
    return True


def state_of(name: str, split: str, paths: DataPaths) -> str:
    """What is there of a split, in a few words: ready, how it can be made here, or what is missing."""
    try:
        definition = define(name, split, paths)
    except ConfigError as error:
        return str(error)
    if is_built(definition, paths):
        return "ready"
    if available(name, split, paths):
        return "can be built from its pack" if definition.own.get("pack") else "can be made here"
    if definition.own.get("folder"):
        return "read where it lies: id_data.folder"
    return "missing: can be downloaded" if definition.own.get("files") else "missing: needs --from"
