"""Batch streams: which images a step sees, as a function of (seed, stream, step) alone.

Nothing here has state that a checkpoint would have to keep: a resumed run asks for step k and gets the batch that the
uninterrupted run got.
"""

import hashlib
import math

import numpy as np
import torch
from torch import Tensor

from farout.data.rules import HoldoutRule, OutlierOrder

Device = torch.device | str


def stable_seed(*parts: object) -> int:
    """A 63-bit seed from any printable parts, the same on every machine and Python."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def holdout_split(n: int, fraction: float, rule: HoldoutRule = "permuted") -> tuple[Tensor, Tensor]:
    """Indices (train, holdout) of n training images; the same for every seed, so parent and child hold out the same.

    "permuted" is the Outlier Exposure code's rule for image folders (legacy NumPy stream 0), "last" its rule for CIFAR
    and SVHN, which presumes the official order of the archive, as does "jem", JEM's for CIFAR: of a list shuffled by
    the legacy NumPy stream 1234 the first are held out.
    """
    kept = n - math.floor(n * fraction + 1e-9)
    if rule == "jem":
        shuffled = list(range(n))
        np.random.RandomState(1234).shuffle(shuffled)
        order = np.array(shuffled[n - kept :] + shuffled[: n - kept], dtype=np.int64)
    else:
        order = np.arange(n) if rule == "last" else np.random.RandomState(0).permutation(n)
    return torch.from_numpy(order[:kept].copy()), torch.from_numpy(order[kept:].copy())


def subset_rows(n: int, limit: int | None, seed: int) -> np.ndarray:
    """Which `limit` of n images take part, in rising order; those of a smaller limit are among those of a larger."""
    if limit is None or limit >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng([seed, n]).permutation(n)[:limit])


def steps_per_epoch(n: int, batch_size: int, drop_last: bool = False) -> int:
    """Batches that one pass over n images gives; with `drop_last` without the last, short one, but at least one."""
    return max(1, n // batch_size) if drop_last else math.ceil(n / batch_size)


class EpochShuffle:
    """Every epoch a fresh permutation; the last batch of an epoch may be short, or is left out (labelled images).

    Args:
        n: number of images.
        batch_size: images a step.
        seed, name: what the permutations are drawn from (on the CPU, so that every device sees the same).
        device: where the permutation is kept; a step then copies nothing from the host.
        drop_last: leave out the short batch, unless there is no other.
    """

    def __init__(
        self, n: int, batch_size: int, seed: int, name: str, device: Device = "cpu", drop_last: bool = False
    ) -> None:
        self.n, self.batch_size, self.seed, self.name, self.device = n, batch_size, seed, name, device
        self.steps_per_epoch = steps_per_epoch(n, batch_size, drop_last)
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    def order(self, epoch: int) -> Tensor:
        """The permutation (n,) of one epoch; the latest is kept."""
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(stable_seed(self.seed, self.name, epoch))
            order = torch.randperm(self.n, generator=generator)
            if (
                torch.device(self.device).type == "cuda"
            ):  # a GPU fetches from pinned memory without making the host wait
                order = order.pin_memory()
            self._epoch, self._order = epoch, order.to(self.device, non_blocking=True)
        return self._order

    def indices(self, step: int) -> Tensor:
        epoch, position = divmod(step, self.steps_per_epoch)
        return self.order(epoch)[position * self.batch_size : (position + 1) * self.batch_size]


class EndlessShuffle(EpochShuffle):
    """Always full batches: one permutation runs into the next (outliers, shuffled)."""

    def indices(self, step: int) -> Tensor:
        wanted, first = [], step * self.batch_size
        while first < (step + 1) * self.batch_size:
            pass_, position = divmod(first, self.n)
            piece = self.order(pass_)[position : position + (step + 1) * self.batch_size - first]
            wanted.append(piece)
            first += len(piece)
        return torch.cat(wanted)


class ContiguousWindow:
    """The papers' outlier order: each ID epoch reads one contiguous window from a random offset (ordered sets).

    The offset of epoch e is the e-th draw of the legacy NumPy stream of the seed; item i is (i + offset) modulo n - 1,
    one less than the length, as the official loader has it.
    """

    def __init__(self, n: int, batch_size: int, seed: int, steps_per_epoch: int, device: Device = "cpu") -> None:
        self.n, self.batch_size, self.seed, self.steps_per_epoch = n, batch_size, seed, steps_per_epoch
        self.device = device

    def offset(self, epoch: int) -> int:
        return int(np.random.RandomState(self.seed).randint(self.n, size=epoch + 1)[-1])

    def indices(self, step: int) -> Tensor:
        epoch, position = divmod(step, self.steps_per_epoch)
        first = position * self.batch_size + self.offset(epoch)
        return torch.arange(first, first + self.batch_size, device=self.device) % max(1, self.n - 1)


def outlier_stream(
    n: int, batch_size: int, seed: int, order: OutlierOrder, steps_per_epoch: int, device: Device = "cpu"
) -> EndlessShuffle | ContiguousWindow:
    """The outlier stream of a run: plainly shuffled, or the papers' window for sets whose order means something."""
    if order == "window":
        return ContiguousWindow(n, batch_size, seed, steps_per_epoch, device)
    return EndlessShuffle(n, batch_size, seed, "outliers", device)
