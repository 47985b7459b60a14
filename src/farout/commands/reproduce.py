"""Reproduce a table: train what is missing, resume what was interrupted, evaluate, print ours beside the paper's.

    python scripts/reproduce.py                                  the Energy paper's Table 1 at full scale, seed 1
    python scripts/reproduce.py --scale small --seeds 1 2 outliers=cifar100 ood_data=stand_in
    python scripts/reproduce.py --scale small --init outputs/runs/imported-NAME --seeds 1 2
    python scripts/reproduce.py --paper cider --scale small      CIDER's table, and the angles of its embeddings
    python scripts/reproduce.py --paper jem --scale small        JEM's tables, its samples and attacks on it

Rows of Energy: softmax and energy of the cross-entropy network, Outlier Exposure, energy fine-tuned. With --init the
fine-tuning starts from that finished run, which then also supplies the rows softmax and energy. Rows of CIDER: softmax,
energy and KNN of the cross-entropy network; KNN and Mahalanobis of SupCon's and CIDER's. Rows of JEM: log p(x), max
p(y|x) and approximate mass of a classifier of the same network, and of JEM; at full scale also the paper's classifier,
which has batch norm. Each JEM run is then sampled (its replay buffer as it is) and attacked beside the classifiers,
shortly where the scale is not full: scripts/sample.py and scripts/robustness.py measure longer, and the tables take the
samples that lie in the run's folder, and the attack with the most images and steps.

Every network is one file of conf/experiment, the same that `python train.py experiment=...` takes; further overrides
are passed on to all of them.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from farout.commands.arguments import Parser, folder_to_write, guarded, seed
from farout.config.compose import compose_settings
from farout.config.settings import Settings
from farout.data.catalogue import load_entry
from farout.engine.progress import say
from farout.errors import ConfigError
from farout.files import save_json, write_bytes
from farout.metrics.generation import INCEPTION_WEIGHTS
from farout.report.figures.reliability import reliability_panels
from farout.report.figures.style import png_bytes
from farout.report.page.rebuild import last_evaluation, read_evidence
from farout.report.records import read_record
from farout.report.tables.paper import write_tables
from farout.report.tables.render import to_terminal, width
from farout.runs.dependencies import already_evaluated
from farout.runs.environment import choose_device
from farout.runs.evaluation import evaluate
from farout.runs.robustness import AttackPlan, assess
from farout.runs.run import Run, open_run, run_of, settings_for
from farout.runs.sample_quality import frechet_facts, inception_facts
from farout.runs.samples import Sampler, Sampling, class_names, draw_samples, save_samples
from farout.runs.training import train

ROWS = {  # paper -> network -> how its file of conf/experiment ends
    "energy": {"softmax": "softmax", "oe": "oe_ft", "energy_ft": "energy_ft"},
    "cider": {"ce": "ce", "supcon": "supcon", "cider": "cider"},
    "jem": {"ce": "ce", "ce_plain": "ce_plain", "jem": "jem"},
}
AT_FULL_SCALE = ("ce_plain",)  # elsewhere `ce` has JEM's network already, without a norm
SCALES = ("demo", "full", "small")
ATTACKS = {  # scale -> how JEM is attacked; full: as scripts/robustness.py does by default
    "full": AttackPlan(),
    "small": AttackPlan({"linf": (1.0, 2.0, 4.0, 8.0), "l2": (0.25, 0.5, 1.0)}, images=50, steps=10, restarts=1),
    "demo": AttackPlan({"linf": (8.0, 32.0), "l2": (1.0, 4.0)}, images=30, steps=5, restarts=1, distal_steps=20),
}
OWN_OPTIONS = {"experiment": "--paper, --scale and --recipe", "scale": "--scale", "seed": "--seeds"}
CHAIN_STEPS = {"full": 200, "small": 200, "demo": 20}  # scale -> of the chains that are shown


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--paper", default="energy", choices=sorted(ROWS), help="whose table (default: energy)")
    parser.add_argument("--scale", default="full", choices=SCALES, help="full is the paper's (default)")
    parser.add_argument("--id", default="cifar10", help="in-distribution set: cifar10 (default), cifar100, digits")
    parser.add_argument("--seeds", nargs="+", type=seed, default=[1], help="default: 1")
    parser.add_argument("--init", metavar="RUN", help="start fine-tuning from this finished run (an imported one, say)")
    parser.add_argument("--recipe", help="folder of conf/experiment to take the rows from (default: PAPER/SCALE)")
    parser.add_argument("--out", type=Path, help="folder for the tables, .md and .csv (default: outputs/tables/...)")
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="also write a record per run there (the ledger)")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="passed on, e.g. outliers=cifar100")
    options = parser.parse_intermixed_args(arguments)
    check(options)
    return options


def check(options: argparse.Namespace) -> None:
    """Raise ConfigError for what would be found out only after training, or would change every row unseen."""
    if len(set(options.seeds)) < len(options.seeds):
        raise ConfigError(f"--seeds {' '.join(map(str, options.seeds))} names one twice: name each once")
    for word in options.overrides:
        own = OWN_OPTIONS.get(word.lstrip("+~").partition("=")[0])
        if own is not None:
            raise ConfigError(f"{word} would change every row: use {own}")
    for option in ("out", "record"):
        folder_to_write(f"--{option}", getattr(options, option))
    if options.init is not None and options.paper != "energy":
        raise ConfigError(f"--init is for fine-tuning, and {options.paper} trains every network from scratch")


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Run every row, then tabulate; 2 after a one-line error."""
    options = parse_arguments(arguments)
    recipe = f"{options.paper}/{options.scale}" if options.recipe is None else options.recipe
    label = label_of(options)
    out = options.out or Path("outputs/tables") / f"{label}-{options.id}"
    rows = [row for row in ROWS[options.paper] if options.scale == "full" or row not in AT_FULL_SCALE]
    jobs = [(row, plan(row, seed, recipe, options)) for seed in options.seeds for row in rows]
    folder_to_write("--out", out)
    folder_to_write("paths.outputs", Path(jobs[0][1].paths.outputs))
    done = run_all(jobs, options)
    first = jobs[0][1]
    records = [read_record(folder) for folder in dict.fromkeys(run.folder for run in done)]
    tables = write_tables(records, out, options.paper, first.protocol.name, expected=titles(first))
    if options.paper == "jem":
        draw_reliability(done, out / "reliability.png")
    if options.record:
        for record in records:
            keep_record(record, options.record, label)
    for name, table in tables.items():
        console = Console() if sys.stdout.isatty() else Console(width=width(table))
        console.print(to_terminal(table))
        say(f"written: {out / f'{name}.md'} and {out / f'{name}.csv'}")
    return 0


