"""A training step of every method: as training makes it, against the plain loop, and against its own ceiling."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, RandomSampler
from torchvision import transforms

from farout.backbones import Backbone
from farout.commands.benchmark import jem, plain
from farout.commands.benchmark.data_path import Torchvision, crop_and_flip
from farout.commands.benchmark.images import Images, images_of
from farout.commands.benchmark.lines import AnyLine, Line, Place, Side, Unmeasured, require_close
from farout.commands.benchmark.timing import Turn, in_turns, interleaved
from farout.config.compose import compose_settings
from farout.config.settings import Settings
from farout.data.views import ViewTransform
from farout.engine.allocator import keep_freed_memory
from farout.engine.fit import Checkpointing, Loop, trunk_compiled
from farout.engine.graphs import WARM_UP
from farout.engine.precision import allow_tf32, full_fp32
from farout.engine.timing import CompileTiming, compile_problem
from farout.kernels import runs_triton
from farout.methods import Batch
from farout.runs.inputs import TrainingData
from farout.runs.run import build_backbone, run_of
from farout.runs.training import TrainingJob

PART = "training"
WORDS = ("id_data=cifar10", "logger=none")
VIEWS = [
    transforms.RandomResizedCrop(32, scale=(0.2, 1.0)),
    transforms.RandomHorizontalFlip(),
    transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
    transforms.RandomGrayscale(p=0.2),
    transforms.ToTensor(),
]


@dataclass(frozen=True)
class Case:
    """One method's step: overrides of train.py by size, and of the ways that ours is tried in."""

    title: str
    quick: Sequence[str]
    cpu: Sequence[str]
    cuda: Sequence[str]
    ways: Mapping[str, Sequence[str]]
    ways_on_cuda: Mapping[str, Sequence[str]]


CPU_WAYS = {"float32": ["trainer.precision=fp32"], "bf16": ["trainer.precision=bf16"]}
BF16 = {"bf16": ["trainer.precision=bf16"]}
NARROW = ["backbone.width=16", "batch_size=128"]  # as the experiments of scale=small have it, with half their batch
CASES = {
    "ce": Case(
        "cross-entropy",
        ["backbone=resnet20", "backbone.depth=8", "backbone.width=4", "batch_size=8"],
        ["scale=small"],
        ["backbone=wrn_40_2"],
        CPU_WAYS,
        BF16,
    ),
    "energy": Case(
        "energy",
        ["backbone=resnet20", "batch_size=8", "outlier_batch_size=16"],
        ["scale=small"],
        ["backbone=wrn_40_2"],
        CPU_WAYS,
        BF16,
    ),
    "cider": Case("CIDER", ["backbone.width=8", "batch_size=8"], NARROW, [], CPU_WAYS, BF16),
    "supcon": Case("SupCon", ["backbone.width=8", "batch_size=8"], NARROW, [], CPU_WAYS, BF16),
    "jem": Case(
        "JEM",
        ["backbone=wrn_10_2_jem", "batch_size=4", "sgld_steps=2"],
        ["backbone=wrn_10_2_jem"],
        [],
        {"float32": ["trainer.precision=fp32"], "chains in bf16": ["trainer.precision=fp32", "sgld_precision=bf16"]},
        {"TF32": ["trainer.precision=tf32"], "TF32, chains in bf16": ["trainer.precision=tf32", "sgld_precision=bf16"]},
    ),
}


def pieces(place: Place) -> list[Callable[[], Iterator[AnyLine]]]:
    """Every method in every way: against the plain loop, and against ready batches or a graph's replays alone."""
    bf16 = _bf16_pays(place.device)
    compiled = [partial(compiled_lines, place)] if place.device.type == "cpu" else []
    return [*(partial(lines, method, place, bf16) for method in CASES), *compiled]


def lines(method: str, place: Place, bf16: bool) -> Iterator[AnyLine]:
    """One method's."""
    yield from _Comparison(method, CASES[method], place, bf16).lines()


def compiled_lines(place: Place) -> Iterator[AnyLine]:
    """Cross-entropy on a CPU with the trunk compiled, as trainer.compile=auto has it in long runs where that pays."""
    yield from _Comparison("ce", CASES["ce"], place, False).compiled_lines()


def _bf16_pays(device: torch.device) -> bool:
    """Whether a convolution in bf16 is faster there than in float32: CPUs without units for it compute it at length."""
    if device.type != "cpu":
        return True
    images = torch.rand(8, 32, 32, 32).to(memory_format=torch.channels_last)
    weight = torch.rand(32, 32, 3, 3).to(memory_format=torch.channels_last)
    tasks = {
        dtype: partial(functional.conv2d, images.to(dtype), weight.to(dtype), padding=1)
        for dtype in (torch.float32, torch.bfloat16)
    }
    seconds = interleaved({str(dtype): task for dtype, task in tasks.items()}, 5)
    return seconds[str(torch.bfloat16)] < seconds[str(torch.float32)]


