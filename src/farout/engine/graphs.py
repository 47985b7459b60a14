"""A whole training step as one CUDA graph: the host launches it at once instead of a thousand kernels one by one.

Gathering, augmentation, forward, loss, backward and optimiser are recorded once and replayed; what differs from step to
step lies in places that stay: the rows of the images, the learning rate, the seeds of the generators (a replay reads
them anew). So a replayed step does what the same step launched singly does, kernel by kernel.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from farout.engine.progress import say
from farout.methods import Batch

Losses = dict[str, Tensor]
Work = Callable[[Mapping[str, Batch], bool], Losses]

# Steps launched singly before the recording: they build optimiser state, pick kernels and compile what is compiled.
WARM_UP = 3


@runtime_checkable
class RecordableBatches(Protocol):
    """Batches in two halves: what the host decides of a step, and what the device then does."""

    generators: Mapping[str, torch.Generator]

    @property
    def on_device(self) -> bool:
        """Whether `assemble` is work for the device alone."""

    def reseed(self, step: int) -> None:
        """Seed the generators for a step."""

    def rows(self, step: int) -> dict[str, Tensor]:
        """The images (B,) that a step sees of every stream."""

    def assemble(self, rows: Mapping[str, Tensor]) -> dict[str, Batch]:
        """The batches of these rows, drawn from the generators."""


class Recorder(Protocol):
    """Records work and repeats it: a CUDA graph, or what stands for one in a test."""

    def apart(self, work: Callable[[], Losses]) -> Losses:
        """Do the work where a recording could follow."""

    def record(self, work: Callable[[], Losses]) -> Losses:
        """Record the work without doing it; the tensors returned hold what each replay has computed."""

    def replay(self) -> None:
        """Do what was recorded."""


class CudaGraph:
    """The recorder of CUDA devices.

    Args:
        device: where the work runs.
        generators: those that the work draws from, beside torch's own.
    """

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator]) -> None:
        self.stream = torch.cuda.Stream(device)
        self.generators = generators
        self.graph: torch.cuda.CUDAGraph | None = None

    def apart(self, work: Callable[[], Losses]) -> Losses:
        """On the stream that records: what autograd and the libraries set up belongs to the stream they first saw."""
        now = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(now)
        with torch.cuda.stream(self.stream):
            losses = work()
        now.wait_stream(self.stream)
        return losses

    def record(self, work: Callable[[], Losses]) -> Losses:
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            losses = work()
        self.graph = graph
        return losses

    def replay(self) -> None:
        assert self.graph is not None
        self.graph.replay()


class RecordedStep:
    """Does a training step by replaying it, once that is possible; until then, and for odd sizes, launched singly.

    Steps of other batch sizes than the first one's (an epoch's last batch) are launched singly: they are few.

    Args:
        work: the step on given batches; its second argument says whether they are of the usual sizes.
        batches: see `RecordableBatches`.
        recorder: makes a fresh recorder.
    """

    def __init__(self, work: Work, batches: RecordableBatches, recorder: Callable[[], Recorder]) -> None:
        self.work, self.batches, self.new_recorder = work, batches, recorder
        self.recorder = recorder()
        self.rows: dict[str, Tensor] = {}  # where a replay reads the rows of its images
        self.losses: Losses | None = None
        self.usual: list[int] | None = None
        self.images: dict[bool, int] = {}  # that a step sees, of the usual sizes and of others
        self.launched = 0
        self.broken = False

    def __call__(self, step: int) -> tuple[Losses, int]:
        """The loss parts, and how many images the step saw (each view of one counts)."""
        rows = self.batches.rows(step)
        sizes = [len(some) for some in rows.values()]
        self.usual = self.usual or sizes
        self.batches.reseed(step)
        losses = self._losses(rows, sizes == self.usual)
        return losses, self.images[sizes == self.usual]

    def _losses(self, rows: Mapping[str, Tensor], usual: bool) -> Losses:
        if not usual or self.broken or self.launched < WARM_UP:
            self.launched += usual
            return self.recorder.apart(lambda: self._launched(rows, usual))
        if self.losses is None and not self._recorded(rows):
            return self._losses(rows, usual)
        for name, some in rows.items():
            self.rows[name].copy_(some)
        self.recorder.replay()
        assert self.losses is not None
        return self.losses

    def _launched(self, rows: Mapping[str, Tensor], usual: bool) -> Losses:
        """The step, kernel by kernel."""
        batches = self.batches.assemble(rows)
        self.images[usual] = sum(len(batch.images) for batch in batches.values())
        return self.work(batches, usual)

    def _recorded(self, rows: Mapping[str, Tensor]) -> bool:
        self.rows = {name: some.clone() for name, some in rows.items()}
        try:
            self.losses = self.recorder.record(lambda: self._launched(self.rows, True))
        except RuntimeError as problem:  # also what CUDA refuses to record
            self.broken = True
            reason = str(problem).strip().split("\n")[0]
            say(f"note: the training step cannot be a CUDA graph, its kernels are launched one by one: {reason}")
            return False
        return True

    def forget(self) -> None:
        """After tensors of the training state were replaced: what was recorded reads the old ones."""
        self.recorder, self.losses, self.launched = self.new_recorder(), None, 0
