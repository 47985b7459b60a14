"""Whole runs of JEM: a tiny network without normalisation on digits, in this process."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from farout.config.compose import compose_settings
from farout.config.settings import ROOT, Settings
from farout.data.streams import holdout_split, steps_per_epoch
from farout.engine.fit import Loop
from farout.methods import JEM, langevin
from farout.runs.environment import choose_device
from farout.runs.run import Run, resolve_precision, run_of
from farout.runs.training import TrainingJob, train

CPU = torch.device("cpu")
VECTORS = json.loads((ROOT / "tests/vectors/vectors_jem_cider.json").read_text())["jem"]
TINY = ["method=jem", "backbone.depth=10", "backbone.widen_factor=1", "buffer_size=50", "sgld_steps=3"]
TINY += ["ood_data=smoke", "max_eval_images=20", "geometry_images=40"]
LONGER = ["epochs=2", "max_steps=8", "batch_size=16", "trainer.checkpoint_steps=3", "evaluate=false"]


@pytest.fixture
def jem(settings):
    return lambda *words: settings("backbone=wrn_10_2_jem", *TINY, *words)


def run(wanted: Settings) -> Run:
    return run_of(wanted, CPU)


def state(wanted: Settings) -> dict[str, torch.Tensor]:
    """Weights and buffer."""
    own = run(wanted)
    return {**load_file(own.weights), **load_file(own.method_state)}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_from_the_command_to_the_report(jem):
    wanted = jem()
    assert train(wanted) is None
    own = run(wanted)
    buffer = load_file(own.method_state)["replay_buffer.images"]
    assert buffer.shape == (50, 3, 32, 32)
    entry = json.loads(own.results.read_text())["evaluations"][0]
    assert {row["score"] for row in entry["rows"]} == {"energy", "msp", "px_grad"}
    assert entry["id"]["accuracy"] is not None
    assert own.identity["transform"]["noise_std"] == 0.03
    assert own.identity["schedule"]["optimizer"] == "adam"
    (line,) = (json.loads(text) for text in (own.folder / "metrics.jsonl").read_text().splitlines())
    energies = {"train/energy_data", "train/energy_samples", "train/energy_noise"}
    assert {"train/p_x", "train/p_y_given_x"} | energies <= line.keys()


def test_the_official_learning_rates():
    wanted = compose_settings(["experiment=jem/full/cifar10_jem"])
    rate = wanted.schedule.optimisation().rate
    for point in VECTORS["learning_rate"]["points"]:
        assert rate(point["global_iter"], 200 * 703, 703) == pytest.approx(point["lr"], rel=1e-12, abs=1e-20)


def test_the_official_split_and_length_of_an_epoch():
    known = VECTORS["train_valid_split"]
    train_rows, held = holdout_split(50000, 0.1, "jem")
    assert held[:10].tolist() == known["first_10_valid"]
    assert held[-3:].tolist() == known["last_3_valid"]
    assert int(held.sum()) == known["sum_valid"]
    assert train_rows[:10].tolist() == known["first_10_train"]
    assert train_rows[-3:].tolist() == known["last_3_train"]
    assert steps_per_epoch(len(train_rows), 64, drop_last=True) == 703


@pytest.mark.parametrize("words", ["method=jem", "method=jem scale=small", "experiment=jem/full/cifar10_jem"])
def test_jem_holds_out_what_the_official_code_does(words):
    wanted = compose_settings(words.split())
    assert (wanted.holdout, wanted.holdout_rule) == (0.1, "jem")
    assert compose_settings([*words.split(), "holdout=0"]).holdout == 0


def test_the_scales_that_select_nothing_hold_nothing_out():
    for words in ("method=jem scale=smoke", "experiment=jem/demo/digits_jem"):
        wanted = compose_settings(words.split())
        assert (wanted.holdout, wanted.holdout_rule) == (0, "permuted")


def test_both_streams_have_whole_batches_of_the_same_images_in_other_orders(jem):
    plain = ["transform.noise_std=0", "transform.flip=false", "transform.crop_padding=0"]
    wanted = jem("batch_size=200", "holdout=0.2", "holdout_rule=jem", *plain)
    job = TrainingJob.of(wanted, CPU)
    data, per_epoch, batches = job.data, job.steps_per_epoch, job.batches()
    assert per_epoch == len(data.train_rows) // 200
    kept = wanted.transform.build()(data.labelled.images[data.train_rows]).flatten(1).sum(1)
    for step in (0, per_epoch - 1, per_epoch):
        both = batches(step)
        assert len(both["labelled"].images) == len(both["unlabelled"].images) == 200
        assert not torch.equal(both["labelled"].images, both["unlabelled"].images)
        assert both["unlabelled"].labels is None
        for batch in both.values():
            assert np.isin(batch.images.flatten(1).sum(1).numpy(), kept.numpy()).all()


def test_jem_trains_in_full_precision_unless_asked(jem, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert resolve_precision(jem(), torch.device("cuda")) == "fp32"
    assert resolve_precision(jem("trainer.precision=bf16"), choose_device("cpu")) == "bf16"


def test_an_interruption_inside_a_chain_changes_nothing(jem, monkeypatch, tmp_path):
    whole = jem(*LONGER)
    train(whole)
    broken = replace(whole, paths=replace(whole.paths, outputs=str(tmp_path / "broken")))
    real = langevin.langevin_chain
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("farout.methods.jem.langevin_chain", interrupted_chain(real, at_chain=6, at_step=2))
        train(broken)
    assert run(broken).checkpoint.exists() and not run(broken).finished
    train(broken)
    assert same(state(broken), state(whole))


def interrupted_chain(real, at_chain: int, at_step: int):
    """A `langevin_chain` that is cut off at one step of one of its calls."""
    chains = []

    def chain(energy, x, *rest, **more):
        chains.append(1)
        steps = []

        def watched(images):
            steps.append(1)
            if (len(chains), len(steps)) == (at_chain, at_step):
                raise KeyboardInterrupt
            return energy(images)

        return real(watched, x, *rest, **more)

    return chain


def test_a_divergence_is_survived_recorded_and_told(jem, monkeypatch):
    wanted = jem(*LONGER, "restart_sgld_steps=2", "max_restarts=3", "restart_every=3")
    real, seen = JEM.loss, []

    def loss(self, model, batches):
        seen.append(self.steps)
        losses = real(self, model, batches)
        return {**losses, "total": losses["total"] * math.nan} if len(seen) == 5 else losses

    monkeypatch.setattr(JEM, "loss", loss)
    train(wanted)
    own = run(wanted)
    (restart,) = own.record["trained"]["restarts"]
    assert (restart["diverged_at"], restart["resumed_from"]) == (4, 3)
    assert seen == [3] * 5 + [5] * 5  # steps 0 to 4, then 3 to 7 with longer chains
    lines = [json.loads(text) for text in (own.folder / "metrics.jsonl").read_text().splitlines()]
    (event,) = (line for line in lines if "event" in line)
    assert event["step"] == 4 and "not finite" in event["text"]
    assert all(value.isfinite().all() for value in state(wanted).values())
    assert not list(own.folder.glob("*.pt"))


def test_lower_precision_in_the_chains_changes_little(jem):
    """bf16 has 8 significant bits: after a chain of 20 steps the samples differ by a small part of what they moved."""
    torch.manual_seed(0)
    own = jem()
    model = own.backbone.build(num_classes=7)
    ends = {}
    for precision in ("fp32", "bf16"):
        method = JEM(**{**own.method.arguments, "sgld_precision": precision, "sgld_steps": 20})
        torch.manual_seed(1)
        start = torch.rand(8, 3, 32, 32) * 2 - 1
        ends[precision] = method.refine(model, start, 20)
        assert model.autocast_dtype is None
    moved = (ends["fp32"] - start).norm()
    apart = (ends["bf16"] - ends["fp32"]).norm()
    assert 0 < apart < 0.05 * moved


def test_the_recorded_settings_that_are_usual_stay_out_of_older_fingerprints():
    usual = compose_settings(["method=ce"]).schedule.record()
    assert not {"optimizer", "loss_bound", "max_restarts", "restart_lr_factor", "warm_up_steps"} & usual.keys()
    assert "optimizer" in compose_settings(["method=jem"]).schedule.record()


DIVERGING = ["max_steps=10", "batch_size=4", "lr=1", "loss_bound=1e5", "restart_lr_factor=0.5"]


class Killed(BaseException):
    pass


def test_killed_right_after_any_restart_the_end_is_the_same(jem, monkeypatch, tmp_path):
    """Restarts by a rate that is far too high, halved every time; whatever the clock writes meanwhile."""
    whole = jem(*DIVERGING, "restart_every=3", "evaluate=false")
    train(whole)
    restarts = run(whole).record["trained"]["restarts"]
    assert len(restarts) > 2
    real = Loop.restart
    for number, habits in ((1, {"checkpoint_minutes": 0.0}), (len(restarts), {"checkpoint_steps": 2})):
        outputs = replace(whole.paths, outputs=str(tmp_path / str(number)))
        broken = replace(whole, paths=outputs, trainer=replace(whole.trainer, **habits))
        left = [number]

        def restart(self, problem, left=left):
            restart = real(self, problem)
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return restart

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Loop, "restart", restart)
            train(broken)
        train(broken)
        assert same(state(broken), state(whole))
        assert run(broken).record["trained"]["restarts"] == restarts
