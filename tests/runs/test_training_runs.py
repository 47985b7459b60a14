"""Whole runs of the tiny problem in this process: parents, resuming, holdouts, evaluation."""

import hashlib
import json
import re
import shutil

import pytest
import torch

from farout.data.corruptions import KINDS
from farout.engine.checkpoint import load_state, save_state
from farout.errors import ConfigError, FaroutError
from farout.runs import evaluation_files, training
from farout.runs.inputs import ImageSets
from farout.runs.logger import RunLogger
from farout.runs.run import Run, open_run, run_of, settings_for
from farout.runs.training import train

CPU = torch.device("cpu")
CHILD = "method=energy"


@pytest.fixture
def quiet(settings):
    """Settings without the evaluation at the end."""
    return lambda *words: settings("evaluate=false", *words)


def test_a_holdout_gives_sweepers_a_figure(quiet):
    wanted = quiet(CHILD, "holdout=0.2")
    figure = train(wanted)
    record = run_of(wanted, CPU).record["validation"]
    assert isinstance(figure, float)
    assert figure == record["fpr95"]
    assert record["score"] == "energy"
    assert record["n"] == 64, "capped by max_eval_images"
    assert set(record["corruptions"]) == set(KINDS)
    mean = sum(row["fpr95"] for row in record["corruptions"].values()) / len(record["corruptions"])
    assert record["fpr95"] == pytest.approx(mean)
    assert train(wanted) == figure, "also when it is finished already"


def test_without_a_holdout_there_is_none(quiet, monkeypatch):
    kept = []
    monkeypatch.setattr(training, "keep_freed_memory", lambda: kept.append(1))
    wanted = quiet("method=ce")
    assert train(wanted) is None
    assert kept == [1], "training on a CPU keeps the memory that it frees"
    assert "validation" not in run_of(wanted, CPU).record


def test_the_parent_is_trained_once_and_its_weights_are_where_the_child_starts(quiet, runs, capsys, monkeypatch):
    starts = []
    real = Run.start
    monkeypatch.setattr(Run, "start", lambda run, model: starts.append(run.weights) or real(run, model))
    train(quiet(CHILD))
    assert re.search(r"needs ce-resnet20-digits-\w+-s1, which is trained first", capsys.readouterr().out)
    train(quiet(CHILD, "m_in=-20"))
    assert re.search(r"starts from ce-resnet20-digits-\w+-s1", capsys.readouterr().out)
    parent = run_of(quiet("method=ce"), CPU)
    assert starts == [parent.weights] * 2
    assert len(runs()) == 3


def test_long_pretraining_tells_its_time(quiet, capsys, monkeypatch):
    monkeypatch.setattr(training.TrainingJob, "step_seconds", lambda *_: 0.6)
    monkeypatch.setattr(training.TrainingJob, "_train", lambda *_: (_ for _ in ()).throw(FaroutError("enough")))
    with pytest.raises(FaroutError, match="enough"):
        train(quiet(CHILD, "pretrain.epochs=20", "pretrain.max_steps=200"))
    assert "is trained first: 200 steps, about 2 min on this device" in capsys.readouterr().out


def test_a_named_parent_must_fit(quiet):
    train(quiet("method=ce"))
    folder = run_of(quiet("method=ce"), CPU).folder
    train(quiet(CHILD, f"init_from={folder}"))
    assert run_of(quiet(CHILD, f"init_from={folder}"), CPU).identity["parent"].startswith("weights-")
    for words, message in {
        "backbone=resnet56": r"init_from was trained with backbone=resnet20: add backbone=resnet20",
        "transform.mean=[0.1,0.1,0.1]": r"init_from was trained with transform=digits",
        "id_data.num_classes=8": r"has 7 classes, not 8: set id_data.num_classes=7",
    }.items():
        with pytest.raises(FaroutError, match=message):
            train(quiet(CHILD, f"init_from={folder}", words))
    train(quiet(CHILD, f"init_from={folder}", "transform.crop_padding=0"))  # augmentation may differ
    (folder / "weights.safetensors").unlink()
    with pytest.raises(FaroutError, match="is not finished"):
        train(quiet(CHILD, f"init_from={folder}"))


