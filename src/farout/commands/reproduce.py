"""Reproduce a table: train what is missing, resume what was interrupted, evaluate, print ours beside the paper's.

    python scripts/reproduce.py                                  the Energy paper's Table 1 at full scale, seed 1
    python scripts/reproduce.py --scale small --seeds 1 2 outliers=cifar100 ood_data=stand_in
    python scripts/reproduce.py --scale small --init outputs/runs/imported-NAME --seeds 1 2
    python scripts/reproduce.py --paper oe                       Outlier Exposure's, at full scale alone
    python scripts/reproduce.py --paper cider --scale small      CIDER's table, and the angles of its embeddings
    python scripts/reproduce.py --paper cider --scale small --init outputs/runs/imported-NAME
    python scripts/reproduce.py --paper jem --scale small        JEM's tables, its samples and attacks on it
    python scripts/reproduce.py --paper jem --scale small --init auto

Rows of Energy: softmax and energy of the cross-entropy network, Outlier Exposure, energy fine-tuned. With --init the
fine-tuning starts from that finished run, which then also supplies the rows softmax and energy. Rows of Outlier
Exposure: softmax of the cross-entropy network, of one fine-tuned with outliers, and of one trained from scratch with
them. Rows of CIDER: softmax, energy and KNN of the cross-entropy network; KNN and Mahalanobis of SupCon's and
CIDER's. Rows of JEM: log p(x), max p(y|x) and approximate mass of a classifier of the same network, and of JEM; at
full scale also the paper's classifier, which has batch norm. Each JEM run is then sampled (its replay buffer as it
is) and attacked beside the classifiers, shortly where the scale is not full: `python scripts/sample.py` and
`python scripts/robustness.py` measure longer, and the tables take the samples that lie in the run's folder, and the
attack with the most images and steps.

CIDER and JEM train from scratch; with --init every row of theirs goes on from that network, as long as each other, and
the network itself is a row beside them (files of conf/experiment/PAPER/SCALE_from_trained). --init auto is JEM's: the
classifier of its small scale, trained first if need be.

Every network is one file of conf/experiment, the same that `python train.py experiment=...` takes; further overrides
are passed on to all of them.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from farout import papers
from farout.commands.arguments import Parser, folder_to_write, guarded, overrides_apart, seed
from farout.engine.progress import say
from farout.errors import ConfigError
from farout.places import conf_names
from farout.report.tables.cells import Table
from farout.report.tables.render import to_terminal, width
from farout.reproduce.remarks import demo_remarks
from farout.reproduce.rows import SCALES, TableRequest, refuse_own, rows_of, usual_id
from farout.reproduce.stages import Stage, carry_out, check_data, stages_here
from farout.reproduce.tables import tabulate

PAPERS = ("cider", "energy", "jem", "oe")
OWN_OPTIONS = {"experiment": "--paper, --scale and --recipe", "scale": "--scale", "seed": "--seeds"}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--paper", default="energy", choices=PAPERS, help="whose table (default: energy)")
    parser.add_argument("--scale", default="full", choices=SCALES, help="full is the paper's (default)")
    parser.add_argument("--id", help="in-distribution set: cifar10 (default), cifar100, svhn (oe), digits (demo)")
    parser.add_argument("--seeds", nargs="+", type=seed, default=[1], help="default: 1")
    parser.add_argument("--init", metavar="RUN", help="start from this finished run (an imported one, say), or auto")
    parser.add_argument("--recipe", help="folder of conf/experiment to take the rows from (default: PAPER/SCALE)")
    parser.add_argument("--out", type=Path, help="folder for the tables, .md and .csv (default: outputs/tables/...)")
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="also write a record per run there (the ledger)")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="passed on, e.g. outliers=cifar100")
    options = parser.parse_intermixed_args(overrides_apart(arguments))
    options.id = usual_id(options.scale) if options.id is None else options.id
    check(options)
    return options


def check(options: argparse.Namespace) -> None:
    """Raise ConfigError for what would be found out only after training, or would change every row unseen."""
    if len(set(options.seeds)) < len(options.seeds):
        raise ConfigError(f"--seeds {' '.join(map(str, options.seeds))} names one twice: name each once")
    refuse_own(options.overrides, OWN_OPTIONS)
    for option in ("out", "record"):
        folder_to_write(f"--{option}", getattr(options, option))
    request = request_of(options)
    if request.all_go_on and options.recipe is None and not conf_names(f"experiment/{request.folder}"):
        raise ConfigError(f"--init: there are no rows from a trained network in {request.folder}: use --scale small")


def request_of(options: argparse.Namespace) -> TableRequest:
    """What the command line asks for."""
    return TableRequest(
        paper=options.paper,
        scale=options.scale,
        id_data=options.id,
        rows=rows_of(options.paper, options.scale, options.init),
        seeds=tuple(options.seeds),
        recipe=options.recipe,
        steps=options.scale,
        init=options.init,
        overrides=tuple(options.overrides),
    )


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Run every row, then tabulate; 2 after a one-line error."""
    options = parse_arguments(arguments)
    request = request_of(options)
    out = options.out or Path("outputs/tables") / f"{request.label}-{options.id}"
    stages = stages_here(request)
    folder_to_write("--out", out)
    folder_to_write("paths.outputs", Path(stages[0].settings.paths.outputs))
    check_data(stages)
    carry_out(stages)
    tables = tabulate(request, stages, out, options.record)
    show(tables, out)
    if options.scale == "demo" and options.paper == "energy":
        for line in demo_remarks(tables[papers.load("energy").output]):
            say(line)
    return 0


def write_tables(request: TableRequest, stages: Sequence[Stage], outputs: Path) -> None:
    """The tables of what was evaluated, printed too; rows that cannot stand in one are no error."""
    out = outputs / "tables" / f"{request.label}-{request.id_data}"
    if not any(stage.kind == "evaluate" for stage in stages):
        return
    try:
        show(tabulate(request, stages, out), out)
    except ConfigError as problem:
        say(f"no tables: {problem}")


def show(tables: Mapping[str, Table], out: Path) -> None:
    """Print every table, and where it was written."""
    for name, table in tables.items():
        console = Console() if sys.stdout.isatty() else Console(width=width(table))
        console.print(to_terminal(table))
        say(f"written: {out / f'{name}.md'} and {out / f'{name}.csv'}")