def label_of(options: argparse.Namespace) -> str:
    """What the files of a table are called by: the paper at full scale, else the scale and, of all but Energy's, it."""
    if options.recipe is not None:
        return str(options.recipe).replace("/", "_")
    shorter = options.scale if options.paper == "energy" else f"{options.scale}_{options.paper}"
    return (options.paper if options.scale == "full" else shorter) + ("_from_trained" if options.init else "")


def run_all(jobs: Sequence[tuple[str, Settings]], options: argparse.Namespace) -> list[Run]:
    """Train and evaluate every row, sample and attack where the paper does."""
    done: list[Run] = []
    for row, settings in jobs:
        if row == "jem":
            # The first seed's classifier measures the samples of all seeds, so that distances compare.
            draw(row, settings, done[0], CHAIN_STEPS[options.scale])
        done.append(carry_out(row, settings))
    if options.paper == "jem":
        attack(done, jobs[0][1], ATTACKS[options.scale])
    return done


def plan(row: str, seed: int, recipe: str, options: argparse.Namespace) -> Settings:
    """The settings of one row and seed; every row is composed before the first one runs."""
    name = f"{recipe}/{options.id}_{ROWS[options.paper][row]}"
    overrides = [f"experiment={name}", f"scale={options.scale}", f"seed={seed}"]
    if options.init is None:
        return compose_settings([*overrides, *options.overrides])
    start = open_run(options.init)
    fitting = [f"backbone={start.identity['backbone']['name']}", f"transform={start.identity['transform']['name']}"]
    if row == "softmax":
        settings = compose_settings([*overrides, *fitting, *options.overrides])
        return replace(settings_for(settings, start), run=options.init)
    return compose_settings([*overrides, *fitting, f"init_from={options.init}", *options.overrides])