def test_a_spent_budget_pauses_and_the_same_command_goes_on(quiet, capsys):
    wanted = quiet("method=ce")
    paused = quiet("method=ce", "trainer.budget_minutes=0")
    with pytest.raises(FaroutError, match=r"time budget is spent at step 0 of 3 .*repeat to go on"):
        train(paused)
    run = run_of(wanted, CPU)
    assert run.checkpoint.exists()
    assert not run.finished
    capsys.readouterr()
    train(wanted)
    assert f"{run.name} resumes" in capsys.readouterr().out
    assert run.finished
    assert not run.checkpoint.exists()


def test_what_a_killed_process_left_is_removed(quiet):
    wanted = quiet("method=ce")
    train(wanted)
    run = run_of(wanted, CPU)
    left = [run.checkpoint, run.folder / ".checkpoint.pt.4242.tmp", run.folder / ".weights.safetensors.1.tmp"]
    for path in left:
        path.write_bytes(b"half")
    train(wanted)
    assert not any(path.exists() for path in left)


def test_a_damaged_checkpoint_is_moved_aside_and_training_starts_afresh(quiet, capsys):
    wanted = quiet("method=ce")
    run = run_of(wanted, CPU)
    run.folder.mkdir(parents=True)
    run.checkpoint.write_bytes(b"half")
    train(wanted)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert len(said) == 1 and "checkpoint.pt is damaged and was moved to checkpoint.pt.damaged" in said[0]
    assert said[0].endswith("training starts afresh")
    assert (run.folder / "checkpoint.pt.damaged").read_bytes() == b"half"
    assert run.finished


def test_divergence_leaves_nothing_to_resume_from(quiet):
    wanted = quiet("method=ce", "lr=1e30", "trainer.log_every=1")
    with pytest.raises(FaroutError, match="diverged"):
        train(wanted)
    run = run_of(wanted, CPU)
    assert not run.finished
    assert not run.checkpoint.exists()


@pytest.fixture
def paused(quiet):
    """A run of these overrides, with a checkpoint of its first moment."""

    def begin(*words):
        with pytest.raises(FaroutError, match="budget"):
            train(quiet("method=ce", "trainer.budget_minutes=0", *words))
        return run_of(quiet("method=ce", *words), CPU)

    return begin


def test_checkpoints_of_other_images_are_refused(quiet, paused):
    run = paused()
    save_state(run.checkpoint, {**load_state(run.checkpoint, CPU), "tag": "other"})
    with pytest.raises(FaroutError, match="belongs to other data"):
        train(quiet("method=ce"))


@pytest.mark.parametrize("words", ["seed=2", "lr=0.05"])
def test_the_checkpoint_of_another_run_is_moved_aside(quiet, paused, capsys, words):
    """Same network, same images, same length: its tensors would fit."""
    run, other = paused(), paused(words)
    shutil.copy(other.checkpoint, run.checkpoint)
    capsys.readouterr()
    train(quiet("method=ce"))
    (said,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("note: "))
    assert f"belongs to another run ({other.name}) and was moved to checkpoint.pt.foreign" in said
    assert (run.folder / "checkpoint.pt.foreign").exists()
    taken_over = run.weights.read_bytes()
    shutil.rmtree(run.folder)
    train(quiet("method=ce"))
    assert run.weights.read_bytes() == taken_over


def test_a_checkpoint_of_before_checksums_is_taken_up_unless_its_archive_is_damaged(quiet, paused, capsys):
    run = paused()
    state = load_state(run.checkpoint, CPU)
    torch.save({key: value for key, value in state.items() if key not in ("owner", "conditions")}, run.checkpoint)
    content = bytearray(run.checkpoint.read_bytes())
    train(quiet("method=ce"))
    assert "was written before states had checksums" in capsys.readouterr().out
    assert run.record["trained"]["conditions"][0]["from_step"] == 0
    run.weights.unlink()
    *_, last = state["model"].values()
    content[content.index(last.numpy().tobytes()) + 5] ^= 1
    run.checkpoint.write_bytes(content)
    train(quiet("method=ce"))
    assert "checkpoint.pt is damaged" in capsys.readouterr().out


