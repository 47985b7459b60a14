"""Time the scores of an evaluation against the forward passes that they share, in one run.

    python scripts/benchmark/scores.py outputs/runs/NAME
    python scripts/benchmark/scores.py outputs/runs/NAME score=[msp,energy,knn] trainer.device=cuda

Every data set passes through the network once, without the cache on disk; then each score is fitted and read off those
outputs, and measured under the protocol. Two ratios of everything to the forward passes alone are printed: with the
pass over the training images, which scores that fit something need once per network, and without it on either side.
"""

import sys
from collections.abc import Sequence
from itertools import pairwise
from time import perf_counter

import torch
from rich.console import Console
from rich.table import Table

from farout.commands.arguments import Parser, guarded
from farout.config.coerce import Component
from farout.config.settings import Settings
from farout.metrics.protocol import apply
from farout.runs.environment import choose_device
from farout.runs.inputs import evaluation_data
from farout.runs.overrides import compose_evaluation
from farout.runs.run import Run, open_run, settings_for
from farout.runs.scoring import Predictor
from farout.scores import Fitting, Outputs

SCORES = "score=[msp,max_logit,energy,uniform_cross_entropy,mahalanobis,knn,react,ash,dice,vim]"


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 2 after a one-line error."""
    parser = Parser(description=__doc__)
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as for eval.py, e.g. score=[msp,knn]")
    options = parser.parse_intermixed_args(arguments)
    run = open_run(options.run)
    composed = compose_evaluation([SCORES, "ood_data=stand_in", "trainer.cache_gib=0", *options.overrides])
    measure(run, settings_for(composed, run))
    return 0


def measure(run: Run, settings: Settings) -> None:
    """One pass over every set, then every score; a table of seconds and the two ratios."""
    predictor = Predictor(run, settings, choose_device(settings.trainer.device))
    data = evaluation_data(settings)
    sets = {"id": data.id_test, **data.ood}
    predictor.outputs(data.id_test.subset(range(min(500, len(data.id_test)))))  # what only a first call costs
    outputs, forward = {}, 0.0
    for name, image_set in sets.items():
        start = perf_counter()
        outputs[name] = predictor.outputs(image_set)
        forward += perf_counter() - start
    start = perf_counter()
    train = predictor.outputs(predictor.train_images())
    training_pass = perf_counter() - start
    seconds = {part.name: _time_score(part, predictor, train, outputs, settings) for part in settings.scores}
    _print(settings, seconds, forward, training_pass, sum(map(len, sets.values())), len(train))


def _time_score(
    component: Component, predictor: Predictor, train: Outputs, outputs: dict[str, Outputs], settings: Settings
) -> tuple[float, float, float]:
    """Seconds to fit, to score all sets, and to measure them under the protocol."""
    marks = [perf_counter()]
    score = component.build()
    score.fit(Fitting(predictor.head, train))
    marks.append(perf_counter())
    values = {name: score(each).double().numpy() for name, each in outputs.items()}
    marks.append(perf_counter())
    for name in outputs:
        if name != "id":
            apply(settings.protocol, values["id"], values[name], name)
    marks.append(perf_counter())
    fit, use, metrics = (b - a for a, b in pairwise(marks))
    return fit, use, metrics


def _print(
    settings: Settings,
    seconds: dict[str, tuple[float, float, float]],
    forward: float,
    training_pass: float,
    images: int,
    train_images: int,
) -> None:
    table = Table("score", "fit s", "score s", "metrics s", title=f"{settings.protocol.name} protocol")
    for name, parts in seconds.items():
        table.add_row(name, *(f"{part:.2f}" for part in parts))
    total = sum(map(sum, seconds.values()))
    console = Console() if sys.stdout.isatty() else Console(width=100)
    console.print(table)
    print(f"forward passes: {forward:.1f} s for {images} evaluated images, {training_pass:.1f} s for {train_images}")
    print(f"{len(seconds)} scores: {total:.1f} s on {torch.get_num_threads()} threads")
    with_training = (forward + training_pass + total) / (forward + training_pass)
    print(f"ratio with the training pass {with_training:.3f}, without {(forward + total) / forward:.3f}")
