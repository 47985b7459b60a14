"""Looking into training: where an update's time goes, and which operation made a gradient NaN."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from farout.engine.fit import Batches
from farout.engine.progress import say
from farout.files import write_atomically, write_text
from farout.methods import Batch

WARM_UP, RECORDED = 4, 4  # updates
ROWS = 40


class StepProfiler:
    """Records the updates after the first few with torch.profiler while it is open, and writes what it saw.

    An update is from one call of `watched(batches)` to the next. `folder` gets trace.json (for Perfetto or
    chrome://tracing) and operations.txt, a table of the operations that took most time of their own.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.device, self.written = folder, device, False
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        steps = schedule(wait=0, warmup=WARM_UP, active=RECORDED, repeat=1)
        self.profile = profile(activities=activities, schedule=steps, on_trace_ready=self._write)

    def __enter__(self) -> "StepProfiler":
        self.profile.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.profile.stop()
        if not self.written and error is None:
            say(f"note: nothing was profiled: training ended within the {WARM_UP} updates that warm up")

    def watched(self, batches: Batches) -> Batches:
        """The same batches; asking for them tells the profiler that an update begins."""

        def get(step: int) -> Mapping[str, Batch]:
            self.profile.step()
            return batches(step)

        return get

    def _write(self, seen: profile) -> None:
        order = "self_cuda_time_total" if self.device.type == "cuda" else "self_cpu_time_total"
        table = seen.key_averages().table(sort_by=order, row_limit=ROWS)
        write_text(self.folder / "operations.txt", table)
        write_atomically(self.folder / "trace.json", lambda file: seen.export_chrome_trace(file.name))
        self.written = True
        say(f"profile: {self.folder / 'operations.txt'}, {self.folder / 'trace.json'}")