def test_what_changes_only_the_last_digits_is_recorded_and_said_on_resume(quiet, paused, capsys):
    run = paused()
    capsys.readouterr()
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        train(quiet("method=ce", "trainer.channels_last=false"))
    finally:
        torch.set_num_threads(threads)
    (said,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("note: "))
    assert f"threads {threads + 1} (was {threads}), channels_last False (was True)" in said
    first, second = run.record["trained"]["conditions"]
    assert {key for key in first if first[key] != second[key]} == {"threads", "channels_last"}
    assert set(first) == {
        *("from_step", "device", "instructions", "threads", "torch", "channels_last", "compiled", "tf32", "devices")
    }


def test_finished_files_stand_in_the_record_by_their_hashes(quiet, monkeypatch):
    wanted = quiet("method=jem", "backbone=wrn_10_2_jem", "buffer_size=20", "sgld_steps=1")
    run, seen = run_of(wanted, CPU), []
    real = training.write_bytes

    def write(path, content):
        seen.append((path.name, run.finished, sorted(run.record["files"])))
        real(path, content)

    monkeypatch.setattr(training, "write_bytes", write)
    train(wanted)
    both = ["method.safetensors", "weights.safetensors"]
    assert seen == [(name, False, both) for name in both], "the record first, the weights last"
    for name in both:
        assert run.record["files"][name] == hashlib.sha256((run.folder / name).read_bytes()).hexdigest()


def test_the_best_epoch_by_the_holdout_is_kept(quiet, monkeypatch):
    words = ["method=ce", "holdout=0.9", "epochs=3", "max_steps=null", "batch_size=60", "backbone.width=4"]
    shares, real = [], training.share_correct

    def share(*given):
        shares.append(real(*given))
        return shares[-1]

    monkeypatch.setattr(training, "share_correct", share)
    train(quiet(*words, "keep=best"))
    run, last = run_of(quiet(*words, "keep=best"), CPU), run_of(quiet(*words), CPU)
    assert run.identity["keep"] == "best" and "keep" not in last.identity and run.name != last.name
    kept = run.record["trained"]["kept"]
    assert len(shares) == 3 and kept["accuracy"] == max(shares) and kept["epoch"] == shares.index(max(shares))
    job = training.TrainingJob.of(quiet(*words), CPU)
    data = job.data
    assert kept["step"] == job.steps_per_epoch * (kept["epoch"] + 1)
    held, transform = data.labelled.subset(data.holdout_rows), quiet(*words).transform.build()
    assert real(run.model(CPU), transform, held, CPU, 100) == pytest.approx(kept["accuracy"])


@pytest.mark.parametrize(
    ("words", "message"),
    [("method=ce", "add holdout=0.1, or keep=last"), ("method=cider holdout=0.1", "trains no classifier to choose by")],
)
def test_keep_best_needs_something_to_choose_by(settings, words, message):
    network = ["backbone=resnet18_cider"] if "cider" in words else []
    with pytest.raises(ConfigError, match=message):
        settings("keep=best", *words.split(), *network)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_fp32_is_fp32_and_tf32_is_asked_for(quiet, monkeypatch, precision):
    during, real = [], training.fit

    def fit(*given, **named):
        during.append((torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision))
        return real(*given, **named)

    monkeypatch.setattr(training, "fit", fit)
    wanted = quiet("method=ce", f"trainer.precision={precision}")
    train(wanted)
    assert during == [("tf32", "tf32") if precision == "tf32" else ("ieee", "ieee")]
    assert torch.backends.cudnn.conv.fp32_precision == "ieee", "what is measured afterwards is fp32"
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    run = run_of(wanted, CPU)
    assert run.identity["precision"] == precision
    assert run.record["trained"]["conditions"][0]["tf32"] == (precision == "tf32")


