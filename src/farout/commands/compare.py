"""Compare runs on the same test images: paired intervals of what one has more than another, kept in results/.

    python scripts/compare.py outputs/runs/ce-... outputs/runs/oe-... outputs/runs/energy-...
    python scripts/compare.py outputs/runs/*-s1 outputs/runs/*-s2 --protocol energy

Of every pair of rows that a claim of the papers compares (docs/verdicts.md), the differences of FPR95, AUROC and AUPR
on each OOD set and in their mean, of accuracy and ECE, and of the RMS calibration error with OOD images among the ID
images; runs that no claim compares, under every score that both have. Seeds of one setting are one side, by their mean.
The runs must have been evaluated alike, and their folders hold their scores per image. make verdicts then judges by
these intervals.
"""

from collections.abc import Sequence
from pathlib import Path

from farout.commands.arguments import DONE, Parser, folder_to_write, guarded, whole
from farout.engine.progress import say
from farout.files import save_json
from farout.places import work_folder
from farout.report.records import PAIRED
from farout.reproduce.comparison import compare, name_of_comparison


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, say the means, and write the record; returns the exit status."""
    parser = Parser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of evaluated runs")
    parser.add_argument("--protocol", metavar="NAME", help="whose evaluations (default: a paper's, else plain)")
    parser.add_argument("--ood-data", metavar="NAME", help="on which list of OOD sets (default: one that all have)")
    parser.add_argument("--resamples", type=whole(2, 100_000), default=1000, help="of the bootstrap (default: 1000)")
    parser.add_argument(
        "--results",
        type=Path,
        default=work_folder() / "results",
        metavar="FOLDER",
        help="where the record goes (default: results)",
    )
    parser.add_argument("--name", help=f"of its file, after {PAIRED} (default: scale, protocol, network and sets)")
    options = parser.parse_args(arguments)
    folder_to_write("--results", options.results)
    record = compare(list(dict.fromkeys(options.runs)), options.protocol, options.ood_data, options.resamples)
    for found in (d for d in record["differences"] if d["ood"] == "mean" and "fpr95" in d):
        first, second = (_side(record["sides"][found[end]]) for end in ("first", "second"))
        difference, low, high = (100 * value for value in found["fpr95"])
        say(f"  {first} less {second}: mean FPR95 {difference:+.2f} [{low:+.2f}, {high:+.2f}] points")
    path = options.results / (f"{PAIRED}{options.name}.json" if options.name else name_of_comparison(record))
    save_json(path, record)
    say(f"written: {path}")
    return DONE


def _side(side: dict[str, list[str]]) -> str:
    return f"{side['score']} of {' and '.join(side['runs'])}"
