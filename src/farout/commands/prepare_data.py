"""Get data sets ready: download them, or build them from files at hand, and write packs.

Examples:
  python scripts/prepare_data.py --list
  python scripts/prepare_data.py cifar10 svhn              download, verify, build
  python scripts/prepare_data.py lsun_r --from LSUN_resize.tar.gz
  python scripts/prepare_data.py places365 --from folder/of/images --names list.txt
  python scripts/prepare_data.py --pack cifar10            write packs/cifar10_{train,test}.tar
  python scripts/prepare_data.py --stats mine              mean and std of the training images, for conf/transform/
"""

from __future__ import annotations

import argparse
import http.client
import logging
import re
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from farout.commands.arguments import Parser, folder_to_write, guarded, plain
from farout.data import DataPaths, dataset_names, default_paths, open_dataset
from farout.data.catalogue import load_entry, split_names
from farout.data.download import Progress as Report
from farout.data.download import silent
from farout.data.pack import write_pack
from farout.data.prepare import prepare, prepare_from, splits_to_prepare, state_of
from farout.data.transform import channel_statistics
from farout.errors import ConfigError, FaroutError, MissingDataError
from farout.places import work_folder

console = Console(width=None if sys.stdout.isatty() else 120)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="data sets of the catalogue, conf/dataset/NAME.yaml")
    add("--list", action="store_true", help="show what is ready, what can be built here and what is missing")
    add("--all", action="store_true", help="every data set of the catalogue")
    add("--split", help="this split only (default: all but optional ones)")
    add(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE_OR_FOLDER",
        help="an official archive (verified), a pack, or a folder or archive of images, class folders or flat",
    )
    add(
        "--names",
        dest="name_list",
        metavar="FILE_OR_URL",
        help="list of file names, for sets that are a choice",
    )
    add("--pack", action="store_true", help="write packs of the named sets (lossless, one file a split)")
    add("--stats", action="store_true", help="measure mean and std of the training images (or of --split)")
    add("--out", type=Path, help="where --pack writes: a file for one split, else a folder (default: packs/)")
    add("--data", type=Path, metavar="DIR", help="the store (default: $FAROUT_DATA, else data/)")
    add(
        "--packs",
        type=Path,
        metavar="DIR",
        help="where packs lie (default: $FAROUT_PACKS, packs/, ../shared/data)",
    )
    add(
        "--conf",
        type=Path,
        metavar="DIR",
        help="the conf folder (default: ./conf, then farout's)",
    )
    add("--force", action="store_true", help="build again what is ready")
    add("--keep", action="store_true", help="keep downloaded archives")
    options = parser.parse_args(arguments)
    if not (options.list or options.all or options.names):
        parser.error("name a data set, or --all, or --list")
    folder_to_write("--data", options.data)
    if options.pack and options.out is not None and options.out.suffix not in (".tar", ".gz"):
        folder_to_write("--out", options.out)
    return options


def paths_of(options: argparse.Namespace) -> DataPaths:
    paths = default_paths()
    if options.conf is not None:
        paths = replace(paths, conf=options.conf, own_conf=None)
    changes = {"store": options.data, "packs": options.packs}
    return replace(paths, **{key: value for key, value in changes.items() if value is not None})


@contextmanager
def progress_bars() -> Iterator[Report]:
    """A bar for each file that is downloaded; nothing where the output is no terminal."""
    if not console.is_terminal:
        yield silent
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks = {}

        def report(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name)
            bars.update(tasks[name], completed=done, total=total)

        yield report


def status_table(names: list[str], paths: DataPaths) -> Table:
    table = Table(
        "data set",
        "split",
        "images",
        "state",
        "licence",
        title=f"store: {paths.store}   packs: {paths.packs}",
    )
    for name in names:
        entry = load_entry(name, paths)
        for split in split_names(name, paths) or [""]:
            if not split:  # your own images, divided or not
                table.add_row(name, "any", "", _own_state(name, entry, paths), entry.get("licence", ""))
                continue
            more = entry["splits"].get(split)
            own = {**entry, **more} if isinstance(more, dict) else entry
            size = own.get("size") or (own.get("make") or {}).get("count")
            table.add_row(
                name, split, f"{size:,}" if size else "", state_of(name, split, paths), entry.get("licence", "")
            )
    return table