def test_results_hold_what_tables_need(settings):
    wanted = settings(CHILD, "ood_data=smoke", "max_eval_images=40")
    assert train(wanted) is None
    run = run_of(wanted, CPU)
    results = json.loads(run.results.read_text())
    assert results["run"] == run.name
    assert results["identity"] == {**run.identity, "scale": "smoke"}
    assert {"device", "date", "seconds", "steps", "commit", "torch"} <= set(results["trained"])
    paper, plain = results["evaluations"]
    assert (paper["protocol"]["name"], plain["protocol"]["name"]) == ("energy", "plain")
    assert plain["protocol"]["ratio"] is None
    for entry in (paper, plain):
        assert {"date", "commit", "device", "ood_data", "id", "rows", "means", "missing", "controls"} <= set(entry)
        assert entry["id"]["n"] == 40
        assert 0 <= entry["id"]["accuracy"] <= 1
        assert {(row["score"], row["ood"]) for row in entry["rows"]} == {
            (score, ood) for score in ("msp", "energy") for ood in ("china_patches", "hopper_patches", "gaussian@500")
        }
        for row in entry["rows"]:
            assert all(0 <= row[metric] <= 1 for metric in ("fpr95", "auroc", "aupr"))
            assert row["positive"] == "id"
        assert {mean["score"]: mean["votes"] for mean in entry["means"]} == {"msp": 3, "energy": 3}
        assert {control["control"] for control in entry["controls"]} == {"resampled", "jpeg"}
        for control in entry["controls"]:
            assert control["warning"] == (abs(control["auroc"] - 0.5) > 0.05)
    assert {row["n_ood"] for row in plain["rows"]} == {40}
    assert {row["n_ood"] for row in paper["rows"]} == {8}, "one OOD image for five ID images"


def evaluations(run) -> list:
    return json.loads(run.results.read_text())["evaluations"]


def test_evaluation_is_repeated_only_for_something_new(settings, capsys):
    tiny = ["method=ce", "ood_data=smoke", "max_eval_images=20"]
    train(settings(*tiny))
    run = run_of(settings(*tiny), CPU)
    train(settings(*tiny))
    assert "nothing left to do" in capsys.readouterr().out
    assert len(evaluations(run)) == 2
    for count, word in ((4, "score=max_logit"), (6, "protocol.redraws=3"), (8, "ood_data.sets=[blobs@50]")):
        train(settings(*tiny, word))
        assert len(evaluations(run)) == count, word
        train(settings(*tiny, word))
        assert len(evaluations(run)) == count, "and no third time"
    assert evaluations(run)[4]["protocol"]["redraws"] == 3


