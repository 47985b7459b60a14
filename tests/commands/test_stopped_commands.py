"""train.py and eval.py that are told to stop: one line that is true, the status that says so, nothing lost."""

import errno
import os
import signal
from pathlib import Path

import pytest

from farout.methods import CrossEntropy, EnergyFineTuning
from farout.runs import training
from farout.runs.evaluation import EvaluationJob

TINY = ["method=ce", "evaluate=false", "max_steps=4"]


@pytest.fixture
def signalled(command, monkeypatch):
    """Run a command that gets a signal amid its n-th loss of a method."""

    def call(number, at, *words, method=CrossEntropy, name="train"):
        real, seen = method.loss, []

        def loss(self, model, batches):
            seen.append(1)
            if len(seen) == at:
                os.kill(os.getpid(), number)
            return real(self, model, batches)

        with monkeypatch.context() as patch:
            patch.setattr(method, "loss", loss)
            return command(name, *words)

    return call


@pytest.fixture
def weights(tmp_path):
    return lambda: {path.parent.name: path.read_bytes() for path in tmp_path.glob("outputs/runs/*/weights.safetensors")}


@pytest.mark.parametrize(
    ("number", "word", "status"), [(signal.SIGTERM, "terminated", 143), (signal.SIGUSR1, "stopped", 138)]
)
def test_the_state_is_saved_at_the_next_step_and_the_same_command_ends_as_if_nothing_had_been(
    signalled, command, runs, weights, tmp_path, number, word, status
):
    done = signalled(number, 3, *TINY)
    assert done.status == status
    (name,) = runs()
    assert done.err == f"{word} at step 3 of 4 of {name}: the same command goes on from step 3\n"
    assert (tmp_path / "outputs/runs" / name / "checkpoint.pt").exists() and not weights()
    again = command("train", *TINY)
    assert again.status == 0 and f"{name} resumes" in again.out
    resumed = weights()
    for path in tmp_path.glob("outputs/runs/*/weights.safetensors"):
        path.unlink()
    assert command("train", *TINY).status == 0
    assert weights() == resumed


@pytest.mark.parametrize(
    ("words", "follows"),
    [
        ([], "; no checkpoint was written yet: the same command starts afresh"),
        (["trainer.checkpoint_steps=2"], ": the same command goes on from step 2"),
    ],
)
def test_sigint_says_truly_whether_there_is_a_checkpoint(signalled, runs, words, follows):
    done = signalled(signal.SIGINT, 4, *TINY, *words)
    assert done.status == 130
    assert done.err == f"interrupted at step 3 of 4 of {runs()[0]}{follows}\n"


def test_sigterm_amid_a_parents_training(signalled, runs):
    done = signalled(signal.SIGTERM, 2, "method=energy", "evaluate=false")
    assert done.status == 143
    assert [name.partition("-")[0] for name in runs()] == ["ce"]
    assert done.err == f"terminated at step 2 of 3 of {runs()[0]}: the same command goes on from step 2\n"


def test_sigterm_ends_a_sweep(signalled, runs):
    done = signalled(signal.SIGTERM, 1, "-m", *TINY, "seed=1,2,3")
    assert done.status == 143
    assert len(runs()) == 1
    assert done.err.count("\n") == 1 and done.err.startswith("terminated at step 1 of 4")


@pytest.mark.parametrize(
    ("number", "word", "status"),
    [(signal.SIGTERM, "terminated", 143), (signal.SIGINT, "interrupted", 130), (signal.SIGUSR1, "stopped", 138)],
)
def test_a_signal_amid_an_evaluation(command, monkeypatch, runs, number, word, status):
    monkeypatch.setattr(EvaluationJob, "carry_out", lambda *_: os.kill(os.getpid(), number))
    done = command("train", "method=ce")
    assert done.status == status
    (name,) = runs()
    assert done.err == f"{word} while {name}, which is trained, was evaluated: repeat the command to evaluate it\n"
    again = command("eval", "method=ce")
    assert again.status == status
    assert again.err == f"{word} while {name} was evaluated: repeat the command to evaluate it\n"


def test_a_signal_before_anything_has_begun(command, monkeypatch, runs):
    monkeypatch.setattr(training, "training_data", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    done = command("train", *TINY)
    assert (done.status, runs()) == (143, [])
    assert done.err == "terminated before training or evaluation began: nothing is lost, repeat the command\n"


def test_a_signal_between_the_last_step_and_the_weights(command, monkeypatch, weights):
    monkeypatch.setattr(training, "validate", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    done = command("train", *TINY, "holdout=0.2")
    assert done.status == 143 and not weights()
    assert "after the last step of" in done.err and done.err.endswith("the same command starts it afresh\n")


def test_a_method_that_takes_long_to_prepare_is_not_waited_for(command, monkeypatch):
    monkeypatch.setattr(EnergyFineTuning, "prepare", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    done = command("train", "method=energy", "init_from=null", "evaluate=false")
    assert done.status == 143
    assert "at step 0 of 3" in done.err and "no checkpoint was written yet" in done.err


def test_a_finished_run_that_can_only_be_read_is_finished_with_a_state_that_a_kill_has_left(
    command, runs, tmp_path, monkeypatch
):
    assert command("train", *TINY).status == 0
    state = tmp_path / "outputs/runs" / runs()[0] / "checkpoint.pt"
    state.touch()

    def refuse(path, missing_ok=False):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    done = command("train", *TINY)
    assert (done.status, done.err) == (0, "") and "nothing left to do" in done.out and state.exists()
