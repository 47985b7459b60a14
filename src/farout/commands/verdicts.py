"""Verdicts on the papers' claims from the records in results/, and every page and picture that is made from them.

    python scripts/verdicts.py            print the verdicts; write the blocks of README.md, docs/ and results/README.md
    python scripts/verdicts.py --check    write nothing; 2 where a page or picture says something else than the records
    python scripts/verdicts.py --keep outputs/runs/RUN    copy the results of evaluated runs to results/ first

Records are taken by what they say of themselves: method, scale, network, ID set, protocol and OOD sets. A claim's
verdict is read off the 95 % interval of a difference: docs/verdicts.md says which interval stands where.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from farout.commands.arguments import DONE, FAILED, Parser, guarded, require_checkout
from farout.engine.progress import say
from farout.places import ROOT
from farout.report.records import read_record
from farout.reproduce.ledger import keep_record
from farout.reproduce.pages import Ledger, draw, old_pictures, outdated, pages_of, pictures_of, update
from farout.reproduce.verdict_page import to_terminal

USUAL_WIDTH = 200  # columns of text where there is no terminal


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--keep", nargs="+", type=Path, default=[], metavar="RUN", help="folders of evaluated runs to be recorded first"
    )
    parser.add_argument("--check", action="store_true", help="only say which pages and pictures are not current")
    parser.add_argument(
        "--results", type=Path, metavar="FOLDER", help="print the verdicts of these records, and write no page"
    )
    options = parser.parse_args(arguments)
    if options.check and options.keep:
        parser.error("--check writes nothing, so --keep has no place beside it")
    return options


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Print, and write or check the pages; returns the exit status."""
    options = _options(arguments)
    if options.results is None:
        require_checkout("writing the pages (all but printing the verdicts of --results FOLDER)")
    folder = options.results or ROOT / "results"
    for record in [read_record(run) for run in options.keep]:
        keep_record(record, folder)
    ledger = Ledger.read(folder)
    verdicts = ledger.verdicts()
    console = Console() if sys.stdout.isatty() else Console(width=USUAL_WIDTH)
    console.print(to_terminal(verdicts))
    if options.results is not None:
        return DONE
    pages = pages_of(ledger, verdicts)
    if options.check:
        old = [*outdated(pages), *old_pictures(pictures_of(ledger))]
        for page in old:
            say(f"not current: {page.relative_to(ROOT)} (make verdicts)")
        return FAILED if old else DONE
    for page in [*draw(ledger), *update(pages)]:
        say(f"written: {page.relative_to(ROOT)}")
    return DONE