def test_a_command_stopped_at_its_last_steps_leaves_nothing_that_a_repeated_one_does_not_do(settings, monkeypatch):
    """Logs hear of an evaluation before results.json says that it is done, the page of all runs after it."""
    tiny = ["method=ce", "ood_data=smoke", "max_eval_images=12", "seed=77"]
    run, heard, written = run_of(settings(*tiny), CPU), [], []

    def stopped(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunLogger, "results", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(settings(*tiny))
    assert run.finished and not run.results.exists()

    monkeypatch.setattr(RunLogger, "results", lambda logger, entries, plots: heard.append(run.results.exists()))
    with monkeypatch.context() as patch:
        patch.setattr(evaluation_files, "write_overview", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(settings(*tiny))
    assert heard == [False] and len(evaluations(run)) == 2

    monkeypatch.setattr(evaluation_files, "write_overview", lambda *given: written.append(run.results.exists()))
    train(settings(*tiny))
    assert heard == [False] and written == [True], "what was missing, and no more"


def test_a_log_that_fails_takes_no_result_with_it(settings, monkeypatch):
    tiny = ["method=ce", "ood_data=smoke", "max_eval_images=13"]

    def fails(*given):
        raise OSError("no room for its file")

    monkeypatch.setattr(RunLogger, "results", fails)
    with pytest.raises(OSError, match="no room"):
        train(settings(*tiny))
    assert any(entry["max_eval_images"] == 13 for entry in evaluations(run_of(settings(*tiny), CPU)))


def test_a_run_named_by_path_is_evaluated_as_what_it_is(command, settings, runs):
    """Outliers, data and scale come from the run, not from the command's defaults."""
    command("train", CHILD, "max_eval_images=20", "score=msp")
    (name,) = [name for name in runs() if name.startswith("energy")]
    run = run_of(settings(CHILD), CPU)
    assert run.name == name
    done = command("eval", f"run={run.folder}", "ood_data=smoke", "max_eval_images=20", "score=msp")
    assert done.status == 0, done.err
    first, _, again, _ = evaluations(run)
    assert again["scale"] == first["scale"] == "smoke"
    shared = ("china_patches", "hopper_patches")
    rows = [[row for row in entry["rows"] if row["ood"] in shared] for entry in (first, again)]
    assert rows[0] == rows[1]


def test_sets_that_clash_with_the_outliers_are_left_out_also_by_path(settings, tmp_path):
    """A run fine-tuned with CIFAR-100 outliers, evaluated through run=PATH whose method is the default."""
    wanted = settings("id_data=cifar10", CHILD, "outliers=cifar100")
    run = run_of(wanted, CPU)
    run.folder.mkdir(parents=True)
    run.write_record()
    by_path = settings_for(settings("id_data=cifar10", "method=ce"), open_run(run.folder))
    for own in (wanted, by_path):
        assert "outliers" in str(ImageSets(own).absence("cifar100"))
    baseline = settings("id_data=cifar10", "method=ce", "outliers=cifar100")
    assert ImageSets(baseline).absence("gaussian") is None
    assert baseline.outliers is None, "the baseline has seen none"


@pytest.mark.drawn
def test_per_image_scores_and_plots(settings):
    import numpy as np

    train(settings("method=ce", "ood_data=smoke", "max_eval_images=20"))
    run = run_of(settings("method=ce"), CPU)
    names = {path.name for path in (run.folder / "scores").iterdir()}
    assert names == {
        *(f"{name}.npz" for name in ("id", "china_patches", "hopper_patches", "gaussian@500")),
        "control_jpeg.npz",
        "control_resampled.npz",
    }
    inside = np.load(run.folder / "scores/id.npz")
    assert inside["energy"].shape == inside["label"].shape == (20,)
    accuracy = (inside["label"] == inside["prediction"]).mean()
    assert accuracy == pytest.approx(evaluations(run)[0]["id"]["accuracy"])
    assert inside["confidence"].shape == (20,)
    plots = {path.name for path in (run.folder / "plots").iterdir()}
    per_score = {f"{kind}_{score}" for kind in ("histogram", "roc", "pr") for score in ("msp", "energy")}
    per_set = {f"row_{name}" for name in ("china_patches", "hopper_patches", "gaussian@500")}
    stems = per_score | per_set | {"heat_map", "reliability", "mistakes_msp", "embedding", "angles"}
    # No training_losses: one logged step makes no curve.
    assert plots == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    report = (run.folder / "report.html").read_text()
    row = evaluations(run)[0]["rows"][0]
    assert f"{100 * row['auroc']:.2f}" in report or f"{100 * row['auroc']:.1f}" in report
    assert run.name in report
    assert run.name in (run.folder.parents[1] / "index.html").read_text()


def test_a_sweeps_jobs_are_all_tried(command, runs):
    done = command("train", "--multirun", CHILD, "m_in=-25,25,-24", "evaluate=false")
    assert done.status == 2
    assert len([line for line in done.err.splitlines() if line.startswith("error: ")]) == 1
    assert done.err.splitlines()[-1].startswith("error: m_in=25 has the wrong sign")
    assert "job 1 failed" in done.out
    assert sum(name.startswith("energy") for name in runs()) == 2
    assert sum(name.startswith("ce") for name in runs()) == 1


def test_multirun_may_stand_anywhere(command, runs):
    done = command("train", CHILD, "-m", "m_in=-25,-23", "m_out=-7,-5", "evaluate=false")
    assert done.status == 0, done.err
    assert sum(name.startswith("energy") for name in runs()) == 4
    assert sum(name.startswith("ce") for name in runs()) == 1
    assert len(runs()) == 5
