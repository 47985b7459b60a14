"""KNN against faiss' values, scikit-learn, pytorch-ood and brute force in float64; and its memory."""

import json
import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_ood.detector import KNN as PeerKNN
from sklearn.neighbors import NearestNeighbors
from tiny_world import fitting_on, unlabelled
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from farout.errors import ConfigError, FaroutError
from farout.scores import Fitting, Head, knn
from farout.scores.knn import KNN, REACH, FaissIndex

FILE = Path(__file__).parents[1] / "vectors" / "vectors_jem_cider.json"
BACKENDS = ["torch", "faiss"] if find_spec("faiss") else ["torch"]
VECTORS = json.loads(FILE.read_text())["cider"]["knn"]


def scored(score: KNN, bank: Tensor, queries: Tensor) -> Tensor:
    score.fit(fitting_on(bank))
    return score(unlabelled(queries))


def brute_force(k: int, bank: Tensor, queries: Tensor) -> Tensor:
    """(N,) distances, every pair as a difference in float64."""
    unit, others = F.normalize(bank.double(), dim=1), F.normalize(queries.double(), dim=1)
    return (others.unsqueeze(1) - unit).norm(dim=2).kthvalue(k, dim=1).values


@pytest.mark.parametrize("kind", ["id", "ood"])
def test_official_values_are_squared(kind: str) -> None:
    ours = scored(KNN(VECTORS["K"]), torch.tensor(VECTORS["train"]), torch.tensor(VECTORS[kind]))
    theirs = torch.tensor(VECTORS[f"{kind}_kth_squared_distance"], dtype=torch.float64)
    torch.testing.assert_close(ours.square(), theirs, rtol=2e-5, atol=0)
    assert (ours < 0).all()


