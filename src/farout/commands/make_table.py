"""Tabulates finished runs beside a paper's numbers, or the jobs of a sweep: prints the tables, writes them as files."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from farout import papers
from farout.commands.arguments import DONE, Parser, folder_to_write, guarded
from farout.engine.progress import say
from farout.errors import ConfigError, shorten
from farout.report.records import Record, read_ledger, read_record, where
from farout.report.sweeps.page import as_text, write_sweep
from farout.report.sweeps.records import SweepFolder
from farout.report.tables.paper import write_tables
from farout.report.tables.render import to_terminal, width
from farout.runs.records import is_run_name

EPILOG = """\
examples:
  python scripts/make_table.py                                   every record under results/
  python scripts/make_table.py --where scale=small id_data=cifar10 backbone=resnet20
  python scripts/make_table.py --run outputs/ce-* outputs/energy-* --protocol plain --out outputs/tables
  python scripts/make_table.py --paper oe
  python scripts/make_table.py --paper cider --where scale=small     cider.md, and geometry.md with the angles
  python scripts/make_table.py --paper jem --where scale=small       jem.md; hybrid, calibration and robustness.md
  python scripts/make_table.py sweep=NAME                        a sweep's sweep.csv, .md and .html again, as it stands

One table holds one ID set and one network (with or without a projection head or a norm), and each row one setting
over its seeds: where the records hold more, choose with --where. The cross-entropy runs give several rows.
"""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; raises ConfigError on a wrong one."""
    parser = Parser(description=__doc__, epilog=EPILOG)
    parser.add_argument("sweep", nargs="?", metavar="sweep=NAME", help="a folder of outputs/sweeps instead of a paper")
    parser.add_argument(
        "--outputs", type=Path, default=Path("outputs"), metavar="FOLDER", help="where sweeps/ lies (default: outputs)"
    )
    parser.add_argument(
        "--run", nargs="+", action="extend", type=Path, default=[], metavar="DIR_OR_JSON",
        help="run folders (their results.json) or record files",
    )  # fmt: skip
    parser.add_argument(
        "--results", type=Path, metavar="FOLDER",
        help="read every *.json record below this folder too (default: results, unless --run is given)",
    )  # fmt: skip
    parser.add_argument("--paper", default="energy", choices=papers.names(), help="whose numbers stand beside ours")
    parser.add_argument("--protocol", metavar="NAME", help="which evaluation (default: by the paper's own protocol)")
    parser.add_argument(
        "--rows", nargs="+", metavar="ROW", help="rows of the paper, such as softmax energy oe energy_ft"
    )
    parser.add_argument(
        "--where", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="only runs whose identity agrees, for instance scale=small backbone=resnet20",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER",
        help="where the files go (default: outputs/NAME, NAME being table1 or the paper's)",
    )  # fmt: skip
    return parser.parse_args(arguments)


def records_of(options: argparse.Namespace) -> list[Record]:
    """The ledger's records, then those of the named runs, which win over the ledger's of the same name."""
    folder = options.results or (None if options.run else Path("results"))
    ledger = read_ledger(folder) if folder else []
    return where(ledger + [read_record(path) for path in options.run], options.where)


def tabulate_sweep(word: str, outputs: Path) -> int:
    """Writes a sweep's table again and prints it; raises FaroutError where there is none."""
    name = word.removeprefix("sweep=")
    if name == word or not is_run_name(name):
        raise ConfigError(f"{shorten(word)} is no table: write sweep=NAME, with a folder of {outputs / 'sweeps'}")
    folder = SweepFolder(outputs / "sweeps" / name)
    table = write_sweep(folder)
    say(as_text(table))
    say(f"written: {folder.path / 'sweep.html'}, sweep.md and sweep.csv")
    return DONE


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Prints and writes the table; returns the exit status."""
    options = parse(arguments)
    if options.sweep is not None:
        return tabulate_sweep(options.sweep, options.outputs)
    out = options.out or Path("outputs") / papers.load(options.paper).output
    folder_to_write("--out", out)
    tables = write_tables(records_of(options), out, options.paper, options.protocol, options.rows)
    for name, table in tables.items():
        console = Console() if sys.stdout.isatty() else Console(width=width(table))
        console.print(to_terminal(table))
        console.print(f"written: {out / f'{name}.md'} and {out / f'{name}.csv'}", style="dim")
    return 0