def _own_state(name: str, entry: dict[str, Any], paths: DataPaths) -> str:
    place = paths.home(name) / Path(entry["source"]).expanduser()
    return "can be made here" if place.exists() else f"missing: {entry['source']} does not exist"


def read_names(place: str | None) -> list[str] | None:
    """The lines of a list of file names, local or on the web; raises MissingDataError where it cannot be read."""
    if place is None:
        return None
    try:
        if re.match(r"https?://", place):
            with urllib.request.urlopen(place, timeout=60) as response:
                text = response.read().decode()
        else:
            text = Path(place).read_text(encoding="utf-8")
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise MissingDataError(f"--names {place} cannot be read ({plain(error)}): give a text file in UTF-8") from None
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise ConfigError(f"--names {place} names no file: give a list with a name on each line")
    return names


def write_packs(name: str, options: argparse.Namespace, paths: DataPaths) -> None:
    splits = splits_to_prepare(name, options.split, paths)
    out = options.out or work_folder() / "packs"
    one_file = out.suffix in (".tar", ".gz")
    if one_file and len(splits) * len(options.names) > 1:
        raise ConfigError(f"--out {out} is one file, but there are several packs to write: name a folder or a --split")
    for split in splits:
        target = out if one_file else out / f"{name}_{split}.tar"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_pack(open_dataset(name, split, paths), target)
        console.print(f"wrote {target} ({target.stat().st_size:,} bytes)")


def show_statistics(name: str, options: argparse.Namespace, paths: DataPaths) -> None:
    """A file for conf/transform/, ready to paste."""
    image_set = open_dataset(name, options.split or "train", paths)
    mean, std = channel_statistics(image_set)
    values = ", ".join(f"{m:.4f}" for m in mean), ", ".join(f"{s:.4f}" for s in std)
    if "0.0000" in values[1]:
        raise FaroutError(f"{name} ({image_set.split}) has a channel of one value: its std is 0, which divides nothing")
    print(
        f"# {image_set.info['title']}, {image_set.split}: {len(image_set):,} images of "
        f"{image_set.info['side']} x {image_set.info['side']}; conf/transform/{name}.yaml\n"
        f"name: {name}\n_target_: farout.data.transform.Transform\nmean: [{values[0]}]\nstd: [{values[1]}]\n"
        "flip: true\ncrop_padding: 4\noutlier_augmentation: same"
    )


def handle(name: str, options: argparse.Namespace, paths: DataPaths) -> None:
    if options.pack:
        write_packs(name, options, paths)
        return
    if options.stats:
        show_statistics(name, options, paths)
        return
    splits = splits_to_prepare(name, options.split, paths)
    names = read_names(options.name_list)
    given = options.source is not None or names is not None
    if options.source is not None:
        built = prepare_from(name, splits, options.source, paths, names=names, force=options.force)
    else:
        with progress_bars() as report:
            built = prepare(name, splits, paths, progress=report, names=names, force=options.force, keep=options.keep)
    for split in splits:
        count = len(open_dataset(name, split, paths))
        state = "built" if split in built else "was ready before"
        hint = "" if split in built or not given else "; --force builds it again from what you gave"
        console.print(f"{name} {split}: {state}, {count:,} images{hint}")


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    plain_lines = logging.StreamHandler(sys.stderr if options.stats else sys.stdout)  # in a file a line stays a line
    shown = RichHandler(console=console, show_path=False) if console.is_terminal and not options.stats else plain_lines
    logging.basicConfig(level="INFO", format="%(message)s", handlers=[shown])
    paths = paths_of(options)
    if options.source is not None and (options.all or len(options.names) > 1):
        raise ConfigError("--from is for one data set")
    names = options.names or dataset_names(paths)
    if not names:
        raise ConfigError(f"{paths.conf} has no dataset/*.yaml: give --conf the folder that has")
    if options.list:
        console.print(status_table(names, paths))
        return 0
    for name in dataset_names(paths) if options.all else names:
        handle(name, options, paths)
    return 0
