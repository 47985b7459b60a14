"""Every page and picture that is written from results/: which block of which page holds what."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farout.data import default_paths
from farout.files import write_text
from farout.places import ROOT
from farout.report.blocks import is_current, update_page
from farout.report.figures.style import svg_text
from farout.report.records import Record
from farout.reproduce.catalogue_page import catalogue_table
from farout.reproduce.ledger import index, read_files, read_paired, read_sensitivity
from farout.reproduce.literature import literature_tables
from farout.reproduce.order_figure import order_figure
from farout.reproduce.paper_figures import figures_of
from farout.reproduce.paper_page import paper_blocks
from farout.reproduce.result_tables import PAPERS, result_tables, tables_of
from farout.reproduce.score_tables import score_tables
from farout.reproduce.sensitivity_page import drawn, figure_name, sweeps
from farout.reproduce.times_page import times_table
from farout.reproduce.verdict_page import details, matrix
from farout.reproduce.verdicts import Verdict, verdicts_of

Blocks = Mapping[str, str]


@dataclass(frozen=True)
class Ledger:
    """What results/ holds: the records of runs, comparisons of runs, and sweeps of one knob at a time."""

    records: Sequence[Record]
    paired: Sequence[Mapping[str, Any]]
    sweeps: Sequence[Mapping[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> "Ledger":
        """Raises MissingDataError where the folder is absent, ConfigError for a file that is no record."""
        return cls(read_files(folder), read_paired(folder), read_sensitivity(folder))

    def verdicts(self) -> list[Verdict]:
        """On every claim of every paper."""
        return verdicts_of(self.records, self.paired)


def pages_of(ledger: Ledger, verdicts: Sequence[Verdict], root: Path = ROOT) -> dict[Path, Blocks]:
    """Page -> its blocks by name."""
    return {
        root / "README.md": {"claims": matrix(verdicts)},
        root / "docs/verdicts.md": {"matrix": matrix(verdicts), "verdicts": details(verdicts)},
        root / "docs/results.md": {
            "tables": result_tables(ledger.records),
            "scores": score_tables(ledger.records),
            "sweeps": sweeps(ledger.sweeps),
            "literature": literature_tables(ledger.records, ledger.paired),
        },
        root / "docs/install.md": {"times": times_table(ledger.records)},
        root / "docs/data.md": {"catalogue": catalogue_table(default_paths(ROOT))},
        **{root / f"docs/papers/{name}.md": paper_blocks(name, ledger.records, verdicts) for name in PAPERS},
        root / "results/README.md": {"index": index(ledger.records, ledger.paired)},
    }


def update(pages: Mapping[Path, Blocks]) -> list[Path]:
    """Write what has changed; the pages that had. Raises FaroutError where a page lacks the marks of a block."""
    return [page for page, blocks in pages.items() if update_page(page, blocks)]


def draw(ledger: Ledger, root: Path = ROOT) -> list[Path]:
    """Draw what is drawn from the records of runs, and sweeps without a figure or with an older one.

    Returns the files that were written.
    """
    made = []
    for path, text in pictures_of(ledger, root).items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
            made.append(path)
    for record in ledger.sweeps:
        path, source = root / "docs/figures" / figure_name(record), root / "results" / record["file"]
        if not path.exists() or path.stat().st_mtime < source.stat().st_mtime:
            write_text(path, svg_text(drawn(record)))
            made.append(path)
    return made


def pictures_of(ledger: Ledger, root: Path = ROOT) -> dict[Path, str]:
    """SVG file -> its text: README's picture, and the figures under the tables of the papers' pages."""
    folder = root / "docs/figures"
    figures = [figure for table in tables_of(ledger.records) for figure in figures_of(table)]
    order = {folder / "order.svg": svg_text(order_figure(ledger.records))}
    return order | {folder / figure.file: svg_text(figure.draw()) for figure in figures}


def old_pictures(pictures: Mapping[Path, str]) -> list[Path]:
    """Those that are not there, or have other words and numbers: lines may lie otherwise by another matplotlib."""
    return [
        path
        for path, text in pictures.items()
        if not path.exists() or _words(path.read_text(encoding="utf-8")) != _words(text)
    ]


def _words(svg: str) -> list[str]:
    return re.findall(r">([^<>]*\S[^<>]*)<", svg)


def outdated(pages: Mapping[Path, Blocks]) -> list[Path]:
    """The pages that say something else than the records."""
    return [page for page, blocks in pages.items() if not is_current(page, blocks)]
