"""Times the detection metrics: python scripts/benchmark/metrics.py [images per side ...]"""

import platform
import sys
import time
from datetime import date

import numpy as np

from farout.metrics import detection_metrics


def seconds(n: int, repeats: int = 3) -> float:
    """The best of `repeats` timings on n ID and n OOD scores (float32 normal draws)."""
    rng = np.random.default_rng(0)
    id_scores, ood_scores = (rng.normal(mean, 1, n).astype(np.float32) for mean in (1, 0))
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        detection_metrics(id_scores, ood_scores)
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    """Prints one line a size, with what is needed to compare it."""
    print(f"{date.today()}, {platform.processor() or platform.machine()}, NumPy {np.__version__}")
    for n in [int(arg) for arg in sys.argv[1:]] or [10_000, 100_000, 1_000_000]:
        print(f"{n:>10,} ID + {n:,} OOD scores: {seconds(n):.3f} s")


if __name__ == "__main__":
    main()
