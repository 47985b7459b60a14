"""Time CIDER's prototype update and dispersion loss against a plain loop over the samples, forward and backward.

    python scripts/benchmark/cider.py
    python scripts/benchmark/cider.py --samples 1024 --dimensions 128 --classes 10 100 --device cuda

The loop is what one would write from the paper's equation 7: each sample in turn moves its class's row, and autograd
follows. Both get the same embeddings; losses, prototypes and gradients must agree first, in float64 to 1e-10 and in
float32 to 1e-4 of the largest gradient. Then the two alternate, and the fastest round of each is compared.
"""

import math
import platform
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from farout.commands.arguments import Parser, guarded, number, whole
from farout.commands.benchmark.lines import Different
from farout.commands.benchmark.timing import interleaved
from farout.methods.cider import dispersion_loss, update_prototypes
from farout.runs.environment import choose_device

Update = Callable[[Tensor, Tensor, Tensor, float], Tensor]
Inputs = tuple[Tensor, Tensor, Tensor]
PRECISIONS = ((torch.float64, 1e-10), (torch.float32, 1e-4))  # and how far apart they may be in it


def loop_over_samples(prototypes: Tensor, features: Tensor, labels: Tensor, momentum: float) -> Tensor:
    """The plain recursion; labels are read to the host once, and rows are kept in a list so that nothing is copied."""
    rows = list(prototypes.unbind())
    for feature, label in zip(features.unbind(), labels.tolist(), strict=True):
        rows[label] = F.normalize(momentum * rows[label] + (1 - momentum) * feature, dim=0)
    return torch.stack(rows)


def plain_dispersion(prototypes: Tensor, temperature: float) -> Tensor:
    """Equation 6 on unit prototypes, as it stands."""
    others = ~torch.eye(len(prototypes), dtype=torch.bool, device=prototypes.device)
    cosines = (prototypes @ prototypes.T)[others].view(len(prototypes), -1)
    return (torch.logsumexp(cosines / temperature, dim=1) - math.log(len(prototypes) - 1)).mean()


def draw(samples: int, dimensions: int, classes: int, device: torch.device) -> Inputs:
    """Unit prototypes (C, D), unit embeddings (B, D) and labels (B,) of two views, from a fixed seed, in float64."""
    generator = torch.Generator().manual_seed(0)
    prototypes = F.normalize(torch.randn(classes, dimensions, generator=generator, dtype=torch.float64), dim=1)
    features = F.normalize(torch.randn(samples, dimensions, generator=generator, dtype=torch.float64), dim=1)
    labels = torch.randint(classes, (-(-samples // 2),), generator=generator).repeat(2)[:samples]
    return prototypes.to(device), features.to(device), labels.to(device)


def step(
    update: Update, dispersion: Callable[[Tensor, float], Tensor], inputs: Inputs, momentum: float
) -> tuple[Tensor, ...]:
    """(loss, prototypes, gradient of the features) of one forward and backward."""
    prototypes, features, labels = inputs
    features = features.detach().requires_grad_()
    moved = update(prototypes, features, labels, momentum)
    loss = dispersion(moved, 0.1)
    (gradient,) = torch.autograd.grad(loss, features)
    return loss.detach(), moved.detach(), gradient


def require_equal(inputs: Inputs, momentum: float, update: Update = update_prototypes) -> None:
    """Raises Different unless both ways agree: in both precisions; an `update` of its own in float32 alone."""
    for dtype, tolerance in PRECISIONS if update is update_prototypes else PRECISIONS[1:]:
        cast = (inputs[0].to(dtype), inputs[1].to(dtype), inputs[2])
        ours = step(update, dispersion_loss, cast, momentum)
        plain = step(loop_over_samples, plain_dispersion, cast, momentum)
        for name, a, b in zip(("loss", "prototypes", "gradients"), ours, plain, strict=True):
            error = float((a - b).abs().max() / b.abs().max())
            if not error <= tolerance:
                raise Different(f"{name} differ by {error:.1e} in {dtype}: the comparison is void")


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Check, measure and print a line for each number of classes."""
    parser = Parser(description=__doc__)
    parser.add_argument("--samples", type=whole(), default=1024, help="embeddings a batch, both views counted")
    parser.add_argument("--dimensions", type=whole(), default=128)
    parser.add_argument("--classes", type=whole(2), nargs="+", default=[10, 100])
    parser.add_argument("--momentum", type=number(0, 1), default=0.95)
    parser.add_argument("--rounds", type=whole(), default=20)
    parser.add_argument("--threads", type=whole(1, 4096), default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    device = choose_device(options.device, "--device")
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    print(f"{options.samples} embeddings of {options.dimensions}, float32, {where}, {options.threads} thread(s):")
    for classes in options.classes:
        _compare(draw(options.samples, options.dimensions, classes, device), options.momentum, options.rounds, device)
    return 0


def _compare(inputs: Inputs, momentum: float, rounds: int, device: torch.device) -> None:
    require_equal(inputs, momentum)
    single = (inputs[0].float(), inputs[1].float(), inputs[2])
    tasks = {
        "by rank": lambda: step(update_prototypes, dispersion_loss, single, momentum),
        "by sample": lambda: step(loop_over_samples, plain_dispersion, single, momentum),
    }
    ours, plain = interleaved(tasks, rounds, device).values()
    print(
        f"  {len(inputs[0]):>4} classes: by rank {1e3 * ours:.2f} ms, by sample {1e3 * plain:.2f} ms, "
        f"ratio {plain / ours:.1f} (fastest of {rounds}; equal loss, prototypes and gradients)"
    )
