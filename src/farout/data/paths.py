"""Where data lie (the store, packs, the catalogue's folder), and what may name a set there."""

import os
import re
from dataclasses import dataclass
from pathlib import Path


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


def is_set_name(name: str) -> bool:
    """Whether this can name a data set, also with an @argument: names become folders of the store, never paths."""
    return re.fullmatch(r"[^./\\\0\n@][^/\\\0\n]*", name) is not None
