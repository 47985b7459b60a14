"""Work beside the caller's: in order, one task behind at most, errors as they were."""

import threading
import time

import pytest

from farout.engine.background import Background
from farout.errors import FaroutError


def test_a_task_runs_beside_the_caller_and_the_next_waits_for_it() -> None:
    begun, may_end, seen = threading.Event(), threading.Event(), []

    def first() -> None:
        begun.set()
        assert may_end.wait(10)
        time.sleep(0.05)
        seen.append("first")

    with Background() as background:
        background.run(first)
        assert begun.wait(10) and not seen, "the caller goes on"
        may_end.set()
        background.run(seen.append, "second")
        assert seen[0] == "first"
        background.wait()
        assert seen == ["first", "second"]
        background.wait()


@pytest.mark.parametrize("next_call", ["run", "wait"])
def test_an_error_comes_to_the_caller_as_it_was(next_call: str) -> None:
    error = FaroutError("what went wrong")

    def failing() -> None:
        raise error

    with pytest.raises(FaroutError) as raised, Background() as background:
        background.run(failing)
        if next_call == "run":
            background.run(pytest.fail, "the work goes on after an error")
        background.wait()
    assert raised.value is error


def test_leaving_by_ctrl_c_waits_for_the_task_in_progress() -> None:
    seen: list[str] = []

    def slow() -> None:
        time.sleep(0.1)
        seen.append("done")

    with pytest.raises(KeyboardInterrupt), Background() as background:
        background.run(slow)
        raise KeyboardInterrupt
    assert seen == ["done"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("background")]
