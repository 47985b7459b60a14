"""What a training step costs here, and how much of it is the data path: ratios from interleaved minima of one run.

    python scripts/benchmark/training.py                            WRN-40-2 with energy fine-tuning on digits
    python scripts/benchmark/training.py experiment=cider/small/cifar10_cider
    python scripts/benchmark/training.py backbone=resnet20 trainer.precision=bf16 id_data=cifar10 outliers=cifar100

Three things are timed in turn: gathering and augmenting a batch; forward and backward on ready batches; both together
as `fit` does them. Overrides are those of train.py.
"""

from collections.abc import Sequence

from farout.commands.arguments import Parser, guarded
from farout.commands.benchmark.timing import interleaved
from farout.config.compose import compose_settings
from farout.engine.fit import Checkpointing, Loop
from farout.engine.progress import say
from farout.runs.environment import choose_device, device_name
from farout.runs.training import TrainingJob

ROUNDS = 5


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Time the three, print milliseconds and ratios; 2 after a one-line error."""
    parser = Parser(description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as for train.py")
    overrides = parser.parse_args(arguments).overrides
    named = any(word.startswith("experiment=") for word in overrides)
    settings = compose_settings(overrides if named else ["method=energy", "id_data=digits", *overrides])
    device = choose_device(settings.trainer.device)
    job = TrainingJob.of(settings, device)
    batches, (model, method) = job.batches(), job.networks()
    loop = Loop(model, method, settings.schedule.optimisation(), 10**9, Checkpointing())
    model.train()
    ready = batches(0)
    loop.method.prepare(model, ready, [batch for batch in ready.values() if batch.labels is not None])
    tasks = {
        "batch": lambda: batches(1),
        "network": lambda: loop.update(lambda step: ready, 0),
        "step": lambda: loop.update(batches, 0),
    }
    with model.precision(job.dtype):
        times = interleaved(tasks, ROUNDS, device)
    images = sum(len(batch.images) for batch in ready.values())
    say(f"{settings.backbone.name}, {images} images a step, {job.run.identity['precision']}, {device_name(device)}")
    for name, seconds in times.items():
        say(f"  {name:8} {1000 * seconds:9.2f} ms  {images / seconds:9,.0f} images/s")
    say(f"  data path: {100 * times['batch'] / times['step']:.1f} % of a step")
    return 0
