"""What one score has more than another on the same images, with intervals: folded tables of the results."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from farout.metrics.paired import MEAN
from farout.report.evidence import View
from farout.report.page.markup import details, paragraph, plain_table
from farout.report.tables.render import TITLES

SHOWN = ("fpr95", "auroc")


def paired_tables(view: View) -> Iterator[str]:
    """For each score that others were compared with, a folded part with a table of FPR95 and one of AUROC.

    Nothing where the protocol had no bootstrap.
    """
    paired = view.entry.get("paired") or {}
    differences = paired.get("differences") or ()
    for reference in dict.fromkeys(d["second"] for d in differences):
        mine = [d for d in differences if d["second"] == reference]
        words = (
            f"Points that each score has more than {reference} [{100 * paired['level']:g} % paired bootstrap interval, "
            f"{paired['resamples']:,} resamples of the images, the same ones for both]; * where it does not hold zero."
        )
        tables = (_table(view, mine, metric, reference) for metric in SHOWN)
        yield details(f"Less {reference}, on the same images", paragraph(words, "note"), *tables)


def _table(view: View, differences: Sequence[Mapping[str, Any]], metric: str, reference: str) -> str:
    sets = list(dict.fromkeys(str(d["ood"]) for d in differences))
    found = {(d["first"], d["ood"]): d[metric] for d in differences}
    head = [f"{TITLES[metric]}, less {reference}", *(MEAN if ood == MEAN else view.sets.get(ood, ood) for ood in sets)]
    lines = [
        [score, *(_cell(found.get((score, ood))) for ood in sets)]
        for score in dict.fromkeys(d["first"] for d in differences)
    ]
    return plain_table(head, lines, head[0])


def _cell(figures: Sequence[float] | None) -> str:
    if figures is None:
        return "–"
    difference, low, high = (100 * figure for figure in figures)
    mark = "*" if low > 0 or high < 0 else ""
    return f"{difference:+z.1f}{mark} [{low:+z.1f}, {high:+z.1f}]"
