"""Detection metrics against pytorch-ood's OODMetrics, timed in turn, and the memory that large sets take.

    python scripts/benchmark/metrics.py                       1M + 1M scores timed; 10M + 10M measured
    python scripts/benchmark/metrics.py --images 100000 --memory-images 1000000

Both get their scores ready made, as float32 and as float64: ours as two arrays, theirs as a tensor and labels. Times
are minima over the rounds of one run, in which all tasks take turns. OODMetrics counts AUPR both ways and AUTC, but FPR
with OOD positive only; `both_conventions` is the closer match, `detection_metrics` what a row of a table needs.
Memory is the peak resident set of a fresh process above what it held before it made the scores: inputs included.
"""

import argparse
import platform
import resource
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import torch

from farout.commands.arguments import Parser, guarded, whole
from farout.commands.benchmark.timing import interleaved
from farout.errors import MissingDataError
from farout.metrics import both_conventions, detection_metrics

GIB = 2**30


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line a dtype with both ratios, then the memory; 2 where pytorch-ood is missing."""
    options = _options(arguments)
    if options.own_memory:
        print(own_memory(options.own_memory))
        return 0
    print(f"{date.today()}, {platform.processor() or platform.machine()}, {torch.get_num_threads()} thread(s)")
    try:
        for dtype in (np.float32, np.float64):
            _report_times(options.images, np.dtype(dtype), options.rounds)
    except ImportError:
        raise MissingDataError("pytorch-ood is missing: pip install pytorch-ood") from None
    n = options.memory_images
    used = measured_memory(n)
    print(f"{n:,} ID + {n:,} OOD float64 scores: {used / GIB:.2f} GiB, {used / (2 * GIB):.2f} of 2 GiB")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--images", type=whole(), default=1_000_000, help="timed scores of each class (1,000,000)")
    parser.add_argument("--memory-images", type=whole(), default=10_000_000, help="measured scores (10,000,000)")
    parser.add_argument("--rounds", type=whole(), default=7, help="turns that each task takes (7)")
    parser.add_argument("--own-memory", type=whole(0), default=0, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _report_times(n: int, dtype: np.dtype, rounds: int) -> None:
    """One line: their milliseconds, ours, and ours as a share of theirs."""
    from pytorch_ood.metrics import OODMetrics

    id_scores, ood_scores = make_scores(n, dtype)
    outlierness = torch.from_numpy(-np.concatenate([id_scores, ood_scores]))
    labels = torch.cat([torch.zeros(n, dtype=torch.int64), -torch.ones(n, dtype=torch.int64)])
    times = interleaved(
        {
            "pytorch-ood": lambda: OODMetrics().update(outlierness, labels).compute(),
            "detection_metrics": lambda: detection_metrics(id_scores, ood_scores, "ood", fpr_rule="first"),
            "both_conventions": lambda: both_conventions(id_scores, ood_scores, aupr="trapezoid"),
        },
        rounds,
    )
    theirs = times.pop("pytorch-ood")
    ours = ", ".join(f"{name} {1000 * seconds:.1f} ms ({seconds / theirs:.2f})" for name, seconds in times.items())
    print(f"{n:,} ID + {n:,} OOD {dtype} scores: pytorch-ood {1000 * theirs:.1f} ms; {ours}")


def make_scores(n: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """(n,) ID and (n,) OOD scores: normal, one standard deviation apart."""
    generator = np.random.default_rng(0)
    ood_scores = generator.standard_normal(n).astype(dtype, copy=False)
    id_scores = generator.standard_normal(n).astype(dtype, copy=False)
    id_scores += 1
    return id_scores, ood_scores


def measured_memory(n: int) -> int:
    """Bytes that a fresh process needs for n ID and n OOD float64 scores and their metrics."""
    command = [sys.executable, "-m", __spec__.name, "--own-memory", str(n)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def own_memory(n: int) -> int:
    """Bytes that this process grows by at its peak; a higher peak before that can only make the figure larger."""
    before = _resident()
    both_conventions(*make_scores(n, np.dtype(np.float64)))
    return _peak() - before


def _peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _resident() -> int:
    """Bytes held now; where the system does not say, the most held so far."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() if statm.exists() else _peak()


if __name__ == "__main__":
    sys.exit(main())
