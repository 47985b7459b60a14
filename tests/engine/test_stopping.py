"""Signals: at once, or at the end of what must be whole; a second one never waits."""

import os
import signal
import threading

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
