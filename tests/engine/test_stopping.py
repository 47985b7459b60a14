"""Signals: at once, or at the end of what must be whole; a second one never waits."""

import os
import signal
import sys
import threading
import time

import pytest

from farout.engine import stopping


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_it_ends_at_once_outside_and_at_the_end_of_what_is_held(number: int) -> None:
    with stopping.signals(), pytest.raises(stopping.Terminated):
        send(number)
    with stopping.signals():
        done = []
        with pytest.raises(stopping.Terminated) as stop, stopping.deferred():
            assert not stopping.asked()
            send(number)
            done.append(stopping.asked())
        assert done == [True]
        assert stopping.word_and_status(stop.value)[1] == 128 + number


@pytest.mark.parametrize("then", [signal.SIGUSR1, signal.SIGTERM])
def test_a_warning_that_something_follows_still_waits_for_the_end_of_the_step(then: int) -> None:
    with stopping.signals():
        done = []
        with pytest.raises(stopping.Terminated) as stop, stopping.deferred():
            send(signal.SIGUSR1)
            send(then)
            done.append(1)
        assert done == [1]
        assert stopping.word_and_status(stop.value)[1] == 128 + then


def test_what_a_launcher_does_at_a_warning_stays() -> None:
    heard: list[int] = []
    usual = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    try:
        with stopping.signals():
            send(signal.SIGUSR1)
        assert heard == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, usual)


class Finalised:
    """A signal reaches its process while it is finalised."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        send(self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_what_a_finaliser_would_swallow_comes_again(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    usual = sys.unraisablehook
    with stopping.signals():
        went_on = []
        with pytest.raises((stopping.Terminated, KeyboardInterrupt)) as stop:
            Finalised(number)
            went_on.append(True)
            time.sleep(5)
            went_on.append(True)
        assert went_on == [True], "which Python only reports; but it came again, once"
        assert stopping.word_and_status(stop.value)[1] == 128 + number
        time.sleep(3 * stopping.AGAIN)
    assert sys.unraisablehook is usual
    assert capsys.readouterr().err == "", "nothing is reported"


def test_a_finaliser_amid_a_step_leaves_the_step_whole() -> None:
    with stopping.signals():
        done = []
        with pytest.raises(stopping.Terminated), stopping.deferred():
            Finalised(signal.SIGTERM)
            done.append(stopping.asked())
        assert done == [True]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_else_a_finaliser_raises_is_reported_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: reported.append(lost.exc_type))

    class Faulty:
        def __del__(self) -> None:
            raise ValueError

    with stopping.signals():
        Faulty()
    assert reported == [ValueError]


def test_a_second_sigterm_does_not_wait() -> None:
    with stopping.signals():
        done = []
        with pytest.raises(stopping.Terminated), stopping.deferred():
            send(signal.SIGTERM)
            send(signal.SIGTERM)
            done.append(1)
        assert not done


def test_no_request_is_left_over_for_the_next_command() -> None:
    with pytest.raises(stopping.Terminated), stopping.signals(), stopping.deferred():
        send(signal.SIGTERM)
    with stopping.signals(), stopping.deferred():
        assert not stopping.asked()


def test_after_the_first_sigint_the_system_handles_the_second() -> None:
    with stopping.signals():
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


def test_handlers_are_given_back_and_other_threads_have_none() -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    with stopping.signals():
        assert signal.getsignal(signal.SIGTERM) is stopping.on_terminate
        seen: list[str] = []

        def work() -> None:
            with stopping.signals():
                seen.append("worked")

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert seen == ["worked"]
    assert [signal.getsignal(number) for number in numbers] == before


def test_neither_is_taken_for_a_failing_job() -> None:
    assert not issubclass(stopping.Terminated, Exception) and not issubclass(stopping.Interrupted, Exception)
    assert issubclass(stopping.Interrupted, KeyboardInterrupt)
