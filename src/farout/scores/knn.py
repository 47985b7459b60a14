"""Distance to the k-th nearest training feature (Sun et al., ICML 2022): exact, in bounded memory."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from farout.errors import ConfigError, FaroutError
from farout.scores.base import Fitting, Outputs, Score, TrainFacts
from farout.scores.blocks import in_blocks
from farout.scores.fitted import fitted, train_outputs

Backend = Literal["auto", "torch", "faiss"]
FAISS_FROM = 10_000  # training features, from which on building its index is soon repaid
QUERIES = 1024  # scored together
REACH = 16  # ranks around the k-th whose distances may be measured again
TINY = 1e-12  # a shorter feature is taken for a zero vector


class FaissIndex:
    """faiss's exact search by inner product, built when the first query comes; nothing of it is saved with a score.

    Args:
        choice: "faiss" always, "auto" where the package is and the bank is large, "torch" never.

    Raises:
        ConfigError: "faiss", and the package is not there.
    """

    def __init__(self, choice: Backend) -> None:
        if choice == "faiss" and _faiss() is None:
            raise ConfigError("backend=faiss needs the package faiss-cpu: pip install faiss-cpu, or give backend=auto")
        self.choice = choice
        self.index: Any = None

    def forget(self) -> None:
        """After another bank took the place of the one before."""
        self.index = None

    def serves(self, bank: Tensor) -> bool:
        """Whether a bank (N, D) is to be searched here: not on a GPU, whose products are quicker still."""
        if self.choice == "torch" or bank.device.type != "cpu" or bank.dtype != torch.float32:
            return False
        return self.choice == "faiss" or (len(bank) >= FAISS_FROM and _faiss() is not None)

    def search(self, bank: Tensor, scale: Tensor, unit: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The `count` largest cosines (Q, count) of unit queries (Q, D) with the scaled rows of the bank, and which."""
        faiss = _faiss()
        faiss.omp_set_num_threads(torch.get_num_threads())
        if self.index is None:
            index = faiss.IndexFlatIP(bank.shape[1])
            for rows, factors in zip(bank.split(QUERIES), scale.split(QUERIES), strict=True):
                index.add((rows * factors.to(rows.dtype).unsqueeze(1)).numpy())
            self.index = index
        cosines, places = self.index.search(unit.numpy(), count)
        return torch.from_numpy(cosines), torch.from_numpy(places)


def _faiss() -> Any:
    """The package where it is installed, else None; not on macOS, where its OpenMP and PyTorch's cannot be together."""
    if sys.platform == "darwin":
        return None
    try:
        return import_module("faiss")
    except ImportError:
        return None


