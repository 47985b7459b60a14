"""Attack a finished run: accuracy over epsilon under projected gradient descent, and distal adversarials.

    python scripts/robustness.py outputs/runs/JEM_RUN outputs/runs/CE_RUN
    python scripts/robustness.py outputs/runs/JEM_RUN --norm l2 --l2 0.5 1 --refine 0 1 --input-noise 0 --restarts 20
    python scripts/robustness.py outputs/runs/ANY_RUN --images 50

A JEM run is attacked as JEM-k: 5 noisy copies of the image, k steps of the run's own chain on each, mean logits. A
baseline, and a run of any other method, is its plain network. Accuracy is that of all chosen images; those that are
wrong as they are count as wrong. The folder of the first run gets robustness.json, distal.npz and plots, and its
report.html shows them; what robustness.json holds is not measured again, so an interrupted command goes on.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from farout.commands.arguments import Parser, guarded, number, seed, whole
from farout.data import default_paths
from farout.engine.progress import say
from farout.report.figures.robustness import AXES
from farout.runs.environment import choose_device
from farout.runs.robustness import EPSILONS, AttackPlan, AttackResults, assess
from farout.runs.run import open_run


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; raises ConfigError on a wrong one."""
    parser = Parser(description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("baseline", type=Path, nargs="?", metavar="BASELINE_RUN", help="one to compare with")
    parser.add_argument("--norm", nargs="+", choices=list(EPSILONS), default=list(EPSILONS), help="default: both")
    for name, unit in (("linf", "in 255ths"), ("l2", "over pixels in [0, 1]")):
        known = " ".join(f"{epsilon:g}" for epsilon in EPSILONS[name])
        parser.add_argument(
            f"--{name}", nargs="+", type=number(above=True), metavar="EPSILON", default=EPSILONS[name],
            help=f"epsilons {unit} (default: {known})",
        )  # fmt: skip
    add = parser.add_argument
    add(
        "--refine",
        nargs="+",
        type=whole(0),
        metavar="K",
        help="steps of the chain (default: 0 1 10 for JEM, else 0)",
    )
    add(
        "--images", type=whole(), default=AttackPlan.images, help="the first so many test images (default: %(default)s)"
    )
    add("--steps", type=whole(), default=AttackPlan.steps, help="of the attack (default: %(default)s)")
    add(
        "--restarts",
        type=whole(),
        default=AttackPlan.restarts,
        help="random starts (default: %(default)s, official: 20)",
    )
    add("--copies", type=whole(), default=AttackPlan.copies, help="of an image in JEM-k (default: %(default)s)")
    add("--input-noise", type=number(), help="of each copy (default: the run's own; official: 0.03, against L2 0)")
    add(
        "--distal-steps",
        type=whole(0),
        default=AttackPlan.distal_steps,
        help="from noise (default: %(default)s, 0: none)",
    )
    add(
        "--distal-step",
        type=number(above=True),
        default=AttackPlan.distal_step,
        help="its L2 length (default: %(default)s)",
    )
    add("--batch-size", type=whole(), default=AttackPlan.batch_size, help="images at a time (default: %(default)s)")
    add("--seed", type=seed, default=AttackPlan.seed, help="of starts and noise (default: %(default)s)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    return parser.parse_args(arguments)


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Attack, print a table a norm, name the files; 2 after a one-line error."""
    options = parse(arguments)
    same = {f.name: getattr(options, f.name) for f in fields(AttackPlan) if f.name != "epsilons"}
    plan = AttackPlan({norm: sorted(set(getattr(options, norm))) for norm in options.norm}, **same)
    run = open_run(options.run)
    baseline = None if options.baseline is None else open_run(options.baseline)
    found = assess(run, baseline, plan, default_paths(), choose_device(options.device, "--device"))
    for norm in plan.epsilons:
        show(found, norm)
    for path in found.files:
        say(f"written: {path}")
    return 0


def show(found: AttackResults, norm: str) -> None:
    """Accuracy in percent, a line per classifier."""
    entries = [entry for entry in found.curves if entry["norm"] == norm]
    table = Table("accuracy (%)", "no attack", *(f"{epsilon:g}" for epsilon in entries[0]["epsilons"]))
    table.title = f"{AXES[norm]}; {entries[0]['images']['which']}"
    for column in table.columns[1:]:
        column.justify = "right"
    for entry in entries:
        table.add_row(entry["label"], *(f"{100 * v:.1f}" for v in (entry["clean_accuracy"], *entry["accuracy"])))
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(table)
