"""trainer.compile=auto on a CPU: a timing at the start of a long run, and its outcome for as long as the run lasts."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from farout.engine import timing
from farout.engine.checkpoint import load_state, save_state
from farout.errors import FaroutError
from farout.runs import compiling
from farout.runs.run import Run, run_of
from farout.runs.training import train

CPU = torch.device("cpu")
# The trunk and batch of the quick benchmark, so that the compiler finds here what it made there, or there what here.
SMALL = ["method=ce", "backbone.depth=8", "backbone.width=4", "batch_size=8", "max_steps=4", "evaluate=false"]
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs g++")


@pytest.fixture
def long_runs(monkeypatch) -> None:
    """The shortest run counts as one that a compiler may pay for."""
    monkeypatch.setattr(compiling, "COMPILE_FROM_STEPS", 1)
    monkeypatch.setattr(compiling, "WORTH_TRYING", 0.0)


@pytest.fixture
def outcome(monkeypatch) -> Callable[[float], list[int]]:
    """Timings are made, then come out with a compiled update that takes so many times an eager one."""

    def comes_out(ratio: float) -> list[int]:
        made = []

        def decided(trial, worth):
            found = timing.time_compiling(trial, worth)
            made.append(1)
            return replace(found, compiled=ratio * found.eager, compiling=0.0)

        monkeypatch.setattr(compiling, "time_compiling", decided)
        return made

    return comes_out


@pytest.fixture
def trained(settings, tmp_path) -> Callable[..., Run]:
    """A finished run in a folder of its own."""

    def finished(place: str, *words: str) -> Run:
        wanted = settings(*words)
        wanted = replace(wanted, paths=replace(wanted.paths, outputs=str(tmp_path / place)))
        train(wanted)
        return run_of(wanted, CPU)

    return finished


def test_a_short_run_is_not_timed(trained, monkeypatch) -> None:
    monkeypatch.setattr(compiling, "time_compiling", lambda *_: pytest.fail("timed"))
    run = trained("short", *SMALL)
    assert "timing" not in run.record and run.record["trained"]["conditions"][0]["compiled"] is False


@pytest.mark.usefixtures("long_runs")
def test_a_failing_compiler_leaves_the_weights_of_a_run_without_one(trained, monkeypatch, capsys) -> None:
    """JEM fills its buffer from the global generator before the first step: a timing that drew from it would show."""

    def broken(model):
        def trunk(images):
            torch.rand(3)
            raise RuntimeError("cannot lower\nlong explanation")

        model._compiled = trunk

    monkeypatch.setattr("farout.backbones.base.Backbone.compile_trunk", broken)
    words = ["method=jem", "backbone=wrn_10_2_jem", "buffer_size=20", "sgld_steps=1", "evaluate=false"]
    timed, plain = trained("timed", *words), trained("plain", *words, "trainer.compile=false")
    said = [line for line in capsys.readouterr().out.splitlines() if "the trunk" in line]
    assert said == ["the trunk is not compiled, because torch.compile fails here: cannot lower"]
    seen = timed.record["timing"]["compile"]
    assert seen["chosen"] is False and seen["problem"] == "cannot lower" and seen["eager"] > 0
    assert timed.weights.read_bytes() == plain.weights.read_bytes()
    assert timed.method_state.read_bytes() == plain.method_state.read_bytes()


@needs_compiler
@pytest.mark.usefixtures("long_runs")
def test_a_timing_that_stays_eager_changes_no_bit(trained, outcome, capsys) -> None:
    made = outcome(2.0)
    timed, plain = trained("timed", *SMALL), trained("plain", *SMALL, "trainer.compile=false")
    assert made == [1]
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "the trunk" in line]
    assert said.startswith("the trunk is not compiled: an update takes ")
    assert timed.record["timing"]["compile"]["chosen"] is False
    assert timed.record["trained"]["conditions"][0]["compiled"] is False
    assert timed.weights.read_bytes() == plain.weights.read_bytes()


@needs_compiler
@pytest.mark.usefixtures("long_runs")
def test_a_compiled_run_goes_on_compiled_to_the_same_bits(trained, outcome, settings, monkeypatch, capsys) -> None:
    made = outcome(0.5)
    whole = trained("whole", *SMALL)
    assert whole.record["timing"]["compile"]["chosen"] is True
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "the trunk" in line]
    assert said.startswith("the trunk is compiled: an update takes ")
    with monkeypatch.context() as patch:
        patch.setattr("farout.engine.fit.Loop.out_of_time", lambda loop: loop.step == 2)
        with pytest.raises(FaroutError, match="step 2 of 4"):
            trained("broken", *SMALL)
    assert made == [1, 1]
    outcome(2.0)
    torch._dynamo.reset()  # as in another process
    broken = trained("broken", *SMALL)
    (conditions,) = broken.record["trained"]["conditions"]
    assert conditions["compiled"] is True and broken.record["timing"]["compile"]["chosen"] is True
    assert broken.weights.read_bytes() == whole.weights.read_bytes()
    plain = trained("plain", *SMALL, "trainer.compile=false")
    assert plain.weights.read_bytes() != whole.weights.read_bytes(), "else the comparison says nothing"


@pytest.fixture
def paused(settings, monkeypatch) -> Run:
    """A run of a version that timed nothing, with a state of its second step."""
    with monkeypatch.context() as patch:
        patch.setattr("farout.engine.fit.Loop.out_of_time", lambda loop: loop.step == 2)
        with pytest.raises(FaroutError, match="step 2 of 4"):
            train(settings(*SMALL, "trainer.compile=false"))
    return run_of(settings(*SMALL), CPU)


def _say_compiled(path: Path, without: str = "") -> None:
    """Have a state say that its session was compiled."""
    state = load_state(path, CPU)
    (was,) = state["conditions"]
    known = {key: value for key, value in was.items() if key != without}
    save_state(path, {**state, "conditions": [{**known, "compiled": True}]})


@pytest.mark.usefixtures("long_runs")
@pytest.mark.parametrize("made_compiled_on_a_gpu", [False, True])
def test_a_run_that_began_without_goes_on_without(settings, paused, monkeypatch, made_compiled_on_a_gpu) -> None:
    if made_compiled_on_a_gpu:
        _say_compiled(paused.checkpoint, without="instructions")
    monkeypatch.setattr(compiling, "time_compiling", lambda *_: pytest.fail("timed"))
    train(settings(*SMALL))
    assert paused.record["trained"]["conditions"][-1]["compiled"] is False


def test_a_compiled_run_goes_on_where_nothing_compiles_and_says_so(settings, paused, monkeypatch, capsys) -> None:
    _say_compiled(paused.checkpoint)
    monkeypatch.setattr(compiling, "compile_problem", lambda trial: "there is no C++ compiler such as g++")
    train(settings(*SMALL))
    out = capsys.readouterr().out
    assert "note: the trunk is not compiled, because torch.compile fails here: there is no C++ compiler" in out
    assert "compiled False (was True)" in out
    assert [entry["compiled"] for entry in paused.record["trained"]["conditions"]] == [True, False]


@pytest.mark.usefixtures("long_runs")
def test_a_run_killed_before_its_first_state_keeps_its_choice(settings, monkeypatch) -> None:
    wanted = settings(*SMALL)
    run = run_of(wanted, CPU)
    run.folder.mkdir(parents=True)
    run.write_record(timing={"compile": {"chosen": False}})
    monkeypatch.setattr(compiling, "time_compiling", lambda *_: pytest.fail("timed"))
    train(wanted)
    assert run.finished


def test_a_session_that_is_too_short_for_a_compiler_does_not_try(settings, monkeypatch) -> None:
    monkeypatch.setattr(compiling, "COMPILE_FROM_STEPS", 1)
    monkeypatch.setattr(timing, "compile_problem", lambda trial: pytest.fail("compiled"))
    train(settings(*SMALL))
    seen = run_of(settings(*SMALL), CPU).record["timing"]["compile"]
    assert seen["chosen"] is False and seen["compiled"] is None and seen["seconds_left"] < compiling.WORTH_TRYING
