"""Learning rates as functions of the update's index."""

import math


def cosine_lr(update: int, total: int, lr: float, lr_end: float = 1e-6) -> float:
    """Learning rate of the 0-based `update` of `total`: a half cosine from `lr` to `lr_end`.

    Both official codes step the scheduler before the optimiser, so update i uses step i + 1: `lr` itself is never
    used, and the last update runs at exactly `lr_end`.
    """
    return lr_end + (lr - lr_end) * 0.5 * (1 + math.cos(math.pi * (update + 1) / total))