class _Comparison:
    """The tasks of one method."""

    def __init__(self, method: str, case: Case, place: Place, bf16: bool) -> None:
        self.method, self.case, self.place, self.bf16 = method, case, place, bf16
        on_gpu = {"ce": 20, "energy": 20, "jem": 5}.get(method, 10)
        self.steps = place.pick(1, {"ce": 4, "jem": 1}.get(method, 2), on_gpu)
        self.workers = place.pick(0, 2, 4)
        sizes = place.pick(case.quick, case.cpu, case.cuda)
        self.words = [f"method={method}", *WORDS, *sizes]
        self.settings = compose_settings(self.words)
        count = place.pick(64, 50_000, 50_000)
        self.images = images_of(place, "cifar10", count)
        self.outliers = images_of(place, "cifar100", count)

    def lines(self) -> Iterator[AnyLine]:
        ways = self.place.pick(self.case.ways, self.case.ways, self.case.ways_on_cuda)
        jobs = {way: self._job(words) for way, words in ways.items() if "bf16" not in way or self.bf16}
        agreement = self._agree(next(iter(jobs.values())))
        loops = {way: _OurLoop(job, self.place, self.steps) for way, job in jobs.items()}
        tasks = {"plain": self._plain(next(iter(jobs.values())))}
        for way, loop in loops.items():
            tasks |= {way: Turn(loop.steps, self.steps)}
            tasks |= {f"{way} ceiling": Turn(loop.ceiling, self.steps)} if loop.has_ceiling else {}
        seconds = in_turns(tasks, self.place.rounds, self.place.device)
        for way in ways:
            if way not in jobs:
                yield Unmeasured(PART, f"{self.case.title}, {way}", "bf16 is slower than float32 on this CPU")
                continue
            loop = loops[way]
            ours = Side.of(f"{loop.what}, {way}", seconds[way])
            yield self._line(ours, Side.of(self._plain_name(), seconds["plain"]), agreement)
            if loop.has_ceiling:
                yield self._line(ours, Side.of(loop.ceiling_name, seconds[f"{way} ceiling"]), "the same step")
            else:
                yield Unmeasured(PART, f"{self.case.title}, {way}", "its ceiling: the step could not be recorded")

    def compiled_lines(self) -> Iterator[AnyLine]:
        """The compiled step against the plain loop and against our own without the compiler."""
        job = self._job(["trainer.precision=fp32"])
        keep_freed_memory()  # as training on a CPU does
        tried, start = job.trial(), time.monotonic()
        problem = compile_problem(tried)
        if problem is not None:
            yield Unmeasured(PART, f"{self.case.title}, compiled", f"torch.compile fails here: {problem}")
            return
        compiling = time.monotonic() - start
        agreement = self._agree_compiled(job)
        loops = {compiled: _OurLoop(job, self.place, self.steps, compiled) for compiled in (False, True)}
        tasks = {"plain": self._plain(job)} | {loop.what: Turn(loop.steps, self.steps) for loop in loops.values()}
        seconds = in_turns(tasks, self.place.rounds, self.place.device)
        eager, ours = (Side.of(loop.what, seconds[loop.what]) for loop in loops.values())
        found = CompileTiming(eager.least, ours.least, compiling)
        takes = "takes" if found.pays(job.total_steps * eager.least) else "leaves"
        auto = (
            f"{compiling:.0f} s of compiling before it; trainer.compile=auto {takes} it for {job.total_steps:,} updates"
        )
        ours = replace(ours, what=f"{ours.what}, float32 ({auto})")
        yield self._line(ours, Side.of(self._plain_name(), seconds["plain"]), agreement)
        yield self._line(ours, replace(eager, what=f"{eager.what}, float32"), agreement)

    def _agree_compiled(self, job: TrainingJob) -> str:
        """Compiled or not, the loss and its gradients are the same but for the order of sums."""
        ready, sides = job.batches()(0), []
        for compiled in (True, False):
            model, method = job.networks()
            model.train()
            if compiled:
                model.compile_trunk()
            with trunk_compiled(model, compiled):
                loss = method.loss(model, ready)["total"]
            loss.backward()
            sides.append((loss, _gradient(model)))
        (ours, own), (theirs, others) = sides
        require_close(f"losses of {self.case.title}", ours, theirs, 1e-4)
        require_close(f"gradients of {self.case.title}", own, others, 1e-2)
        return "loss and gradients equal in float32"

    def _line(self, ours: Side, baseline: Side, agreement: str) -> Line:
        return Line(PART, self.case.title, self._scale(), ours, baseline, agreement, self.place.rounds)

    def _scale(self) -> str:
        settings = self.settings
        sizes = [str(settings.schedule.batch_size)]
        if self.method == "energy":
            sizes.append(str(settings.schedule.outliers_per_update()))
        views = "2 x " if self.method in ("cider", "supcon") else ""
        steps = f", {settings.method.arguments['sgld_steps']} Langevin steps" if self.method == "jem" else ""
        return f"{settings.backbone.name}, {views}{' + '.join(sizes)} images{steps}; {self.images.origin}"

    def _plain_name(self) -> str:
        return f"plain float32 loop, DataLoader with {self.workers} workers"

    def _job(self, words: Sequence[str]) -> TrainingJob:
        settings = compose_settings([*self.words, *words])
        rows = torch.arange(len(self.images))
        own, none = self.images.as_set("cifar10"), rows[:0]
        others = self.outliers.as_set("cifar100") if self.method == "energy" else None
        data = TrainingData(own, rows, none, others, None if others is None else rows[: len(self.outliers)], {})
        return TrainingJob(run_of(settings, self.place.device), settings, data, self.place.device)

    def _agree(self, job: TrainingJob) -> str:
        """On the same weights and images both losses are the same, and so are their gradients."""
        if self.method == "jem":
            model, _ = job.networks()
            return jem.require_equal(job.settings.method.arguments["sgld_steps"], model, dict(job.batches()(0)))
        # In float64 rounding hides no difference; but the kernel of CIDER's prototypes knows float32 alone.
        exact = not (self.method == "cider" and runs_triton(self.place.device))
        dtype = torch.float64 if exact else torch.float32
        job = replace(job, settings=_without_dropout(job.settings))
        (model, method), (other, _), ready = job.networks(), job.networks(), job.batches()(0)
        ready = {name: Batch(batch.images.to(dtype), batch.labels) for name, batch in ready.items()}
        method.prepare(model, ready, some_images(job))
        model.to(dtype).train(), other.to(dtype).train(), method.to(dtype)
        loss = self._plain_loss(job, getattr(method, "prototypes", None))
        with full_fp32():
            ours, theirs = method.loss(model, ready)["total"], loss(other, ready)
            ours.backward(), theirs.backward()
        require_close(f"losses of {self.case.title}", ours, theirs, 1e-6 if exact else 1e-4)
        tolerance = 1e-4 if exact else 3e-2
        require_close(f"gradients of {self.case.title}", _gradient(model), _gradient(other), tolerance)
        return f"loss and gradients equal in {'float64' if exact else 'float32'}"

    def _plain_loss(self, job: TrainingJob, prototypes: Any) -> plain.Loss:
        loss = plain.LOSSES[self.method](job.settings.method.arguments)
        if isinstance(loss, plain.Cider):
            loss.prototypes = prototypes.clone()
        return loss

    def _plain(self, job: TrainingJob) -> Turn:
        """The plain loop's turn: its loaders have begun, and gave one batch, before it is timed."""
        settings, device = job.settings, self.place.device
        torch.manual_seed(settings.seed)
        model = build_backbone(settings.backbone, settings.id_data.num_classes).to(device)
        method = settings.method.build()
        optimizer = settings.schedule.optimisation().optimizer(model, method)
        model.train()
        if self.method == "jem":
            step: Callable[[Mapping[str, Batch]], object] = self._plain_jem(model, optimizer, job)
        else:
            method.to(device).prepare(model, job.batches()(0), some_images(job))
            loss = self._plain_loss(job, getattr(method, "prototypes", None))
            step = plain.PlainStep(model, loss, optimizer)
        feed = _Feed(self._loaders(job), device)

        def run() -> None:
            allow_tf32(True)  # the most that float32 tensors can have
            for _ in range(self.steps):
                step(feed.next())

        return Turn(run, self.steps, feed.begin)

    def _plain_jem(self, model: Backbone, optimizer: torch.optim.Optimizer, job: TrainingJob) -> Callable[..., object]:
        method = job.settings.method.build().to(self.place.device)
        method.prepare(model, job.batches()(0))
        steps = job.settings.method.arguments["sgld_steps"]
        loop = jem.Straightforward(model, method.replay_buffer.images, steps)
        return lambda batches: loop.step(dict(batches), optimizer)

    def _loaders(self, job: TrainingJob) -> dict[str, DataLoader[Any]]:
        schedule, transform = job.settings.schedule, job.settings.transform.build()
        normalise = transforms.Normalize(transform.mean.flatten().tolist(), transform.std.flatten().tolist())
        views = transform.views if isinstance(transform, ViewTransform) else 1
        chain = transforms.Compose([*VIEWS, normalise]) if views > 1 else crop_and_flip(transform)
        sources: dict[str, tuple[Images, int]] = dict.fromkeys(
            job.settings.method.kind.streams, (self.images, schedule.batch_size)
        )
        if "outliers" in sources:
            sources["outliers"] = self.outliers, schedule.outliers_per_update()
        return {
            name: self._loader(Torchvision(images.pixels, images.labels, chain, views), size)
            for name, (images, size) in sources.items()
        }

    def _loader(self, images: Torchvision, size: int) -> DataLoader[Any]:
        """A pass is as many batches as a turn takes, and the one before it."""
        sampler = RandomSampler(images, replacement=True, num_samples=size * (self.steps + 1))
        pinned = self.place.device.type == "cuda"
        return DataLoader(
            images,
            size,
            sampler=sampler,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=pinned,
        )


