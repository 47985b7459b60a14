"""What trainer.precision=auto means on a CPU: one answer for whoever asks, kept by a run that began."""

from pathlib import Path

import pytest
import torch

from farout.engine.precision import has_bf16_instructions
from farout.runs import precision, training
from farout.runs.run import Run, parent_run, run_in, run_of
from farout.runs.training import TrainingJob, train

CPU = torch.device("cpu")
CHILD = "method=energy"


@pytest.fixture
def capable(monkeypatch) -> None:
    """A processor with bf16 instructions, and no run too short for a timing."""
    monkeypatch.setattr(precision, "has_bf16_instructions", lambda: True)
    monkeypatch.setattr(training, "TIME_FROM_STEPS", 1)


@pytest.fixture
def timings(monkeypatch) -> list[int]:
    """The timings that were made, by number; the first two say that bf16 is the quicker."""
    made: list[int] = []

    def in_turns(trials):
        assert set(trials) == {"fp32", "bf16"}
        assert [trial.model.autocast_dtype for trial in trials.values()] == [None, torch.bfloat16]
        made.append(len(made))
        return {"fp32": 2.0, "bf16": 1.0} if len(made) <= 2 else {"fp32": 1.0, "bf16": 2.0}

    monkeypatch.setattr(training, "in_turns", in_turns)
    return made


def begin(run: Run) -> Run:
    run.folder.mkdir(parents=True)
    run.write_record()
    return run


def test_what_the_processor_says(monkeypatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False}, raising=False)
    assert not has_bf16_instructions()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "amx_bf16": True}, raising=False)
    assert has_bf16_instructions()
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert not has_bf16_instructions()


def test_a_processor_without_bf16_takes_fp32_untimed(settings, timings, monkeypatch) -> None:
    monkeypatch.setattr(precision, "has_bf16_instructions", lambda: False)
    monkeypatch.setattr(training, "TIME_FROM_STEPS", 1)
    wanted = settings(CHILD)
    precision.remember(wanted, CPU, {"fp32": 2.0, "bf16": 1.0})
    assert TrainingJob.of(wanted, CPU).run.identity["precision"] == "fp32"
    assert timings == []


@pytest.mark.usefixtures("capable")
def test_a_long_run_is_timed_once_and_its_parent_first(settings, timings, capsys) -> None:
    wanted = settings(CHILD, "backbone.depth=8", "backbone.width=4", "evaluate=false")
    assert run_of(wanted, CPU).identity["precision"] == "fp32", "whoever only asks times nothing"
    assert timings == []
    run = TrainingJob.of(wanted, CPU).run
    assert timings == [0, 1], "the parent, then the run"
    said = "energy on resnet20 trains in bf16: an update takes 2000 ms in fp32, 1000 ms in bf16"
    assert said in capsys.readouterr().out
    assert run.identity["precision"] == parent_run(wanted, CPU).identity["precision"] == "bf16"
    assert TrainingJob.of(wanted, CPU).run == run == run_of(wanted, CPU) and timings == [0, 1]
    train(wanted)
    assert timings == [0, 1] and run.finished and parent_run(wanted, CPU).finished
    assert run.record["timing"]["precision"] == {"precision": "bf16", "seconds": {"fp32": 2.0, "bf16": 1.0}}


@pytest.mark.usefixtures("capable")
def test_a_run_that_began_is_not_asked_again(settings, timings) -> None:
    begun = begin(run_in(settings("method=ce"), "fp32", None))
    assert TrainingJob.of(settings("method=ce"), CPU).run == begun
    precision.remember(settings("method=ce"), CPU, {"fp32": 2.0, "bf16": 1.0})
    assert run_of(settings("method=ce"), CPU) == begun and timings == []
    assert run_of(settings("method=ce", "seed=2"), CPU).identity["precision"] == "bf16"


@pytest.mark.usefixtures("capable")
@pytest.mark.parametrize(
    "words",
    [
        ["method=ce", "trainer.precision=fp32"],
        ["method=ce", "trainer.precision=bf16"],
        ["method=jem", "backbone=wrn_10_2_jem", "buffer_size=20"],
    ],
)
def test_what_was_asked_for_and_full_precision_are_not_timed(settings, timings, words) -> None:
    found = TrainingJob.of(settings(*words), CPU).run.identity["precision"]
    assert (found == "bf16") == ("trainer.precision=bf16" in words) and timings == []


def test_short_runs_are_not_timed(settings, timings, monkeypatch) -> None:
    monkeypatch.setattr(precision, "has_bf16_instructions", lambda: True)
    assert TrainingJob.of(settings("method=ce"), CPU).run.identity["precision"] == "fp32"
    assert timings == []


@pytest.mark.usefixtures("capable")
def test_the_timing_is_of_real_updates(settings) -> None:
    wanted = settings("method=ce", "backbone.width=4", "batch_size=8")
    state = torch.get_rng_state()
    job = TrainingJob.of(wanted, CPU)
    assert torch.equal(torch.get_rng_state(), state)
    seen = precision.remembered(wanted, CPU)
    assert seen is not None and all(0 < seconds < 5 for seconds in seen["seconds"].values())
    assert job.run.identity["precision"] == seen["precision"] == min(seen["seconds"], key=seen["seconds"].get)


@pytest.mark.usefixtures("capable")
def test_an_answer_stays_and_a_damaged_file_is_none(settings) -> None:
    wanted = settings("method=ce")
    precision.remember(wanted, CPU, {"fp32": 2.0, "bf16": 1.0})
    precision.remember(wanted, CPU, {"fp32": 1.0, "bf16": 2.0})
    assert precision.resolve_precision(wanted, CPU) == "bf16"
    assert precision.undecided(settings("method=ce", "batch_size=9"), CPU)
    (Path(wanted.paths.outputs) / "precision.json").write_text("{half")
    assert precision.undecided(wanted, CPU) and precision.resolve_precision(wanted, CPU) == "fp32"


def test_finished_runs_of_when_small_was_bf16_are_found(settings) -> None:
    """The classifier, its child, and the child where the classifier's folder is gone."""
    asked, auto = (settings(CHILD, "scale=small", *words) for words in (["trainer.precision=bf16"], []))
    classifier = begin(run_in(settings("method=ce", "scale=small"), "bf16", None))
    child = begin(run_in(asked, "bf16", classifier))
    child.weights.write_bytes(b"")
    assert parent_run(auto, CPU) == classifier and run_of(auto, CPU) == child
    (classifier.folder / "run.json").unlink()
    assert run_of(auto, CPU) == child
    child.weights.unlink()
    assert run_of(auto, CPU).identity["precision"] == "fp32", "unfinished, it would go on from another parent"


def test_a_gpu_is_never_asked_for_what_a_cpu_remembers(settings) -> None:
    """Its precision follows from a rule; its conditions name no instructions."""
    wanted = settings("method=ce")
    cuda = torch.device("cuda")
    assert precision.remembered(wanted, cuda) is None
    assert not precision.undecided(wanted, cuda)