def clusters(n: int, width: int, seed: int, spread: float = 0.7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(10, width, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(n, width, generator=generator)
    return (centres[torch.randint(10, (n,), generator=generator)] + spread * noise).relu()


@pytest.mark.parametrize("k", [1, 50, 1000])
def test_scikit_learn_and_pytorch_ood(k: int) -> None:
    bank, queries = clusters(3000, 64, 1), clusters(200, 64, 2)
    ours = -scored(KNN(k), bank, queries)
    peer = PeerKNN(None, k=k).fit_features(bank, torch.zeros(3000)).predict_features(queries)
    torch.testing.assert_close(ours, peer, rtol=1e-5, atol=0)
    neighbours = NearestNeighbors(n_neighbors=k).fit(F.normalize(bank.double(), dim=1).numpy())
    exact = neighbours.kneighbors(F.normalize(queries.double(), dim=1).numpy())[0][:, -1]
    torch.testing.assert_close(ours, torch.tensor(exact), rtol=1e-12, atol=1e-12)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_brute_force(data: st.DataObject) -> None:
    """Also with copies, zeros, tight clusters, small blocks, and either precision."""
    n, width = data.draw(st.integers(1, 120)), data.draw(st.integers(1, 9))
    k = data.draw(st.integers(1, n))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    spread = data.draw(st.sampled_from([1.0, 1e-3, 1e-6, 0.0]))  # 0: all the same
    bank = torch.ones(n, width, dtype=dtype) + spread * torch.randn(n, width, generator=generator, dtype=dtype)
    queries = torch.cat([bank[:5], torch.randn(3, width, generator=generator, dtype=dtype), bank.new_zeros(1, width)])
    bank[torch.rand(n, generator=generator) < data.draw(st.sampled_from([0.0, 0.3]))] = 0
    score = KNN(k, backend=data.draw(st.sampled_from(BACKENDS)))
    score.budget = data.draw(st.sampled_from([1, 5_000, 2**28]))
    torch.testing.assert_close(-scored(score, bank, queries), brute_force(k, bank, queries), rtol=1e-9, atol=1e-14)


def test_tiny_distances_keep_their_digits() -> None:
    """2 - 2 cos in float32 is a multiple of 1.2e-7, so that distances below 3.5e-4 become 0."""
    angles = torch.logspace(-8, -1, 40)
    bank = torch.stack([torch.ones(40), angles], 1)
    queries = torch.tensor([[1.0, 0.0]]).expand(40, 2)
    for k in (1, 20, 40):
        ours = -scored(KNN(k), bank, queries[:1])
        torch.testing.assert_close(ours, brute_force(k, bank, queries[:1]), rtol=1e-9, atol=0)
    naive = 2 - 2 * (F.normalize(queries, dim=1) * F.normalize(bank, dim=1)).sum(1)
    assert (naive[:15] <= 0).all()


def test_copies_in_the_bank_are_at_distance_zero() -> None:
    """More copies than the window holds: these queries are searched once more."""
    row = torch.rand(1, 32) + 0.1
    bank = torch.cat([row.expand(3 * REACH, 32), 2 * row.expand(20, 32), torch.rand(200, 32)])
    copies = 3 * REACH + 20
    queries = torch.cat([row, 7 * row, torch.rand(4, 32)])
    assert scored(KNN(copies), bank, queries)[:2].abs().max() < 1e-7  # 7 * row is rounded
    assert scored(KNN(copies), bank, row).abs().item() < 1e-15
    torch.testing.assert_close(-scored(KNN(60), bank, queries), brute_force(60, bank, queries), rtol=1e-9, atol=1e-15)


def test_ordinary_features_are_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = KNN._nearest

    def counted(self: KNN, bank: Tensor, unit: Tensor, count: int) -> tuple[Tensor, Tensor]:
        calls.append(len(unit))
        return original(self, bank, unit, count)

    monkeypatch.setattr(KNN, "_nearest", counted)
    scored(KNN(50), clusters(5000, 128, 1), clusters(500, 128, 2))
    assert sum(calls) < 1.02 * 500


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that were made inside and are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[int, int]] = {}  # storage -> (bytes, tensors that share it)
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {tensor.untyped_storage().data_ptr() for tensor in args if isinstance(tensor, Tensor)}
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor):
                self._watch(tensor, given)
        self.peak = max(self.peak, sum(size for size, _ in self.alive.values()))
        return made

    def _watch(self, tensor: Tensor, given: set[int]) -> None:
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if key in given and key not in self.alive:
            return  # a view of what was there before
        self.alive[key] = size, self.alive.get(key, (0, 0))[1] + 1
        weakref.finalize(tensor, self._drop, key)

    def _drop(self, key: int) -> None:
        if key in self.alive:
            size, sharing = self.alive[key]
            if sharing > 1:
                self.alive[key] = size, sharing - 1
            else:
                del self.alive[key]


