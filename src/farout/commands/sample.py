"""Images that a finished JEM run generates, as pictures and as numbers.

Without options: the run's replay buffer as it is. With --rounds chains go on from the buffer or, --from noise, from
fresh noise: each round draws 64 rows, refines them by --steps Langevin steps and puts them back. The paper's code takes
1000 rounds of 40 or more. The run itself is only read; RUN/samples (or --out) gets samples.npz, samples.json and PNGs,
and the run's report.html, where there is one, shows RUN/samples.

IS and FID need the package torch-fidelity and the file of Inception's weights (--inception), which is never downloaded.
--features RUN measures a Frechet distance on a classifier of yours instead; that figure is not FID.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from farout.commands.arguments import Parser, folder_to_write, guarded, number, seed, whole
from farout.config.compose import compose_settings
from farout.data import default_paths
from farout.engine.progress import say
from farout.metrics.generation import INCEPTION_WEIGHTS
from farout.places import conf_names
from farout.report.page.samples import quality_lines
from farout.runs.environment import choose_device
from farout.runs.evaluation_files import renew_report
from farout.runs.logger import known_in_wandb, logged, require_packages
from farout.runs.run import open_run
from farout.runs.sample_quality import frechet_facts, inception_facts
from farout.runs.samples import Sampler, Sampling, class_names, draw_samples, save_samples
from farout.runs.wandb_log import Session

EPILOG = """\
examples:
  python scripts/sample.py outputs/runs/NAME --by-class --chain
  python scripts/sample.py outputs/runs/NAME --from noise --rounds 1000 --count 10000
  python scripts/sample.py outputs/runs/NAME --features outputs/runs/CLASSIFIER
"""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; raises ConfigError on a wrong one."""
    parser = Parser(description=__doc__, epilog=EPILOG)
    add, usual = parser.add_argument, Sampling()
    add("run", type=Path, metavar="RUN", help="folder of a finished JEM run")
    add("--from", dest="source", choices=("buffer", "noise"), default="buffer", help="default: buffer")
    add("--rounds", type=whole(0), help="of chains (default: none from the buffer, 20 from noise)")
    add("--steps", type=whole(), default=usual.steps, help=f"Langevin steps of a round (default: {usual.steps})")
    add(
        "--reinit",
        type=number(0, 1),
        default=usual.reinit,
        help=f"share of new chains (default: {usual.reinit:g})",
    )
    add("--count", type=whole(2), default=usual.count, help=f"images of a fresh buffer (default: {usual.count})")
    add("--batch-size", type=whole(), default=usual.batch_size, help=f"chains at a time (default: {usual.batch_size})")
    add("--by-class", action="store_true", help="also: grouped by predicted class, and chains that seek a class")
    add("--chain", action="store_true", help="also: chains from noise to image, step by step")
    add(
        "--chain-steps", type=whole(), default=usual.chain_steps, metavar="K",
        help=f"steps of the chains of --by-class and --chain (default: {usual.chain_steps})",
    )  # fmt: skip
    add("--features", type=Path, metavar="RUN2", help="a classifier's run: Frechet distance on its features")
    add("--inception", type=Path, metavar="FILE", help=f"Inception's weights (default: DATA/{INCEPTION_WEIGHTS})")
    add("--reference-images", type=whole(4), metavar="N", help="compare with N images of a split (default: all)")
    add("--seed", type=seed, default=usual.seed, help=f"default: {usual.seed}")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    add("--out", type=Path, help="another folder (default: RUN/samples)")
    add(
        "--logger", nargs="+", choices=conf_names("logger"), default=["none"], metavar="LOGGER",
        help="also tell the run's log there: wandb, tensorboard (default: none)",
    )  # fmt: skip
    return parser.parse_args(arguments)


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, measure, write; 2 after a one-line error."""
    sample(parse(arguments))
    return 0


def quality_figures(quality: Mapping[str, Any]) -> dict[str, float]:
    """The figures of samples.json by flat names; those that were not measured are left out."""
    measured = {
        "inception_score": quality["inception"].get("inception_score", {}).get("mean"),
        "fid": quality["inception"].get("fid", {}).get("value"),
        "frechet_distance": quality.get("frechet_distance", {}).get("samples", {}).get("value"),
    }
    return {f"samples/{name}": value for name, value in measured.items() if value is not None}


def sample(options: argparse.Namespace) -> None:
    """Everything that was asked for, into one folder."""
    rounds = options.rounds if options.rounds is not None else (0 if options.source == "buffer" else 20)
    names = ("source", "steps", "reinit", "count", "batch_size", "chain_steps", "seed")
    sampling = Sampling(rounds=rounds, **{name: getattr(options, name) for name in names})
    folder_to_write("--out", options.out)
    settings = compose_settings([f"logger=[{','.join(options.logger)}]"]).logger
    require_packages(settings)
    run, paths, device = open_run(options.run), default_paths(), choose_device(options.device, "--device")
    classifier = None if options.features is None else open_run(options.features)
    sampler = Sampler(run, sampling, device)
    folder = options.out or run.folder / "samples"
    samples = draw_samples(sampler, folder, class_names(run, paths), options.by_class, options.chain)
    facts = (device, options.reference_images, options.seed)
    weights = options.inception or paths.store / INCEPTION_WEIGHTS
    quality: dict[str, Any] = {"run": run.name, "inception": inception_facts(samples, run, paths, weights, *facts)}
    if classifier is not None:
        quality["frechet_distance"] = frechet_facts(samples, run, classifier, paths, *facts)
    save_samples(folder, samples, quality)
    if settings.names:
        pictures = sorted(folder.glob("*.png"))
        with run.locked(), logged(run, settings, Session("sample", known=known_in_wandb(run))) as logger:
            logger.samples(pictures, quality_figures(quality))
    written = [folder, *(renew_report(run.folder) if options.out is None else [])]
    for line in [
        f"{run.name}: {len(samples.images):,} samples",
        *quality_lines(quality),
        *(f"written: {path}" for path in written),
    ]:
        say(line)
