"""The distance to the k-th neighbour, exact in float64, against one call of faiss and of scikit-learn in float32."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from farout.commands.benchmark.lines import AnyLine, Line, Place, Side, not_installed, require_close
from farout.commands.benchmark.timing import Turn, in_turns
from farout.scores import Fitting, Head, Outputs
from farout.scores.knn import KNN, Backend

PART, NAME, K = "knn", "distance to the 50th neighbour", 50


def lines(place: Place) -> Iterator[AnyLine]:
    """Ours on the device; the baselines on the CPU, where they are at home."""
    bank, queries = features(place.pick(2000, 50_000, 50_000), 1), features(place.pick(200, 10_000, 10_000), 2)
    scale = f"{len(queries):,} queries, {len(bank):,} features of {bank.shape[1]}"
    ways: dict[str, Backend] = {"PyTorch": "torch"}
    if installed("faiss"):
        ways["faiss"] = "faiss"
    tasks: dict[str, Callable[[], Tensor]] = {
        way: partial(search, bank.to(place.device), queries.to(place.device), backend)
        for way, backend in ways.items()
        if backend == "torch" or place.device.type == "cpu"
    }
    own = list(tasks)
    peers = {"faiss": ("faiss-cpu", _faiss), "sklearn": ("scikit-learn", _sklearn)}
    there = {f"{package}, one call": make for module, (package, make) in peers.items() if installed(module)}
    tasks |= {name: make(bank, queries) for name, make in there.items()}
    found: dict[str, Tensor] = {}
    turns = {name: Turn(partial(_kept, found, name, task)) for name, task in tasks.items()}
    rounds = min(place.rounds, 3)
    seconds = in_turns(turns, rounds, place.device, warm_up=place.pick(1, 0, 1))
    agreement = [require_close("distances", found[own[0]], found[name], 1e-4) for name in tasks][-1]
    for way in own:
        mine = Side.of(f"fit and score, search by {way}", seconds[way])
        for name in there:
            yield Line(PART, NAME, scale, mine, Side.of(name, seconds[name]), agreement, rounds)
    for module, (package, _) in peers.items():
        if not installed(module):
            yield not_installed(PART, f"{NAME} against {package}, {scale}", package)


def _kept(found: dict[str, Tensor], name: str, task: Callable[[], Tensor]) -> None:
    found[name] = task()


def installed(module: str) -> bool:
    """Whether a package can be imported."""
    try:
        import_module(module)
    except ImportError:
        return False
    return True


def features(count: int, seed: int) -> Tensor:
    """(count, 512) non-negative features in ten clusters, as a trained network's are."""
    centres = torch.randn(10, 512, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 512, generator=generator)
    return (centres[torch.randint(10, (count,), generator=generator)] + noise).relu()


def search(bank: Tensor, queries: Tensor, backend: Backend) -> Tensor:
    """(Q,) distances of queries (Q, D), as an evaluation finds them."""
    score = KNN(K, backend=backend)
    score.fit(Fitting(Head(bank[:10], bank[:10, 0]), Outputs(bank[:, :10], bank)))
    return -score(Outputs(queries[:, :10], queries))


def _faiss(bank: Tensor, queries: Tensor) -> Callable[[], Tensor]:
    import faiss

    def call() -> Tensor:
        index = faiss.IndexFlatL2(bank.shape[1])
        index.add(F.normalize(bank).numpy())
        squared = index.search(F.normalize(queries).numpy(), K)[0][:, -1]
        return torch.from_numpy(np.sqrt(np.maximum(squared, 0)))

    return call


def _sklearn(bank: Tensor, queries: Tensor) -> Callable[[], Tensor]:
    from sklearn.neighbors import NearestNeighbors

    def call() -> Tensor:
        index = NearestNeighbors(n_neighbors=K, algorithm="brute").fit(F.normalize(bank).numpy())
        return torch.from_numpy(index.kneighbors(F.normalize(queries).numpy())[0][:, -1])

    return call
