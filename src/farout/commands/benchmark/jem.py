"""Time JEM's training step, and the chains within it, against a straightforward implementation of both.

    python scripts/benchmark/jem.py
    python scripts/benchmark/jem.py --backbone wrn_28_10_jem --batch 64 --steps 20 --device cuda --compile

The straightforward step is what one would write from the paper: chains through a network whose parameters still want
gradients, `loss.backward()` of the energy's sum in each step, a replay buffer in host memory, and the loss read to
the host every step. Both start from the same weights, buffer and random numbers; losses and samples must agree first
(buffers may not: where a row was drawn twice, the plain assignment leaves open which sample stays). Then they take
turns, and the fastest turn of each counts. Chains in bf16 are timed beside.
"""

import argparse
import platform
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from farout.backbones import Backbone
from farout.commands.arguments import Parser, guarded, whole
from farout.commands.benchmark.lines import Different
from farout.commands.benchmark.timing import interleaved
from farout.config.compose import compose_settings
from farout.engine.precision import full_fp32
from farout.methods import JEM, Batch
from farout.runs.environment import choose_device


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--backbone", default="wrn_10_2_jem", help="default: %(default)s; the paper's: wrn_28_10_jem")
    parser.add_argument("--batch", type=whole(), default=64, help="default: %(default)s")
    parser.add_argument("--steps", type=whole(), default=20, help="SGLD steps (default: %(default)s)")
    parser.add_argument("--rounds", type=whole(), default=5, help="turns of each (default: %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="also time our step with the trunk compiled")
    return parser.parse_args(arguments)


class Straightforward:
    """JEM's step without any of our care: the same mathematics, the same order of random draws."""

    def __init__(self, model: Backbone, buffer: Tensor, steps: int) -> None:
        self.model, self.buffer, self.steps = model, buffer.cpu().clone(), steps

    def chain(self, start: Tensor) -> Tensor:
        """(B, ...) after the chain; parameter gradients pile up on the way and are thrown away later."""
        x = start.detach()
        for _ in range(self.steps):
            x = x.detach().requires_grad_()
            self.model(x).logsumexp(1).sum().backward()
            assert x.grad is not None
            x = x.detach() + x.grad + 0.01 * torch.randn(x.shape, device=x.device)
        return x.detach()

    def sample(self, count: int, device: torch.device) -> Tensor:
        """Rows from host memory and back."""
        rows = torch.randint(0, len(self.buffer), (count,), device=device).cpu()
        fresh = torch.empty(count, *self.buffer.shape[1:], device=device).uniform_(-1, 1)
        restart = torch.rand(count, device=device) < 0.05
        start = torch.where(restart[:, None, None, None], fresh, self.buffer[rows].to(device))
        self.model.eval()
        ends = self.chain(start)
        self.model.train()
        self.buffer[rows] = ends.cpu()
        return ends

    def step(self, batches: dict[str, Batch], optimizer: torch.optim.Optimizer) -> float:
        """One update; the loss on the host."""
        ends = self.sample(len(batches["unlabelled"].images), batches["unlabelled"].images.device)
        generative = self.model(ends).logsumexp(1).mean() - self.model(batches["unlabelled"].images).logsumexp(1).mean()
        logits = self.model(batches["labelled"].images)
        loss = generative + F.cross_entropy(logits, batches["labelled"].targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())


def ours(model: Backbone, method: JEM, batches: dict[str, Batch], optimizer: torch.optim.Optimizer) -> Tensor:
    """One update as `farout.engine.fit` makes it; the loss stays on the device."""
    losses = method.loss(model, batches)
    optimizer.zero_grad(set_to_none=True)
    losses["total"].backward()
    optimizer.step()
    return losses["total"].detach()


def method_of(steps: int, precision: str, like: Tensor, model: Backbone) -> JEM:
    """JEM at the paper's settings with a filled buffer of 1,000."""
    settings = compose_settings(["method=jem"]).method.arguments
    changed: dict[str, Any] = {"sgld_steps": steps, "buffer_size": 1000, "sgld_precision": precision}
    method = JEM(**{**settings, **changed})
    torch.manual_seed(1)
    method.prepare(model, {"unlabelled": Batch(like)})
    return method.to(like.device)


def require_equal(steps: int, model: Backbone, batches: dict[str, Batch]) -> str:
    """Both implementations agree on the first step, which is said; raises Different where they do not."""
    method = method_of(steps, "fp32", batches["unlabelled"].images, model)
    plain = Straightforward(model, method.replay_buffer.images, steps)
    frozen = torch.optim.SGD(model.parameters(), 0.0)  # keeps the weights, so that both see the same
    with full_fp32():
        torch.manual_seed(2)
        mine = float(ours(model, method, batches, frozen))
        torch.manual_seed(2)
        theirs = plain.step(batches, frozen)
        ends = []
        for chain in (plain.chain, lambda start: method.refine(model, start, steps)):
            torch.manual_seed(3)
            ends.append(chain(batches["unlabelled"].images))
    apart = float((ends[0] - ends[1]).abs().max())
    said = f"the first step: losses {mine:.6f} and {theirs:.6f}, samples apart by at most {apart:.1e}"
    if not (abs(mine - theirs) <= 1e-4 * max(1.0, abs(theirs)) and apart <= 1e-3):
        raise Different(f"{said}: the two implementations differ, nothing is compared")
    return said


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Check, time, print."""
    words = parse(arguments)
    device = choose_device(words.device, "--device")
    settings = compose_settings(["method=jem", f"backbone={words.backbone}"])
    torch.manual_seed(0)
    model: Backbone = settings.backbone.build(num_classes=10).to(device)
    images = torch.rand(2, words.batch, 3, 32, 32, device=device) * 2 - 1
    labels = torch.randint(0, 10, (words.batch,), device=device)
    batches = {"unlabelled": Batch(images[0]), "labelled": Batch(images[1], labels)}
    print(require_equal(words.steps, model, batches))
    start = images[0]
    seconds = interleaved(tasks(words, model, batches, start), words.rounds, device)
    report(words, seconds, device)
    return 0


def tasks(words: argparse.Namespace, model: Backbone, batches: dict[str, Batch], start: Tensor) -> dict[str, Any]:
    """What takes turns."""
    full, half = (method_of(words.steps, precision, start, model) for precision in ("fp32", "bf16"))
    plain = Straightforward(model, full.replay_buffer.images, words.steps)
    optimizer = torch.optim.Adam(model.parameters(), 1e-6)
    found: dict[str, Any] = {
        "chain, straightforward": lambda: plain.chain(start),
        "chain, ours": lambda: full.refine(model, start, words.steps),
        "chain, ours, bf16": lambda: half.refine(model, start, words.steps),
        "step, straightforward": lambda: plain.step(batches, optimizer),
        "step, ours": lambda: ours(model, full, batches, optimizer),
        "step, ours, chains in bf16": lambda: ours(model, half, batches, optimizer),
    }
    if words.compile:
        settings = compose_settings(["method=jem", f"backbone={words.backbone}"])
        compiled: Backbone = settings.backbone.build(num_classes=10).to(start.device)
        compiled.load_state_dict(model.state_dict())
        compiled.compile_trunk()
        other = torch.optim.Adam(compiled.parameters(), 1e-6)
        found["step, ours, compiled"] = lambda: ours(compiled, full, batches, other)
    return found


def report(words: argparse.Namespace, seconds: dict[str, float], device: torch.device) -> None:
    """Milliseconds, and the ratio to the straightforward one of the same kind."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    print(f"{words.backbone}, batch {words.batch}, {words.steps} SGLD steps, {name}, torch {torch.__version__}")
    for task, spent in seconds.items():
        base = seconds[task.split(",")[0] + ", straightforward"]
        print(f"  {task:30s} {1000 * spent:9.1f} ms   {base / spent:5.2f} times as fast")
