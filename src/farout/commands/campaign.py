"""Run the rows of a table at full scale in slices of time, going on exactly where the last slice stopped.

    python scripts/campaign.py --dry-run                      the plan, with an estimate for this device
    python scripts/campaign.py --minutes 9 --state campaign   one slice; repeat until it says "campaign complete"
    python scripts/campaign.py --id cifar100 --seeds 1 2 3 outliers=cifar100 ood_data=stand_in logger=none

    python scripts/campaign.py --launcher slurm hydra.launcher.partition=gpu --seeds 1 2 3   every stage a job of Slurm
    python scripts/campaign.py --launcher slurm --seeds 1 2 3 --status                       where they stand

Most valuable first: of seed 1 the pre-training, the fine-tunings and their evaluations, then of seed 2, and so on. JEM
is sampled before its evaluation and attacked after it. When all is done the tables are written and printed: the same
stages as `python scripts/reproduce.py` has, which does them in one go.
Overrides (NAME=VALUE) are added to every row, as for `python train.py`; hydra.launcher.NAME=VALUE is for Slurm.
"""

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from farout.commands.arguments import DONE, Parser, folder_to_write, guarded, hear, number, overrides_apart, seed
from farout.commands.campaign_jobs import PREFIX, Jobs, parameters_of
from farout.commands.reproduce import write_tables
from farout.engine.progress import say
from farout.errors import ConfigError
from farout.reproduce import slices
from farout.reproduce.forecast import Forecaster
from farout.reproduce.rows import TableRequest, refuse_own, rows_of, usual_id
from farout.reproduce.stages import Stage, carry_out, check_data, runs_of, stages_here
from farout.runs.environment import device_name, stamp

MORE_TO_DO = 3
TABLES = {  # --table -> whose rows, at which scale
    **{paper: (paper, "full") for paper in ("energy", "oe", "cider", "jem")},
    "demo": ("energy", "demo"),
    "demo_cider": ("cider", "demo"),
    "demo_jem": ("jem", "demo"),
}
# What the campaign decides for every row, and the option that does so: not to be overridden behind its back.
OWN_OPTIONS = {
    "experiment": "--table and --rows",
    "method": "--rows",
    "id_data": "--id",
    "scale": "--scale",
    "seed": "--seeds",
    "init_from": "--init",
    "paths.outputs": "--outputs",
    "trainer.budget_minutes": "--minutes",
}

EPILOG = """\
exit status: 0 campaign complete; 3 the budget is spent and there is more to do (--status: not all is done); 2 an error,
in one line. With --launcher: 0 everything that is not done is in the queue.

On a cluster (--launcher slurm) trainings come first, what needs them waits for them, and the tables are written when
all is done. The same command again submits what failed and what is missing, never what is in the queue. Jobs that are
preempted, or whose time runs out, are put back and go on. Options of the jobs: conf/hydra/launcher/slurm.yaml.

The state folder (--state) carries a campaign to another machine. At the end of a slice, also of one that an error
or Ctrl-C ends (then with the last checkpoint), the campaign's runs are packed into campaign.tar.NNN, at most 15 MiB
each, and campaign.json, which vouches for them. A slice begins by checking and unpacking that, never over a run that
is further here. Checkpoints of finished runs are dropped, so it stays small: 9 MB a finished WRN-40-2, 18 MB for one
under way. Packing starts when the budget is spent: leave it half a minute where something kills the job.
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; overrides may stand anywhere, also after --seeds."""
    parser = Parser(description=__doc__, epilog=EPILOG)
    parser.add_argument("--table", default="energy", choices=TABLES, help="whose rows of conf/experiment (%(default)s)")
    parser.add_argument("--id", help="the in-distribution set of its rows (cifar10; of a demo, digits)")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="some of the table's rows, in your order")
    parser.add_argument("--seeds", nargs="+", type=seed, default=[1], metavar="SEED", help="in order (default: 1)")
    parser.add_argument("--scale", help="default: the table's own, which is full for the papers' tables")
    parser.add_argument(
        "--minutes", type=number(above=True, most=1e7), default=9.0, help="the budget of this slice (%(default)g)"
    )
    parser.add_argument("--state", type=Path, metavar="FOLDER", help="pick up from here, and leave the state here")
    parser.add_argument("--init", type=Path, metavar="RUN_FOLDER", help="fine-tune this run; no pre-training")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="default: %(default)s")
    parser.add_argument("--launcher", choices=("slurm",), help="submit every stage as a job that waits for its parents")
    parser.add_argument("--status", action="store_true", help="print where every stage stands; does nothing")
    parser.add_argument("--dry-run", action="store_true", help="print the plan (with --state: pick up first)")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="added to every row, e.g. logger=none")
    options = parser.parse_intermixed_args(overrides_apart(arguments))
    options.launcher_words = [word for word in options.overrides if word.lstrip("+").startswith(PREFIX)]
    options.overrides = [word for word in options.overrides if word not in options.launcher_words]
    options.id = usual_id(TABLES[options.table][1]) if options.id is None else options.id
    for option in ("rows", "seeds"):
        named = getattr(options, option) or []
        if len(set(named)) < len(named):
            raise ConfigError(f"--{option} {' '.join(map(str, named))} names one twice: name each once")
    if options.launcher_words and options.launcher is None:
        raise ConfigError(f"{options.launcher_words[0]} is about jobs of Slurm: add --launcher slurm")
    if options.launcher and options.state:
        raise ConfigError("--state carries a campaign to another machine, --launcher leaves it here: choose one")
    for option in ("outputs", "state"):
        folder_to_write(f"--{option}", getattr(options, option))
    return options


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """One slice; returns the exit status."""
    started = time.monotonic()
    hear()
    options = parse(sys.argv[1:] if arguments is None else arguments)
    return run_slice(options, started)


