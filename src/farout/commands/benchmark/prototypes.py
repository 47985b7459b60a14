"""CIDER's prototype update with its dispersion loss, forward and backward, against the loop over the samples."""

from collections.abc import Iterator

from torch import Tensor

from farout.commands.benchmark.cider import draw, loop_over_samples, plain_dispersion, require_equal, step
from farout.commands.benchmark.lines import AnyLine, Line, Place, Side
from farout.commands.benchmark.timing import Turn, in_turns
from farout.kernels import runs_triton
from farout.methods.cider import dispersion_loss, update_prototypes
from farout.methods.sphere import advance_on_device

MOMENTUM = 0.95


def lines(place: Place) -> Iterator[AnyLine]:
    """Ten classes and a hundred."""
    samples = place.pick(64, 1024, 1024)
    kernel = runs_triton(place.device)

    update = _by_kernel if kernel else update_prototypes
    for classes in (10, 100):
        inputs = draw(samples, 128, classes, place.device)
        require_equal(inputs, MOMENTUM, update)
        single = inputs[0].float(), inputs[1].float(), inputs[2]
        tasks = {
            "ours": Turn(lambda single=single: step(update, dispersion_loss, single, MOMENTUM)),  # type: ignore[misc]
            "loop": Turn(lambda single=single: step(loop_over_samples, plain_dispersion, single, MOMENTUM)),  # type: ignore[misc]
        }
        seconds = in_turns(tasks, place.pick(2, 20, 10), place.device)
        mine = Side.of("by one kernel" if kernel else "by rank", seconds["ours"])
        scale = f"{samples} embeddings of 128, {classes} classes, float32"
        baseline = Side.of("sample by sample", seconds["loop"])
        agreement = "loss, prototypes and gradients equal"
        yield Line("prototypes", "update and dispersion", scale, mine, baseline, agreement, len(seconds["ours"]))


def _by_kernel(prototypes: Tensor, features: Tensor, labels: Tensor, momentum: float) -> Tensor:
    return advance_on_device(prototypes, features, momentum, labels)
