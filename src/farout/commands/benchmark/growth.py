"""How cost grows with images, OOD sets, scores, batch size, training features, queries: nothing more than linearly."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from farout.commands.benchmark.evaluation import Problem, problem_of
from farout.commands.benchmark.images import images_of
from farout.commands.benchmark.lines import AnyLine, Growth, Place, Side
from farout.commands.benchmark.metrics import make_scores
from farout.commands.benchmark.neighbours import features, search
from farout.commands.benchmark.timing import Turn, in_turns
from farout.data import ImageSet
from farout.metrics import both_conventions
from farout.report.evidence import Evidence
from farout.report.figures.drawings import vector_drawings
from farout.scores import Outputs

PART = "growth"
SETS = (1, 2, 4, 8)
Task = Callable[[], object]


def pieces(place: Place) -> Sequence[Callable[[], Iterator[AnyLine]]]:
    """Evaluation and training, then what needs no network."""
    return [partial(_with_network, place), partial(_neighbours, place), partial(_metrics, place), partial(_page, place)]


def _grown(place: Place, what: tuple[str, str, str], tasks: Mapping[int, Task]) -> Growth:
    """Seconds of tasks by their size, in turns; `what` is name, scale and what grows."""
    turns = {str(size): Turn(task) for size, task in tasks.items()}
    seconds = in_turns(turns, place.rounds, place.device, warm_up=place.pick(0, 1, 1))
    sides = {size: Side.of(f"{size} {what[2]}", seconds[str(size)]) for size in tasks}
    return Growth(PART, *what, sides, place.rounds)


@dataclass(frozen=True)
class Growing:
    """An evaluation whose sets, scores and batches can be made smaller; what scores are fitted on stays as it is."""

    place: Place
    problem: Problem
    train: Outputs
    pool: ImageSet

    def evaluate(self, images: int, sets: int = 1, scores: int = 10, batch: int = 500) -> Task:
        """ID and OOD sets, all of as many images: a forward pass each, scores, metrics."""
        count = images // (sets + 1)
        parts = {name: self.pool.subset(range(i * count, (i + 1) * count)) for i, name in enumerate(_names(sets))}
        smaller = replace(self.problem, sets=parts, batch_size=batch)
        return partial(smaller.scored, self.train, self.problem.settings.scores[:scores])

    def update(self, batch: int) -> Task:
        """One step of cross-entropy on so many images."""
        images = self.problem.transform(self.pool.images[:batch].to(self.place.device))
        assert self.pool.labels is not None
        labels, model = self.pool.labels[:batch].to(self.place.device), self.problem.model

        def step() -> None:
            model.train().requires_grad_(True)
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            model.zero_grad()
            model.eval().requires_grad_(False)

        return step


def _names(sets: int) -> list[str]:
    return ["id", *(f"ood {i + 1}" for i in range(sets))]


def _with_network(place: Place) -> Iterator[AnyLine]:
    images = place.pick(160, 2048, 32_768)
    problem = problem_of(place)
    pool = images_of(place, "cifar10", images)
    fit_on = problem.train.subset(range(min(len(problem.train), 500)))
    growing = Growing(place, problem, problem.outputs(fit_on), pool.as_set("pool"))
    name, network = "an evaluation: forward passes, scores, metrics", problem.settings.backbone.name
    sizes = _halved(images)
    what = (name, f"{network}, 10 scores, ID and 1 OOD set in batches of 500", "images")
    yield _grown(place, what, {n: growing.evaluate(n) for n in sizes})
    each = images // 16
    what = (name, f"{network}, 10 scores, sets of {each} images", "OOD sets")
    yield _grown(place, what, {n: growing.evaluate((n + 1) * each, n) for n in SETS})
    what = (name, f"{network}, {images // 2:,} images, ID and 1 OOD set", "scores")
    yield _grown(place, what, {n: growing.evaluate(images // 2, scores=n) for n in (1, 2, 5, 10)})
    what = (name, f"{network}, 10 scores, {images // 2:,} images, ID and 1 OOD set", "images a batch")
    yield _grown(place, what, {n: growing.evaluate(images // 2, batch=n) for n in _halved(images // 4, 5)})
    what = ("a training step", f"{network}, cross-entropy, float32, on ready batches", "images a batch")
    yield _grown(place, what, {n: growing.update(n) for n in _halved(place.pick(16, 128, 2048))})


def _halved(most: int, count: int = 4) -> list[int]:
    """Sizes up to `most`, each twice the one before."""
    return [most >> i for i in reversed(range(count))]


def _neighbours(place: Place) -> Iterator[AnyLine]:
    most, queries = place.pick(1600, 48_000, 48_000), place.pick(40, 800, 10_000)
    bank, asked = (features(n, seed).to(place.device) for n, seed in ((most, 1), (8 * queries, 2)))
    name = "distance to the 50th neighbour"
    what = (name, f"{queries:,} queries, 512 features, search by PyTorch", "training images")
    yield _grown(place, what, {n: partial(search, bank[:n], asked[:queries], "torch") for n in _halved(most)})
    what = (name, f"{most // 4:,} training images, 512 features, search by PyTorch", "queries")
    yield _grown(place, what, {n: partial(search, bank[: most // 4], asked[:n], "torch") for n in _halved(8 * queries)})


def _metrics(place: Place) -> Iterator[AnyLine]:
    def task(n: int) -> Task:
        return partial(both_conventions, *make_scores(n, np.dtype(np.float32)))

    sizes = _halved(place.pick(8000, 1_024_000, 1_024_000), 6)
    what = ("FPR95, AUROC, AUPR", "both conventions, float32; a sort grows by n log n", "images of ID and of OOD each")
    yield _grown(place, what, {n: task(n) for n in sizes})


def _page(place: Place) -> Iterator[AnyLine]:
    """Figures as SVG, of random scores."""
    if place.size == "cuda":
        return
    what = ("the report's figures", "2 scores, 2,000 images a set; by helpers where there are many", "OOD sets")
    yield _grown(replace(place, rounds=1), what, {n: partial(_drawn, n) for n in place.pick((1, 2, 3, 4), *2 * [SETS])})


def _drawn(sets: int) -> object:
    id_scores, ood_scores = make_scores(2000, np.dtype(np.float32))
    names, scores = _names(sets), ("msp", "energy")
    evidence = Evidence({name: dict.fromkeys(scores, id_scores if name == "id" else ood_scores) for name in names})
    known = {"fpr95": 0.5, "auroc": 0.5, "base_rate": 0.5}
    rows = [{"score": score, "ood": name, **known} for score in scores for name in names[1:]]
    return vector_drawings({"rows": rows, "protocol": {"positive": "id"}, "id": {"dataset": "ID"}}, evidence)
