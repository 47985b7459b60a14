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
import inspect
import json
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from farout.data.own_sources import Files, find_part, survey
from farout.data.paths import DataPaths, is_set_name
from farout.errors import ConfigError
from farout.targets import locate

SET_KEYS = {"title", "homepage", "licence", "note", "stand_in_for", "vote", "drop_with_outliers", "splits"}
SET_KEYS |= {"fed_as_is"}
HANDLING_KEYS = {"resize", "crop", "filter", "drop_classes", "choose"}
SPLIT_KEYS = {"source", "pack", "files", "read", "make", "folder", "parameter"} | HANDLING_KEYS
# What the bytes are checked against, and where they come from: no part of what they are.
CHECKS = {"size", "pack_sha256", "pack_size", "optional"}
SPLIT_KEYS |= CHECKS
MOST_MADE = 100_000  # images of a set that is generated
FILTERS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos", "nearest-exact")
MOST_PIXELS = 4096  # a side: more is a slip, and would fill the memory
STORE_FORMAT = 1  # part of every store's identity: raise it when the same definition gives other bytes


@dataclass(frozen=True)
class Definition:
    """One split of a data set as the catalogue describes it; `name` may have an argument: `blobs@500`.

    `files` is what a `source` of your own consists of now, `base` what the images are made from.
    """

    name: str
    split: str
    common: dict[str, Any]
    own: dict[str, Any]
    files: Files | None = None
    base: Definition | None = None

    @property
    def title(self) -> str:
        argument = self.name.partition("@")[2]
        return f"{self.common['title']} ({argument})" if argument else str(self.common["title"])

    @property
    def vote(self) -> str:
        """Sets with the same vote count once in a mean over sets."""
        return str(self.common.get("vote") or self.name)

    @property
    def stamp(self) -> str | None:
        """Changes with any file of your own below this set, or below what it is made from; None for other sets."""
        if self.files is not None:
            return self.files.stamp
        return self.base.key if self.base is not None and self.base.stamp is not None else None

    @property
    def key(self) -> str:
        """Short hash of all that decides the stored bytes (not of titles, sizes or addresses)."""
        kept = {k: v for k, v in self.own.items() if k not in CHECKS | {"files", "parameter"}}
        text = json.dumps([STORE_FORMAT, kept, self.stamp], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def facts(self) -> dict[str, Any]:
        """The part of `ImageSet.info` that the catalogue knows."""
        keys = ("stand_in_for", "licence", "homepage", "note")
        return {"title": self.title, "vote": self.vote} | {k: self.common.get(k) for k in keys}


def dataset_names(paths: DataPaths) -> list[str]:
    """All data sets of the catalogue, sorted."""
    return sorted({file.stem for folder in paths.catalogue for file in folder.glob("*.yaml")})


def load_entry(name: str, paths: DataPaths) -> dict[str, Any]:
    """The YAML of data set `name` (without its @argument), checked. Raises ConfigError."""
    if not is_set_name(name):
        raise ConfigError(f"{name!r} is no name of a data set: give one of conf/dataset, e.g. cifar10, not a path")
    file = paths.entry(name)
    if not file.is_file():
        near = difflib.get_close_matches(name, dataset_names(paths), n=3, cutoff=0.5)
        hint = f"near it are {', '.join(near)}" if near else f"there are {', '.join(dataset_names(paths))}"
        raise ConfigError(f"no data set '{name}' in {file.parent}; {hint}; all: python scripts/prepare_data.py --list")
    try:
        entry = deepcopy(_parsed(file.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror})") from error
    if not isinstance(entry, dict) or not entry.get("title"):
        raise ConfigError(f"{file}: a data set needs a title")
    _check_entry(entry, file)
    return entry


@lru_cache(maxsize=512)
def _parsed(text: str) -> Any:
    """Of one text once: a command asks for the same entries again and again. Not to be changed."""
    return yaml.safe_load(text)


def _check_entry(entry: dict[str, Any], file: Path) -> None:
    """Raise ConfigError for keys that are unknown, and for values of the wrong kind."""
    splits = entry.get("splits") or {}
    if not isinstance(splits, dict) or not all(isinstance(split, str) for split in splits):
        raise ConfigError(f"{file}: splits names splits, as in `splits: {{test: ...}}`")
    if entry.get("source") and splits and not any(isinstance(own, dict) for own in splits.values()):
        _check_rule(splits, file)
        parts = [entry]
    else:
        if not all(isinstance(own or {}, dict) for own in splits.values()):
            raise ConfigError(f"{file}: every split needs keys of its own, such as `pack: FILE`, or {{}}")
        parts = [entry, *(own or {} for own in splits.values())]
    unknown = {str(key) for key in entry if key not in SET_KEYS | SPLIT_KEYS}
    unknown |= {str(key) for part in parts[1:] for key in part if key not in SPLIT_KEYS}
    if unknown:
        raise ConfigError(f"{file}: unknown keys {sorted(unknown)}; allowed: {sorted(SET_KEYS | SPLIT_KEYS)}")
    for part in parts:
        _check_values(part, file)
    if not splits and not entry.get("source"):
        raise ConfigError(f"{file}: give `source: FOLDER_OR_TAR` or `splits`")


def _check_rule(splits: dict[str, Any], file: Path) -> None:
    """`splits` beside a source: `{holdout: 0.2}`, or the folder of each split, `{test: val}`."""
    if set(splits) == {"holdout"}:
        share = splits["holdout"]
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise ConfigError(f"{file}: splits.holdout={share} is a share of each class: give one between 0 and 1")
    elif "holdout" in splits or not all(isinstance(folder, str) and folder for folder in splits.values()):
        raise ConfigError(f"{file}: splits beside source is `{{holdout: 0.2}}` or names folders, as `{{test: val}}`")


def _check_values(part: dict[str, Any], file: Path) -> None:
    """What a size, a filter and a place look like."""

    def is_side(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST_PIXELS

    resize, crop, chosen = part.get("resize"), part.get("crop"), part.get("filter")
    pair = isinstance(resize, list) and len(resize) == 2 and all(map(is_side, resize))
    if resize is not None and not (pair or is_side(resize)):
        raise ConfigError(f"{file}: resize={resize} is the length of the shorter side, or [height, width], in pixels")
    if crop is not None and not is_side(crop):
        raise ConfigError(f"{file}: crop={crop} is the side of a square in the centre, in pixels")
    if chosen is not None and chosen not in FILTERS:
        raise ConfigError(f"{file}: filter={chosen} is none of {', '.join(FILTERS)}")
    for key in ("source", "pack", "folder"):
        if part.get(key) is not None and not isinstance(part[key], str):
            raise ConfigError(f"{file}: {key}={part[key]} is no path: put it into quotes")
    make = part.get("make")
    if make is not None and not (isinstance(make, dict) and isinstance(make.get("_target_"), str)):
        raise ConfigError(f"{file}: make needs a _target_, the function that makes the images")


def split_names(name: str, paths: DataPaths) -> list[str]:
    """The splits that the catalogue lists; empty for your own `source` without a rule, which may have any."""
    splits = load_entry(name, paths).get("splits") or {}
    return ["train", "test"] if "holdout" in splits else list(splits)


def define(name: str, split: str, paths: DataPaths, side: int | None = None) -> Definition:
    """The definition of one split, with shared keys, `@argument` and paths resolved. Raises ConfigError.

    `side` is what images of your own that declare no size, and generated ones, are brought to.
    """
    entry = load_entry(name, paths)
    splits = entry.get("splits") or {}
    rule = bool(splits) and not any(isinstance(own, dict) for own in splits.values()) and bool(entry.get("source"))
    listed = split_names(name, paths)
    if listed and split not in listed and (not rule or "holdout" in splits):
        raise ConfigError(f"data set '{name}' has no split '{split}'; it has: {', '.join(listed)}")
    own = {k: v for k, v in entry.items() if k in SPLIT_KEYS} | ({} if rule else splits.get(split) or {})
    if own.get("source"):
        own = _own_source(own, splits if rule else {}, split, paths.home(name), side)
    if "@" in name and not own.get("folder"):  # whose argument says which classes
        own = _with_argument(name, own)
    common = {k: v for k, v in entry.items() if k in SET_KEYS}
    files = _look_at(own, split) if own.get("source") and Path(own["source"]).exists() else None
    if not (own.get("make") or {}).get("base"):
        return Definition(name, split, common, _generated(own, side), files)
    own, base = _derived(own, split, paths, side)
    return Definition(name, split, common, own, files, base)


def _own_source(own: dict[str, Any], rule: dict[str, Any], split: str, home: Path, side: int | None) -> dict[str, Any]:
    """Your own images: where they lie, how they are divided, and the side to bring them to where none is declared."""
    own = {**own, "source": str(home / Path(own["source"]).expanduser())}
    if "holdout" in rule:
        own["holdout"] = rule["holdout"]
    else:
        own["part"] = rule.get(split)
    if side is not None and own.get("resize") is None and own.get("crop") is None:
        own["side"] = side
    return own


def _look_at(own: dict[str, Any], split: str) -> Files:
    """The files of a source that is there, which must have the split; of an archive that is seen when it is read."""
    files, source = survey(Path(own["source"])), Path(own["source"])
    if files.images is not None and "holdout" not in own:
        find_part(files.images, split, own.get("part"), source)
    return files


def _generated(own: dict[str, Any], side: int | None) -> dict[str, Any]:
    """With the side that generated images shall have, where their function has a choice and it is not its usual."""
    make = own.get("make")
    if side is None or not make or "side" in make:
        return own
    choice = inspect.signature(function_of(make["_target_"])).parameters.get("side")
    return own if choice is None or choice.default == side else {**own, "make": {**make, "side": side}}


def _derived(own: dict[str, Any], split: str, paths: DataPaths, side: int | None) -> tuple[dict[str, Any], Definition]:
    """What is made from another set takes a side only where that one would be another."""
    base = str(own["make"]["base"])
    plain, wanted = define(base, split, paths), define(base, split, paths, side)
    if plain.own == wanted.own:
        return own, plain
    return {**own, "make": {**own["make"], "side": side}}, wanted


def function_of(target: str) -> Callable[..., Any]:
    """The function of farout that a dotted name in the catalogue points to; raises ConfigError."""
    try:
        found = locate(target)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"the catalogue names a function that is not there: {target} ({error})") from error
    if not inspect.isfunction(found) or not found.__module__.startswith("farout."):
        raise ConfigError(f"the catalogue names {target}, which is no function of farout: put it below src/farout")
    return found


def _with_argument(name: str, own: dict[str, Any]) -> dict[str, Any]:
    """`NAME@VALUE` sets the one key of `make` that the YAML names as its `parameter`."""
    base, _, text = name.partition("@")
    parameter = own.get("parameter")
    if not parameter or not text:
        raise ConfigError(f"data set '{base}' takes no argument, so '{name}' means nothing")
    usual = own["make"].get(parameter)
    return {**own, "make": {**own["make"], parameter: _whole(name, text) if type(usual) is int else text}}


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