@pytest.mark.parametrize(("k", "copies"), [(50, False), (500, False), (50, True)])
def test_memory_stays_within_the_budget(k: int, copies: bool) -> None:
    """The product of all pairs alone would take 96 MiB."""
    bank, queries = clusters(12_000, 64, 1), clusters(2100, 64, 2)
    if copies:
        bank, queries = bank[:1].repeat(12_000, 1), queries[:300]
    score = KNN(k, block_mib=4, backend="torch")
    with LiveBytes() as fitting:
        score.fit(fitting_on(bank))
    own = bank.numel() * 4
    assert fitting.peak < own + 70 * 2**20  # no second bank, beside the blocks that all scores work in
    with LiveBytes() as scoring:
        ours = score(unlabelled(queries))
    assert 2**20 < scoring.peak < 4 * 2**20
    torch.testing.assert_close(ours, scored(KNN(k), bank, queries), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("k", [1, 50, 400])
def test_faiss_finds_the_same(k: int) -> None:
    """Distances are measured alike, so equal neighbours give equal bits; also with copies and short queries."""
    pytest.importorskip("faiss")
    bank, queries = clusters(3000, 64, 1), clusters(1500, 64, 2)
    bank[100:160] = bank[0]
    queries = torch.cat([queries, bank[:1], 1e-3 * bank[200:210], torch.zeros(1, 64)])
    ours, theirs = (scored(KNN(k, backend=backend), bank, queries) for backend in ("torch", "faiss"))
    assert torch.equal(ours, theirs)
    torch.testing.assert_close(-theirs[-40:], brute_force(k, bank, queries[-40:]), rtol=1e-9, atol=1e-12)


def test_faiss_is_taken_where_it_is_and_the_bank_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "FAISS_FROM", 100)
    monkeypatch.setattr(knn, "_faiss", lambda: "a package")
    large, small = torch.rand(100, 3), torch.rand(99, 3)
    serves = {choice: FaissIndex(choice).serves for choice in ("auto", "faiss", "torch")}
    assert [serves["auto"](bank) for bank in (large, small, large.double())] == [True, False, False]
    assert [serves["faiss"](bank) for bank in (large, small, large.double())] == [True, True, False]
    assert not serves["torch"](large)
    monkeypatch.setattr(knn, "_faiss", lambda: None)
    assert not serves["auto"](large)
    with pytest.raises(ConfigError, match="needs the package faiss-cpu: pip install"):
        KNN(1, backend="faiss")


def test_another_bank_is_indexed_anew_and_zeros_are_not_for_faiss() -> None:
    pytest.importorskip("faiss")
    bank, queries = clusters(300, 16, 1), clusters(20, 16, 2)
    score = KNN(5, backend="faiss")
    scored(score, clusters(200, 16, 3), queries)
    torch.testing.assert_close(-scored(score, bank, queries), brute_force(5, bank, queries), rtol=1e-9, atol=0)
    assert score.backend.index is not None and score.backend.index.ntotal == 300
    bank[7] = 0
    torch.testing.assert_close(-scored(score, bank, queries), brute_force(5, bank, queries), rtol=1e-9, atol=0)
    assert score.backend.index is None


def test_few_ranks_are_measured_where_few_are_near(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []
    original = KNN._measured

    def counted(self: KNN, bank: Tensor, unit: Tensor, where: Tensor) -> Tensor:
        measured.append(where.shape[1])
        return original(self, bank, unit, where)

    monkeypatch.setattr(KNN, "_measured", counted)
    scored(KNN(50, backend="torch"), clusters(3000, 64, 1), clusters(200, 64, 2))
    assert measured[0] <= REACH // 2


def test_reduced_precision_products_are_not_used_and_the_setting_is_left_alone() -> None:
    bank, queries = clusters(500, 32, 1), clusters(20, 32, 2)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        ours = scored(KNN(5), bank, queries)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(-ours, brute_force(5, bank, queries), rtol=1e-9, atol=1e-15)


def test_names_facts_and_errors() -> None:
    assert KNN().name == KNN(50).name == "knn" and KNN(100).name == "knn_k100"
    score = KNN(5)
    with pytest.raises(FaroutError, match="not fitted"):
        score(unlabelled(torch.rand(2, 3)))
    score.fit(fitting_on(torch.rand(6, 3)))
    assert score.facts() == {"k": 5, "bank": 6}
    assert score(unlabelled(torch.rand(0, 3))).shape == (0,)
    with pytest.raises(FaroutError, match="4 training images: set k"):
        KNN(5).fit(fitting_on(torch.rand(4, 3)))
    with pytest.raises(FaroutError, match="training outputs"):
        KNN(5).fit(Fitting(Head(torch.zeros(2, 3), torch.zeros(2))))
    with pytest.raises(FaroutError, match="NaN"):
        KNN(1).fit(fitting_on(torch.tensor([[1.0, torch.inf]])))
    with pytest.raises(ConfigError, match="k=0"):
        KNN(0)
    with pytest.raises(ConfigError, match="block_mib=0"):
        KNN(1, 0)
