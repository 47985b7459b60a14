"""Progress without a terminal: when a line is due, and what it holds."""

import sys
from types import SimpleNamespace

import pytest

from farout.engine import progress
from farout.engine.progress import GIB, Bar, Lines, duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still until it is moved; no process of work had a line yet."""
    found = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress, "monotonic", lambda: found.now)
    monkeypatch.setattr(Lines, "last", 0.0)
    return found


def test_the_first_line_comes_soon_and_then_one_a_minute(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {}
    with Bar("energy", 100, 10, lambda: "total 1.000 | 320 images/s", "step") as bar:
        for step in range(11, 41):
            clock.now += 5
            bar.at(step)
            if line := capsys.readouterr().err:
                said[clock.now - 1000] = line
    assert list(said) == [15, 75, 135]
    assert said[75] == "energy: step 25 of 100 (25.0 %), 6 min left | total 1.000 | 320 images/s\n"


def test_many_short_bars_share_a_line_a_minute(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for number in range(10):  # 20 seconds each
        with Bar(f"set {number}", 1000) as bar:
            for _ in range(4):
                clock.now += 5
                bar.advance(250)
                said += [(clock.now - 1000, line) for line in capsys.readouterr().err.splitlines()]
    assert [when for when, _ in said] == [15, 75, 135, 195]
    assert said[0][1] == "set 0: 750 of 1,000 (75.0 %), 5 s left | 50/s"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_on_a_terminal_there_are_no_lines(
    stream: str, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(getattr(sys, stream), "isatty", lambda: True)
    with Bar("energy", None) as bar:
        clock.now += 100
        bar.advance()
    assert "energy: 1" not in "".join(capsys.readouterr())


def test_memory_is_of_the_devices_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        device_count=lambda: 3,
        memory_reserved=lambda index: 1 if index == 1 else 0,
        mem_get_info=lambda index: (60 * GIB, 80 * GIB),
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert progress.device_memory() == ["cuda:1 20.0 of 80.0 GiB"]
    cuda.is_initialized = lambda: False
    assert progress.device_memory() == []


def test_durations_have_the_units_that_matter() -> None:
    found = [duration(seconds) for seconds in (0, 59.4, 90, 3570, 11100, 200_000)]
    assert found == ["0 s", "59 s", "2 min", "1 h 0 min", "3 h 5 min", "2 d 7 h"]