def _without_dropout(settings: Settings) -> Settings:
    """With none: its masks depend on how images lie in memory."""
    backbone = settings.backbone
    still = {"dropout": 0.0} if "dropout" in backbone.arguments else {}
    return replace(settings, backbone=replace(backbone, arguments={**backbone.arguments, **still}))


def some_images(job: TrainingJob) -> list[Batch]:
    """Enough training images, as at test time, for prototypes of every class."""
    pixels, labels = job.data.labelled.images[:256], job.data.labelled.labels
    assert isinstance(pixels, torch.Tensor) and labels is not None
    images = job.settings.transform.build()(pixels.to(job.device))
    return [Batch(images, labels[:256].to(job.device))]


def _gradient(model: nn.Module) -> torch.Tensor:
    """(P,) of all parameters that have one."""
    return torch.cat([part.grad.flatten() for part in model.parameters() if part.grad is not None])


class _Feed:
    """Batches of several loaders at once, on the device."""

    def __init__(self, loaders: Mapping[str, DataLoader[Any]], device: torch.device) -> None:
        self.loaders, self.device = loaders, device
        self.iterators: dict[str, Iterator[Any]] = {}

    def begin(self) -> None:
        """A pass begins; its first batch is left out, whose images nobody loaded while something else was done."""
        self.iterators = {name: iter(loader) for name, loader in self.loaders.items()}
        self.next()

    def next(self) -> dict[str, Batch]:
        return {name: self._batch(*next(iterator)) for name, iterator in self.iterators.items()}

    def _batch(self, images: torch.Tensor, labels: torch.Tensor) -> Batch:
        if images.ndim == 5:  # all first views, then all second ones
            labels = labels.repeat(images.shape[1])
            images = images.transpose(0, 1).flatten(0, 1)
        return Batch(images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True))


