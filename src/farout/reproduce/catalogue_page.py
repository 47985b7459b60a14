"""The catalogue of data sets as a table for docs/: what each is, how one gets it, and on which terms."""

import re
from collections.abc import Mapping
from typing import Any

from farout.data import DataPaths
from farout.data.catalogue import dataset_names, load_entry
from farout.report.blocks import pipe_table

WAYS = {"files": "official archive", "pack": "pack", "folder": "your folder", "source": "your images"}
SHIPPED = "farout.data.shipped."
ADDRESS = re.compile(r"https?://\S+")


def catalogue_table(paths: DataPaths) -> str:
    """Every file of conf/dataset: name, what it is, images of each split, ways to get it, terms."""
    rows = [_row(name, load_entry(name, paths)) for name in dataset_names(paths)]
    return pipe_table(["name", "what", "images", "from", "terms"], rows)


def _row(name: str, entry: Mapping[str, Any]) -> list[str]:
    title = f"[{entry['title']}]({entry['homepage']})" if entry.get("homepage") else str(entry["title"])
    words = ADDRESS.sub(r"[link](\g<0>)", " ".join(str(entry.get("note") or "").split()))
    note = f": {words}" if words else ""
    stands = f" Stands in for `{entry['stand_in_for']}`." if entry.get("stand_in_for") else ""
    splits = {split: {**entry, **(own or {})} for split, own in (entry.get("splits") or {}).items()}
    images = "<br>".join(f"{split}{_count(own)}" for split, own in splits.items())
    ways = dict.fromkeys(way for own in splits.values() for way in _ways(own))
    return [
        f"`{name}`",
        f"{title}{note}{'.' if stands and note else ''}{stands}",
        images,
        ", ".join(ways),
        entry.get("licence", ""),
    ]


def _count(own: Mapping[str, Any]) -> str:
    """How many images a split has, and how many of them its pack, where the catalogue says so."""
    size = own.get("size") or (own.get("make") or {}).get("count")
    part = f" (pack: {own['pack_size']:,})" if own.get("pack_size") else ""
    return f" {size:,}{part}" if size else ""


def _ways(own: Mapping[str, Any]) -> list[str]:
    """How the images can be had, in the order in which they are looked for."""
    made = (own.get("make") or {}).get("_target_", "")
    ways = ["ships with a dependency" if made.startswith(SHIPPED) else "generated"] if made else []
    return [*ways, *(word for key, word in WAYS.items() if own.get(key))]