class KNN(Score):
    """-|z - z_(k)|, z = h / |h|: minus the Euclidean distance to the k-th nearest unit training feature.

    The paper has k = 50 for CIFAR-10, 200 for CIFAR-100, 1000 for ImageNet; CIDER 100 and 300 for the CIFARs. The
    official codes square the distance, which changes no ranking. A zero feature stays zero, at distance 1 from all.

    How it stays exact: cosines come from one blocked matrix product in the features' own precision, which cannot
    tell distances below 1e-3 apart. Rounding moves each of them by at most `_slack`. So the k-th neighbour is among
    the images whose cosine is within two slacks of the k-th cosine; these are measured again in float64, as
    differences. Where more than `REACH` ranks on a side are that close (copies in the bank), the query is searched
    once more with float64 cosines.

    Args:
        k: the neighbour's rank, from 1.
        block_mib: bound on the memory of what is computed on the way, in MiB. The bank itself is not copied, but for
            faiss once.
        backend: what searches on a CPU in float32: "torch", or "faiss" (package faiss-cpu), which is quicker; "auto"
            takes faiss where it is installed and the bank has `FAISS_FROM` features. Either finds the same neighbours,
            whose distances are measured alike.
    """

    needs = ("train",)
    ways: ClassVar[Sequence[str]] = ("backend",)

    def __init__(self, k: int = 50, block_mib: int = 256, backend: Backend = "auto") -> None:
        if k < 1:
            raise ConfigError(f"k={k}: the neighbour's rank starts at 1")
        if block_mib < 1:
            raise ConfigError(f"block_mib={block_mib}: blocks need at least 1 MiB")
        self.k, self.budget, self.backend = k, block_mib * 2**20, FaissIndex(backend)
        self.name = "knn" if k == 50 else f"knn_k{k}"
        self._bank: Tensor | None = None

    def fit(self, fitting: Fitting) -> None:
        """Keeps the training features; raises FaroutError where they are fewer than k."""
        features = train_outputs(fitting, self.name).features
        self._check_bank(len(features))
        self._bank = features
        self._scale = in_blocks(lambda rows: _inverse_norms(rows.double()), features, 3 * features.shape[1])
        # |z - b|^2 / 2 = const - (z.b - |b|^2 / 2): a zero vector is nearer than its cosine of 0 says.
        self._lift = torch.where(self._scale == 0, 0.5, 0.0)
        self._has_zeros = bool((self._scale == 0).any())
        self.backend.forget()

    def check(self, train_facts: TrainFacts) -> None:
        """Raises FaroutError where the training images are fewer than k."""
        self._check_bank(train_facts.images)

    def _check_bank(self, size: int) -> None:
        if size < self.k:
            raise FaroutError(f"score {self.name} has {size} training images: set k to at most as many")

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) float64 in [-2, 0], on the bank's device."""
        bank = fitted(self._bank, self.name)
        per_query = max(4 * self._candidates(bank) * (bank.element_size() + 8), 24 * bank.shape[1])
        step = max(1, min(QUERIES, self.budget // 4 // per_query))
        found = torch.empty(len(outputs), dtype=torch.float64, device=bank.device)
        with _full_precision():
            for start in range(0, len(outputs), step):
                block = outputs.features[start : start + step].to(bank.device)
                found[start : start + step] = -self._distances(bank, block)
        return found

    def _candidates(self, bank: Tensor) -> int:
        return min(len(bank), self.k + REACH)

    def _distances(self, bank: Tensor, features: Tensor) -> Tensor:
        """(Q,) distances of one block of queries (Q, D)."""
        unit = features.double()
        unit = unit * _inverse_norms(unit).unsqueeze(1)
        distances, certain = self._searched(bank, unit, bank.dtype)
        if not bool(certain.all()):
            distances[~certain] = self._searched(bank, unit[~certain], torch.float64)[0]
        return distances

    def _searched(self, bank: Tensor, unit: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(Q,) distances of unit queries (Q, D), and whether cosines in `dtype` sufficed to tell (Q,).

        What float64 cannot tell either are neighbours of which more than `REACH` are nearer than about 1e-7.
        """
        cosines, where = self._nearest(bank, unit.to(dtype), self._candidates(bank))
        certain = self._certain(cosines, max(0, self.k - 1 - REACH), len(bank), bank.shape[1])
        first, end = self._window(cosines, certain, bank.shape[1])
        distances = self._measured(bank, unit, where[:, first:end]).kthvalue(self.k - first, dim=1).values
        return distances, certain

    def _window(self, cosines: Tensor, certain: Tensor, width: int) -> tuple[int, int]:
        """The ranks [first, end) that hold what may be the k-th neighbour of any query here, all within `REACH`.

        Mostly three or four: measuring is what costs. Where nothing is certain, all of them count.
        """
        least, most = max(0, self.k - 1 - REACH), cosines.shape[1]
        kth = cosines[:, self.k - 1, None]
        near = ((cosines - kth).abs() <= 2 * _slack(cosines.dtype, width)) | ~certain.unsqueeze(1)
        ranks = near.any(dim=0).nonzero().flatten()
        return max(least, int(ranks[0])), min(most, int(ranks[-1]) + 1)

    def _nearest(self, bank: Tensor, unit: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The `count` largest cosines (Q, count), descending, and their places in the bank; in `unit`'s dtype."""
        if unit.dtype == torch.float32 and not self._has_zeros and self.backend.serves(bank):
            return self.backend.search(bank, self._scale, unit, count)
        step = max(1, self.budget // 4 // ((len(unit) + 2 * bank.shape[1]) * unit.element_size()))
        best = unit.new_empty(len(unit), 0)
        where = torch.empty(len(unit), 0, dtype=torch.int64, device=unit.device)
        for start in range(0, len(bank), step):
            values, places = _largest(self._cosines(unit, bank, slice(start, start + step)), count)
            best, kept = torch.cat([best, values], 1).topk(min(count, best.shape[1] + values.shape[1]), dim=1)
            where = torch.cat([where, places + start], 1).gather(1, kept)
        return best, where

    def _cosines(self, unit: Tensor, bank: Tensor, rows: slice) -> Tensor:
        """(Q, B) with some rows of the bank."""
        cosines = unit @ (bank[rows].to(unit.dtype) * self._scale[rows].to(unit.dtype).unsqueeze(1)).T
        return cosines.add_(self._lift[rows]) if self._has_zeros else cosines

    def _measured(self, bank: Tensor, unit: Tensor, where: Tensor) -> Tensor:
        """(Q, W) float64 distances between queries (Q, D) and the bank's rows `where` (Q, W)."""
        step = max(1, self.budget // 4 // (32 * where.shape[1] * bank.shape[1]))
        parts = []
        for some, rows in zip(unit.split(step), where.split(step), strict=True):
            neighbours = bank[rows].double().mul_(self._scale[rows].unsqueeze(2))
            parts.append(torch.linalg.vector_norm(neighbours.sub_(some.unsqueeze(1)), dim=2))
        return torch.cat(parts)

    def _certain(self, cosines: Tensor, first: int, bank_size: int, width: int) -> Tensor:
        """(Q,) bool: no image outside the window that is measured again can be the k-th neighbour."""
        slack = 2 * _slack(cosines.dtype, width)
        kth = cosines[:, self.k - 1]
        certain = torch.ones_like(kth, dtype=torch.bool)
        if first > 0:
            certain &= cosines[:, first - 1] > kth + slack
        if cosines.shape[1] < bank_size:
            certain &= cosines[:, -1] < kth - slack
        return certain

    def facts(self) -> dict[str, Any]:
        """k and, once fitted, the number of training features."""
        return {"k": self.k} if self._bank is None else {"k": self.k, "bank": len(self._bank)}


def _inverse_norms(features: Tensor) -> Tensor:
    """(N,) factors that make features (N, D) unit vectors; 0 for zero vectors."""
    norms = torch.linalg.vector_norm(features, dim=1)
    return torch.where(norms < TINY, 0, 1 / norms)


def _largest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row (Q, B), descending, and their places; fewer where B is smaller.

    Selecting costs as much as the product that made the values. So columns are grouped: the largest entries lie in
    the groups with the largest peaks, and only those are searched. Peaks are cheap, and sqrt(B / count) groups' worth
    of either is the least work.
    """
    width = values.shape[1]
    depth = int((width / count) ** 0.5)
    if depth < 4:  # little to save, and the indices would need more memory than the values
        found = values.topk(min(count, width), dim=1)
        return found.values, found.indices
    groups = width // depth
    peaks = values[:, : depth * groups].unflatten(1, (depth, groups)).amax(1)
    columns = peaks.topk(count, dim=1).indices
    steps = groups * torch.arange(depth, device=values.device)
    rest = torch.arange(depth * groups, width, device=values.device).expand(len(values), -1)
    places = torch.cat([(columns.unsqueeze(1) + steps.unsqueeze(1)).flatten(1), rest], 1)
    best, kept = values.gather(1, places).topk(count, dim=1)
    return best, places.gather(1, kept)


def _slack(dtype: torch.dtype, width: int) -> float:
    """How far rounding moves a cosine of `width` summands.

    Errors of a sum of n terms grow like sqrt(n) roundings, seldom more than a few times that (Higham and Mary, SIAM
    J. Sci. Comput. 2019): 4 sqrt(n), and 4 more for the scaling of both vectors. float32 with 512: 6e-6.
    """
    return (4 * width**0.5 + 4) * torch.finfo(dtype).eps / 2


@contextmanager
def _full_precision() -> Iterator[None]:
    """TensorFloat-32 or bfloat16 products would break the bound."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