class _OurLoop:
    """Training as it is, and what its ceiling is."""

    def __init__(self, job: TrainingJob, place: Place, count: int, compiled: bool | None = None) -> None:
        self.job, self.count = job, count
        compiled = place.compiled if compiled is None else compiled
        self.model, method = job.networks()
        self.batches = job.batches()
        optimisation = job.settings.schedule.optimisation()
        self.loop = Loop(self.model, method, optimisation, 10**9, Checkpointing(), job.steps_per_epoch)
        self.model.train()
        self.ready = self.batches(0)
        method.prepare(self.model, self.ready, some_images(job))
        if compiled:
            self.model.compile_trunk()
        self.loop.record_on_device(self.batches)
        if self.loop.recorded is not None:
            self._advance(WARM_UP + 1)
        how = ", compiled" if compiled else ""
        self.what = f"one CUDA graph{how}" if self._recorded else f"our loop{how}"

    @property
    def _recorded(self) -> bool:
        return self.loop.recorded is not None and self.loop.recorded.losses is not None

    @property
    def has_ceiling(self) -> bool:
        """Not where the step should have been a graph and is none."""
        return self.loop.recorded is None or self._recorded

    @property
    def ceiling_name(self) -> str:
        return "the graph's replays alone" if self._recorded else "the same on ready batches"

    def _advance(self, count: int) -> None:
        allow_tf32(self.job.run.identity["precision"] == "tf32")
        with self.model.precision(self.job.dtype):
            for _ in range(count):
                self.loop.advance(self.batches, 0)

    def steps(self) -> None:
        """A turn's updates."""
        self._advance(self.count)

    def ceiling(self) -> None:
        """As many, with nothing but the network's and the loss's work in them."""
        recorded = self.loop.recorded
        if recorded is not None:
            for _ in range(self.count):
                recorded.recorder.replay()
            return
        with self.model.precision(self.job.dtype):
            for _ in range(self.count):
                self.loop.update(lambda step: self.ready, 0)
