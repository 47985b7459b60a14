"""The catalogue: one YAML file a data set in conf/dataset/, read here and nowhere else.

A file has a `title` and either `source: PATH` (your own images) or `splits`, each with the ways to obtain it:
`pack` (file name of a pack; `pack_sha256` is its checksum, and `pack_size` says how many images it has where it is
a part of the set), `files` + `read` (official archives and the function that reads them), `make` (a function that
generates the images, or reads them out of an installed dependency) or `folder` (class folders below id_data.folder,
with a class list: read where they lie, never stored). Keys of a split may also stand at the top, where all splits
share them.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from farout.errors import ConfigError

SET_KEYS = {"title", "homepage", "licence", "note", "stand_in_for", "vote", "drop_with_outliers", "splits"}
HANDLING_KEYS = {"resize", "crop", "filter", "drop_classes", "choose"}
SPLIT_KEYS = {"source", "pack", "files", "read", "make", "folder", "parameter"} | HANDLING_KEYS
# What the bytes are checked against, and where they come from: no part of what they are.
CHECKS = {"size", "pack_sha256", "pack_size", "optional"}
SPLIT_KEYS |= CHECKS
MOST_MADE = 100_000  # images of a set that is generated
STORE_FORMAT = 1  # part of every store's identity: raise it when the same definition gives other bytes


@dataclass(frozen=True)
class DataPaths:
    """Where things lie: `store` (built arrays), `packs` (pack files, or None), `conf` (the conf/ folder)."""

    store: Path
    packs: Path | None
    conf: Path


def default_paths(root: Path) -> DataPaths:
    """The rule for a repository at `root`.

    Store: $FAROUT_DATA, else data/. Packs: $FAROUT_PACKS, else packs/ or ../shared/data where they exist.
    """
    root = Path(root)
    store = Path(os.environ.get("FAROUT_DATA") or root / "data")
    named = os.environ.get("FAROUT_PACKS")
    places = [Path(named)] if named else [root / "packs", root.parent / "shared" / "data"]
    packs = next((place for place in places if place.is_dir()), None)
    return DataPaths(store=store, packs=packs, conf=root / "conf")


@dataclass(frozen=True)
class Definition:
    """One split of a data set as the catalogue describes it; `name` may have an argument: `blobs@500`."""

    name: str
    split: str
    common: dict[str, Any]
    own: dict[str, Any]

    @property
    def title(self) -> str:
        argument = self.name.partition("@")[2]
        return f"{self.common['title']} ({argument})" if argument else str(self.common["title"])

    @property
    def vote(self) -> str:
        """Sets with the same vote count once in a mean over sets."""
        return str(self.common.get("vote") or self.name)

    @property
    def key(self) -> str:
        """Short hash of all that decides the stored bytes (not of titles, sizes or addresses)."""
        kept = {k: v for k, v in self.own.items() if k not in CHECKS | {"files", "parameter"}}
        text = json.dumps([STORE_FORMAT, kept, _stamp(self.own.get("source"))], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def facts(self) -> dict[str, Any]:
        """The part of `ImageSet.info` that the catalogue knows."""
        keys = ("stand_in_for", "licence", "homepage", "note")
        return {"title": self.title, "vote": self.vote} | {k: self.common.get(k) for k in keys}


def _stamp(source: str | None) -> list[Any] | None:
    """Changes when files are added to or taken from your own folder or tar: no stale store is reused."""
    if source is None or not Path(source).exists():
        return None
    path = Path(source)
    places = [path, *sorted(p for p in path.iterdir() if p.is_dir())] if path.is_dir() else [path]
    return [[p.name, p.stat().st_mtime_ns, 0 if p.is_dir() else p.stat().st_size] for p in places]


def dataset_names(paths: DataPaths) -> list[str]:
    """All data sets of the catalogue, sorted."""
    return sorted(p.stem for p in (paths.conf / "dataset").glob("*.yaml"))


def is_set_name(name: str) -> bool:
    """Whether this can name a data set, also with an @argument: names become folders of the store, never paths."""
    return re.fullmatch(r"[^./\\\0\n@][^/\\\0\n]*", name) is not None


def load_entry(name: str, paths: DataPaths) -> dict[str, Any]:
    """The YAML of data set `name` (without its @argument), checked. Raises ConfigError."""
    if not is_set_name(name):
        raise ConfigError(f"{name!r} is no name of a data set: give one of conf/dataset, e.g. cifar10, not a path")
    file = paths.conf / "dataset" / f"{name.partition('@')[0]}.yaml"
    if not file.is_file():
        near = difflib.get_close_matches(name, dataset_names(paths), n=3, cutoff=0.5) or dataset_names(paths)
        raise ConfigError(f"no data set '{name}' in {file.parent}; there are: {', '.join(near)}")
    try:
        entry = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(entry, dict) or not entry.get("title"):
        raise ConfigError(f"{file}: a data set needs a title")
    unknown = set(entry) - SET_KEYS - SPLIT_KEYS
    for own in (entry.get("splits") or {}).values():
        unknown |= set(own or {}) - SPLIT_KEYS
    if unknown:
        raise ConfigError(f"{file}: unknown keys {sorted(unknown)}; allowed: {sorted(SET_KEYS | SPLIT_KEYS)}")
    if not entry.get("splits") and not entry.get("source"):
        raise ConfigError(f"{file}: give `source: FOLDER_OR_TAR` or `splits`")
    return entry


def split_names(name: str, paths: DataPaths) -> list[str]:
    """The splits that the catalogue lists; empty for your own `source`, which answers to any split name."""
    return list(load_entry(name, paths).get("splits") or {})


def define(name: str, split: str, paths: DataPaths) -> Definition:
    """The definition of one split, with shared keys, `@argument` and paths resolved. Raises ConfigError."""
    entry = load_entry(name, paths)
    splits = entry.get("splits")
    if splits and split not in splits:
        raise ConfigError(f"data set '{name}' has no split '{split}'; it has: {', '.join(splits)}")
    shared = {k: v for k, v in entry.items() if k in SPLIT_KEYS}
    own = {**shared, **((splits or {}).get(split) or {})}
    if own.get("source"):
        own = _own_source(own, split, paths)
    if "@" in name and not own.get("folder"):  # whose argument says which classes
        own = _with_argument(name, own)
    return Definition(name, split, {k: v for k, v in entry.items() if k in SET_KEYS}, own)


def _own_source(own: dict[str, Any], split: str, paths: DataPaths) -> dict[str, Any]:
    """Your own images: 32 x 32 unless said otherwise; a folder with a folder per split is understood."""
    source = paths.conf.parent / Path(own["source"]).expanduser()
    if (source / split).is_dir():
        source = source / split
    return {"resize": 32, "crop": 32, **own, "source": str(source)}


def _with_argument(name: str, own: dict[str, Any]) -> dict[str, Any]:
    """`NAME@VALUE` sets the one key of `make` that the YAML names as its `parameter`."""
    base, _, value = name.partition("@")
    if not own.get("parameter") or not value:
        raise ConfigError(f"data set '{base}' takes no argument, so '{name}' means nothing")
    usual = own["make"].get(own["parameter"])
    return {**own, "make": {**own["make"], own["parameter"]: _whole(name, value) if type(usual) is int else value}}


def _whole(name: str, value: str) -> int:
    """The number of images after the @ of a set's name."""
    if not re.fullmatch(r"[1-9]\d*", value) or int(value) > MOST_MADE:
        base = name.partition("@")[0]
        raise ConfigError(f"{name}: {value} is no number of images: give 1 to {MOST_MADE:,}, e.g. {base}@2000")
    return int(value)


def conflicts(ood_name: str, outliers_name: str | None, paths: DataPaths) -> str | None:
    """Why OOD set `ood_name` must not count after training on outliers `outliers_name`; None if it may."""
    if not outliers_name or outliers_name == "none":
        return None
    if ood_name.partition("@")[0] == outliers_name.partition("@")[0]:
        return f"{load_entry(ood_name, paths)['title']} supplied the training outliers"
    reasons = load_entry(ood_name, paths).get("drop_with_outliers") or {}
    return reasons.get(outliers_name.partition("@")[0])
