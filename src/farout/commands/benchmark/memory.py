"""The most memory that work takes, in a process of its own: above what it held before its inputs, these included."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from farout.commands.benchmark.lines import AnyLine, Line, Place, Side, Unmeasured, require_close
from farout.commands.benchmark.metrics import make_scores
from farout.commands.benchmark.neighbours import K, features, installed
from farout.errors import FaroutError

PART, MIB = "memory", 2**20
STATUS = Path("/proc/self/status")


def lines(place: Place) -> Iterator[AnyLine]:
    """Metrics against pytorch-ood, KNN against the matrix of all distances."""
    n = place.pick(10_000, 1_000_000, 1_000_000)
    queries = place.pick(100, 2000, 2000)
    bank = 25 * queries
    if place.size == "cuda":
        yield Unmeasured(PART, "peak memory of a process", "no matter of the GPU: see the CPU's table")
        return
    if not STATUS.exists():
        yield Unmeasured(PART, "peak memory", "this system does not say what a process held at most")
        return
    if installed("pytorch_ood"):
        scale = f"{n:,} ID and {n:,} OOD scores, float32"
        yield _line("FPR95, AUROC, AUPR", scale, ("both conventions", "metrics"), ("pytorch-ood", "pytorch_ood"), n)
    else:
        yield Unmeasured(PART, "FPR95, AUROC, AUPR", "pytorch-ood is not installed: pip install pytorch-ood")
    scale = f"{queries:,} queries, {bank:,} features of 512"
    yield _line(
        f"distance to the {K}th neighbour", scale, ("in blocks", "knn"), ("all distances at once", "matrix"), queries
    )


def _line(name: str, scale: str, ours: tuple[str, str], baseline: tuple[str, str], size: int) -> Line:
    sides, results = [], []
    for what, task in (ours, baseline):
        mib, result = _in_a_child(task, size)
        sides.append(Side.of(what, [mib]))
        results.append(result)
    agreement = require_close("results", results[0], results[1], 1e-4)
    return Line(PART, name, scale, sides[0], sides[1], agreement, 1, "MiB")


def _in_a_child(task: str, size: int) -> tuple[float, float]:
    code = f"from {__name__} import measured; print(*measured({task!r}, {size}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise FaroutError(f"measuring the memory of {task} failed: {last}")
    mib, result = done.stdout.split()[-2:]
    return float(mib), float(result)


def measured(task: str, size: int) -> tuple[float, float]:
    """MiB that this process grows by at its peak, and a number that the work came to."""
    work = TASKS[task]()
    work(10)  # a first, tiny call loads what any call needs
    before = _held("VmRSS")
    result = work(size)
    return max(0.0, _held("VmHWM") - before), result


def _held(key: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at most so far."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) / 1024


def _metrics() -> Callable[[int], float]:
    from farout.metrics import both_conventions

    return lambda n: both_conventions(*make_scores(n, np.dtype(np.float32)), aupr="trapezoid")["auroc"]


def _pytorch_ood() -> Callable[[int], float]:
    from pytorch_ood.metrics import OODMetrics

    def work(n: int) -> float:
        scores = torch.from_numpy(-np.concatenate(make_scores(n, np.dtype(np.float32))))
        labels = torch.cat([torch.zeros(n, dtype=torch.int64), -torch.ones(n, dtype=torch.int64)])
        return float(OODMetrics().update(scores, labels).compute()["AUROC"])

    return work


def _knn() -> Callable[[int], float]:
    from farout.commands.benchmark.neighbours import search

    return lambda n: float(search(features(25 * n, 1), features(n, 2), "torch").mean())


def _matrix() -> Callable[[int], float]:
    def work(n: int) -> float:
        bank, queries = F.normalize(features(25 * n, 1)), F.normalize(features(n, 2))
        return float(torch.cdist(queries, bank).kthvalue(K, dim=1).values.double().mean())

    return work


TASKS = {"metrics": _metrics, "pytorch_ood": _pytorch_ood, "knn": _knn, "matrix": _matrix}
