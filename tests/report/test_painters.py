"""Figures drawn by several processes are those of one; errors are what they were; no helper outlives who asked."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from farout.errors import FaroutError
from farout.report.figures import painters
from farout.report.figures.curves import roc_figure
from farout.report.figures.histograms import score_histogram
from farout.report.figures.painters import Painter, draw_all, helpers
from farout.report.figures.sketches import Drawing, Sketch

HERE = os.getpid()
SCORES = np.random.default_rng(0).normal(size=300)


def _sketches(count: int) -> list[Sketch]:
    kinds = (roc_figure, score_histogram)
    return [
        Sketch.of(f"figure_{i}", kinds[i % 2], SCORES + 0.1 * i, {"a": SCORES, "b": SCORES - 1}, f"title {i}")
        for i in range(count)
    ]


def dying(parent: int) -> Figure:
    """Draws in one process and ends any other."""
    if os.getpid() != parent:
        os._exit(3)
    return roc_figure(SCORES, {"a": SCORES}, "drawn here")


def refusing() -> Figure:
    raise FaroutError("no such figure")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Painter]:
    """Two helpers for whatever is drawn, and which they were."""
    seen: list[Painter] = []

    class Seen(Painter):
        def __init__(self) -> None:
            super().__init__()
            seen.append(self)

    monkeypatch.setattr(painters, "helpers", lambda figures: 2)
    monkeypatch.setattr(painters, "Painter", Seen)
    return seen


def _all_gone(started: list[Painter]) -> bool:
    return len(started) == 2 and all(painter.process.poll() is not None for painter in started)


def test_helpers_draw_what_one_process_draws(started, monkeypatch) -> None:
    by: list[str] = []
    monkeypatch.setattr(Sketch, "drawing", _slowly(Sketch.drawing, by))
    kept: list[str] = []
    drawn = draw_all(_sketches(8), True, lambda drawing: kept.append(drawing.stem))
    assert _all_gone(started)
    assert len(by) < 8, "helpers had a part in it"
    assert sorted(kept) == [drawing.stem for drawing in drawn] == [f"figure_{i}" for i in range(8)]
    monkeypatch.undo()
    assert drawn == [sketch.drawing(True) for sketch in _sketches(8)]


def _slowly(drawing, by):
    def slow(self: Sketch, png: bool) -> Drawing:
        by.append(self.stem)
        time.sleep(1)
        return drawing(self, png)

    return slow


def test_an_error_is_what_it_is_without_helpers(started) -> None:
    with pytest.raises(FaroutError, match=r"^no such figure$"):
        draw_all([*_sketches(3), Sketch.of("none", refusing)], False)
    assert _all_gone(started)


def test_what_a_dead_helper_had_is_drawn_here(started) -> None:
    sketches = [Sketch.of(f"dying_{i}", dying, HERE) for i in range(4)]
    assert [drawing.stem for drawing in draw_all(sketches, False)] == [f"dying_{i}" for i in range(4)]
    assert _all_gone(started)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, FaroutError("the disk is full")])
def test_whatever_ends_it_early_ends_the_helpers(started, stop) -> None:
    def keep(drawing: Drawing) -> None:
        raise stop

    with pytest.raises(stop if isinstance(stop, type) else type(stop)):
        draw_all(_sketches(6), False, keep)
    assert _all_gone(started)


def test_no_helper_outlives_a_killed_process() -> None:
    code = (
        "from farout.report.figures.painters import Painter; p = Painter(); print(p.process.pid, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        helper = int(asking.stdout.readline())
        assert Path(f"/proc/{helper}").exists() or sys.platform != "linux"
        asking.send_signal(signal.SIGKILL)
        asking.wait()
        deadline = time.monotonic() + 30
        while _runs(helper) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _runs(helper)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/status")
    return not (status.exists() and "State:\tZ" in status.read_text())


def test_few_figures_or_one_core_need_no_helper(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert (helpers(painters.WORTH - 1), helpers(painters.WORTH), helpers(1000)) == (0, 1, painters.MOST)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert helpers(1000) == 0


def test_a_helper_loads_no_pytorch() -> None:
    code = "import sys, farout.report.figures.drawings, farout.report.figures.painters; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