def run_slice(options: argparse.Namespace, started: float) -> int:
    """Pick up, check, work until the budget is spent, pack; at the end of all, tabulate."""
    if options.state:
        slices.restore(options.state, options.outputs / "runs")
    request = request_of(options)
    stages = stages_here(request)
    for name, reason in check_data(stages).items():
        say(f"will be left out: {name} - {reason}")
    if options.dry_run:
        print_plan(stages, options.minutes)
        return DONE
    if options.status:
        return MORE_TO_DO if Jobs(request, stages, options.outputs).show() else DONE
    if options.launcher:
        return submit(Jobs(request, stages, options.outputs), options)
    try:
        complete = carry_out(stages, started + 60 * options.minutes)
    finally:
        if options.state:
            leave_state(stages, options)
    if not complete:
        left = sum(not stage.done for stage in stages)
        say(f"{len(stages) - left} of {len(stages)} stages are done: repeat the command to go on")
        return MORE_TO_DO
    write_tables(request, stages, options.outputs)
    say("campaign complete")
    return DONE


def submit(jobs: Jobs, options: argparse.Namespace) -> int:
    """Leave the work to the cluster."""
    count = jobs.submit(parameters_of(options.launcher_words))
    say(f"{count or 'no'} stages submitted, logs: {jobs.folder}; the same command with --status tells where they stand")
    return DONE


def request_of(options: argparse.Namespace) -> TableRequest:
    """What the command line asks for; raises ConfigError where the table has no such row."""
    paper, scale = TABLES[options.table]
    request = TableRequest(
        paper=paper,
        scale=scale,
        id_data=options.id,
        rows=tuple(options.rows or rows_of(paper, scale, None if options.init is None else str(options.init))),
        seeds=tuple(options.seeds),
        steps=options.scale,
        outputs=options.outputs,
        init=None if options.init is None else str(options.init),
        overrides=tuple(options.overrides),
    )
    request.check(options.table)
    refuse_own(request.overrides, OWN_OPTIONS)
    return request


def leave_state(stages: Sequence[Stage], options: argparse.Namespace) -> None:
    """Pack the runs under --outputs, with where, when and how far this slice came."""
    progress = [
        {"seed": stage.settings.seed, "row": stage.row, "stage": stage.kind, "run": stage.run.name, "done": stage.done}
        for stage in stages
    ]
    folder = options.outputs / "runs"
    own = [run for run in runs_of(stages) if run.folder.parent.resolve() == folder.resolve()]
    slices.save(options.state, own, folder, {**stamp(stages[0].device), "progress": progress})


def print_plan(stages: Sequence[Stage], minutes: float) -> None:
    """What is done, what is left, how long that takes here, and in how many slices."""
    forecaster, device = Forecaster(), stages[0].device
    table = Table(title=f"Campaign on {device_name(device)}")
    for column in ("seed", "stage", "row", "run", "state"):
        table.add_column(column)
    for column in ("steps left", "minutes"):
        table.add_column(column, justify="right")
    total = 0.0
    for stage in stages:
        left = forecaster(stage)
        total += left.seconds
        steps, needed = "" if left.steps is None else f"{left.steps:,}", f"{left.seconds / 60:.1f}"
        table.add_row(str(stage.settings.seed), stage.kind, stage.row, stage.run.name, left.state, steps, needed)
    console = Console() if sys.stdout.isatty() else Console(width=150)
    console.print(table)
    count = math.ceil(total / 60 / minutes)
    say(f"left: about {total / 60:.1f} min, {count} slices of {minutes:g} min (uncompiled, start-up not counted)")
