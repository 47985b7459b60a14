"""Where data lie (the store, packs, the catalogue's folder), and what may name a set there."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from farout.places import CONF, INSTALLED, own_conf, work_folder


@dataclass(frozen=True)
class DataPaths:
    """Where things lie: `store` (built arrays), `packs` (pack files, or None), `conf` (the conf/ folder).

    `own_conf` is a conf/ whose data sets come before those of the same name, or None.
    """

    store: Path
    packs: Path | None
    conf: Path
    own_conf: Path | None = None

    @property
    def catalogue(self) -> list[Path]:
        """The folders of the catalogue, first ones first."""
        return [folder / "dataset" for folder in (self.own_conf, self.conf) if folder is not None]

    def entry(self, name: str) -> Path:
        """The file of a data set; where there is none, the one that `conf` would have."""
        files = [folder / f"{name.partition('@')[0]}.yaml" for folder in self.catalogue]
        return next((file for file in files if file.is_file()), files[-1])

    def home(self, name: str) -> Path:
        """Where a relative `source` of a data set starts: beside the conf/ that its file lies in."""
        return self.entry(name).parent.parent.parent


def default_paths(root: Path | None = None) -> DataPaths:
    """The rule for a repository at `root`; None: for the place where a command is given (`farout.places`).

    Store: $FAROUT_DATA, else data/. Packs: $FAROUT_PACKS, else packs/ or, of a repository, ../shared/data where they
    exist.
    """
    base, conf, own = (work_folder(), CONF, own_conf()) if root is None else (root, root / "conf", None)
    store = Path(os.environ.get("FAROUT_DATA") or base / "data")
    named = os.environ.get("FAROUT_PACKS")
    beside = [] if INSTALLED else [base.parent / "shared" / "data"]
    places = [Path(named)] if named else [base / "packs", *beside]
    packs = next((place for place in places if place.is_dir()), None)
    return DataPaths(store=store, packs=packs, conf=conf, own_conf=own)


def is_set_name(name: str) -> bool:
    """Whether this can name a data set, also with an @argument: names become folders of the store, never paths."""
    return re.fullmatch(r"[^./\\\0\n@][^/\\\0\n]*", name) is not None