def carry_out(row: str, settings: Settings) -> Run:
    """Train and evaluate a row as far as it is not done; the run it leads to."""
    if settings.run is None:
        train(settings)
        return run_of(settings, choose_device(settings.trainer.device))
    run = open_run(settings.run)
    if not already_evaluated(run, settings):
        evaluate(settings)
    return run


def draw(row: str, settings: Settings, classifier: Run, chain_steps: int) -> None:
    """Trains a JEM run, then what scripts/sample.py RUN --by-class --chain --features CLASSIFIER does.

    That comes before the run's evaluation, so that the report shows it; samples that are there stay.
    """
    paths, device = settings.paths.data_paths(), choose_device(settings.trainer.device)
    folder = run_of(settings, device).folder / "samples"
    if (folder / "samples.json").is_file():
        say(f"sampled already: {folder} (delete samples.json to draw again)")
        return
    run = carry_out(row, replace(settings, evaluate=False))
    sampler = Sampler(run, Sampling(chain_steps=chain_steps), device)
    samples = draw_samples(sampler, folder, class_names(run, paths), by_class=True, chain=True)
    facts = (device, settings.max_eval_images, sampler.sampling.seed)
    quality = {
        "run": run.name,
        "inception": inception_facts(samples, run, paths, paths.store / INCEPTION_WEIGHTS, *facts),
        "frechet_distance": frechet_facts(samples, run, classifier, paths, *facts),
    }
    save_samples(folder, samples, quality)
    say(f"written: {folder}")


def attack(runs: Sequence[Run], settings: Settings, plan: AttackPlan) -> None:
    """What scripts/robustness.py JEM_RUN CLASSIFIER does, with every classifier of the JEM run's seed."""
    paths, device = settings.paths.data_paths(), choose_device(settings.trainer.device)
    classifiers = [run for run in runs if run.identity["method"]["name"] == "ce"]
    for run in (run for run in runs if run.identity["method"]["name"] == "jem"):
        todo = plan
        for baseline in (each for each in classifiers if each.identity["seed"] == run.identity["seed"]):
            assess(run, baseline, todo, paths, device)
            todo = replace(plan, distal_steps=0)  # those beside the first stay


def draw_reliability(runs: Sequence[Run], path: Path) -> None:
    """The diagrams of classifiers and JEM beside each other, with the bins of the paper's protocol."""
    networks, bins = {}, 0
    for run in runs:
        entry = last_evaluation(read_record(run.folder))[0]
        evidence = read_evidence(run.folder / "scores", entry)
        bins = entry["protocol"]["bins"]
        known = run.identity
        name = f"{known['method']['name'].upper()} {known['backbone']['name']}, seed {known['seed']}"
        if evidence.confidence is not None and evidence.correct is not None:
            networks[name] = (evidence.confidence, evidence.correct)
    write_bytes(path, png_bytes(reliability_panels(networks, bins)))
    say(f"written: {path}")


def titles(settings: Settings) -> dict[str, str]:
    """Every set of the list by its title, so that one that is not there leaves a visible gap."""
    paths = settings.paths.data_paths()
    return {name: str(load_entry(name, paths)["title"]) for name in settings.ood_data.sets}


def keep_record(record: dict[str, Any], folder: Path, label: str) -> None:
    """The ledger's copy of results.json: the latest evaluation under each protocol and list of sets."""
    latest = {(entry["protocol"]["name"], entry["ood_data"]): entry for entry in record["evaluations"]}
    path = folder / f"{label}-{record['run']}.json"
    save_json(path, {**record, "evaluations": list(latest.values())})
    say(f"recorded: {path}")
