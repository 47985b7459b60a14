"""The training loop: the official codes' three updates, exact resume, divergence, pauses."""

import json
import math
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from farout.engine import fit as engine
from farout.engine.checkpoint import load_state
from farout.engine.fit import Callbacks, Checkpointing, Optimisation, SmoothedLosses, fit
from farout.engine.schedules import LRSchedule, WarmUp, cosine_lr
from farout.engine.timing import Trial, seconds_per_step
from farout.errors import FaroutError
from farout.methods import Batch, CrossEntropy, EnergyFineTuning, Method, OutlierExposure
from state_dicts import tensors_equal

ALL = json.loads((Path(__file__).parents[1] / "vectors" / "vectors_energy_oe.json").read_text())
STEPS = ALL["train_steps"]


@pytest.mark.parametrize("case", ALL["lr_schedule"]["cases"], ids=lambda case: case["name"])
def test_cosine(case):
    assert case["total_updates"] == case["epochs"] * case["batches_per_epoch"]
    for update, lr in case["lr_used_at_update"].items():
        assert cosine_lr(int(update), case["total_updates"], case["lr0"]) == pytest.approx(lr, rel=1e-9)


def given_batches(step: int) -> dict[str, Batch]:
    x_in, y, x_out = (STEPS["input"][key][step] for key in ("x_in", "y", "x_out"))
    inside, outside = torch.tensor(x_in, dtype=torch.float64), torch.tensor(x_out, dtype=torch.float64)
    return {"labelled": Batch(inside, torch.tensor(y)), "outliers": Batch(outside)}


def given_model(with_batch_norm: bool) -> nn.Sequential:
    linear = nn.Linear(6, 4, dtype=torch.float64)
    linear.weight.data = torch.tensor(STEPS["input"]["W"], dtype=torch.float64)
    linear.bias.data = torch.tensor(STEPS["input"]["b"], dtype=torch.float64)
    norm = [nn.BatchNorm1d(6, dtype=torch.float64)] if with_batch_norm else []
    return nn.Sequential(*norm, linear)


def given_method(name: str) -> Method:
    if name.startswith("oe"):
        return OutlierExposure(0.5)
    return EnergyFineTuning(-2.0, -0.5, 0.1, 1.0) if name.startswith("energy") else CrossEntropy()


@pytest.mark.parametrize("case", STEPS["cases"], ids=lambda case: case["name"])
def test_three_updates_of_the_official_loop(case):
    expected = case["expect"]
    model = given_model("bn" in case["name"])
    result = fit(model, given_method(case["name"]), given_batches, Optimisation(lr=0.1), 3, steps_per_epoch=3)

    def same(value, name):
        assert torch.allclose(value, torch.tensor(expected[name], dtype=torch.float64), rtol=1e-9, atol=1e-11), name

    same(model[-1].weight, "weight")
    same(model[-1].bias, "bias")
    assert result.losses["total"] == pytest.approx(expected["train_loss_ema"], rel=1e-9)
    assert result.finished
    assert result.step == 3
    if "bn" in case["name"]:
        same(model[0].running_mean, "bn_running_mean")
        same(model[0].running_var, "bn_running_var")
        same(model[0].weight, "bn_weight")
        same(model[0].bias, "bn_bias")


class Counting(CrossEntropy):
    """A method with state of its own: a parameter, a buffer, and a `prepare` that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.prepared = 0

    def prepare(self, model, batches, train_images=()):
        self.prepared += 1

    def loss(self, model, batches):
        self.seen += len(batches["labelled"].images)
        return {"total": super().loss(model, batches)["total"] * self.scale, "scale": self.scale}


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))


def random_batches(step: int) -> dict[str, Batch]:
    generator = torch.Generator().manual_seed(step)
    return {"labelled": Batch(torch.randn(8, 5, generator=generator), torch.arange(8) % 3)}


def train(path=None, total=20, model=None, method=None, batches=random_batches, **more):
    model, method = model or network(), method or Counting()
    checkpointing = Checkpointing(path, minutes=None, **more) if path else None
    result = fit(model, method, batches, Optimisation(lr=0.1), total, steps_per_epoch=8, checkpointing=checkpointing)
    return model, method, result


class Stop(Exception):
    pass


def stop_at(step: int):
    def batches(asked: int) -> dict[str, Batch]:
        if asked == step:
            raise Stop
        return random_batches(asked)

    return batches


@pytest.mark.parametrize("interrupted_at", [3, 8, 11, 19])
def test_resume_equals_an_uninterrupted_run_bit_for_bit(tmp_path, interrupted_at):
    straight, straight_method, expected = train()
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Stop):
        train(path, batches=stop_at(interrupted_at), steps=2)
    assert load_state(path, torch.device("cpu"))["step"] == interrupted_at // 2 * 2
    torch.manual_seed(999)  # the resumed process has another generator state
    resumed, method, result = train(path, steps=2)
    assert tensors_equal(resumed.state_dict(), straight.state_dict())
    assert tensors_equal(method.state_dict(), straight_method.state_dict())
    assert method.seen == 20 * 8
    assert (method.prepared, straight_method.prepared) == (0, 1)
    assert result.losses == expected.losses, "the smoothed losses go on too"


def test_momentum_is_part_of_the_state(tmp_path):
    """The resume test above would be blind if momentum did not matter; here it is seen to."""
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Stop):
        train(path, batches=stop_at(10), steps=5)
    state = load_state(path, torch.device("cpu"))
    state["optimizer"]["state"] = {}
    torch.save(state, path)
    forgot, _, _ = train(path)
    straight, _, _ = train()
    assert not tensors_equal(forgot.state_dict(), straight.state_dict())


def test_dropout_depends_on_the_seed_and_the_step():
    one, again, other = (network() for _ in range(3))
    for model, seed in ((one, 1), (again, 1), (other, 2)):
        torch.manual_seed(seed + 50)
        fit(model, CrossEntropy(), random_batches, Optimisation(lr=0.1), 4, seed=seed)
    assert tensors_equal(one.state_dict(), again.state_dict())
    assert not tensors_equal(one.state_dict(), other.state_dict())


def test_the_methods_parameters_are_optimised():
    _, method, _ = train()
    assert method.scale.item() != 1


def test_deadline_pauses_with_the_state_saved(tmp_path):
    path = tmp_path / "checkpoint.pt"
    _, _, result = train(path, deadline=time.monotonic() - 1)
    assert (result.finished, result.step) == (False, 0)

    def slow(step: int) -> dict[str, Batch]:
        time.sleep(0.02)
        return random_batches(step)

    _, _, result = train(path, batches=slow, deadline=time.monotonic() + 0.15)
    assert not result.finished
    assert 0 < result.step < 20
    assert load_state(path, torch.device("cpu"))["step"] == result.step
    resumed, _, last = train(path)
    assert last.finished
    assert last.seconds > result.seconds, "seconds are those of all sessions"
    assert tensors_equal(resumed.state_dict(), train()[0].state_dict())


def test_checkpoints_follow_the_clock(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(engine, "save_state", lambda path, state: written.append(state["step"]))
    rule = Checkpointing(tmp_path / "c.pt", minutes=0.0)
    fit(network(), CrossEntropy(), random_batches, Optimisation(lr=0.1), 4, checkpointing=rule)
    assert written == [1, 2, 3], "the last step writes weights instead"
    written.clear()
    rule = Checkpointing(tmp_path / "c.pt", minutes=60.0)
    fit(network(), CrossEntropy(), random_batches, Optimisation(lr=0.1), 4, checkpointing=rule)
    assert written == []


def test_another_tag_or_length_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Stop):
        train(path, batches=stop_at(5), steps=2, tag="these images")
    with pytest.raises(FaroutError, match="belongs to other data"):
        train(path, tag="those images")
    with pytest.raises(FaroutError, match="another schedule"):
        train(path, tag="these images", total=21)


class ExplodesAt(CrossEntropy):
    def __init__(self, step: int, how: str) -> None:
        super().__init__()
        self.left, self.how = step, how

    def loss(self, model, batches):
        total = super().loss(model, batches)["total"]
        self.left -= 1
        if self.left == 0:
            # sqrt at 0 has a finite value and an infinite gradient: the loss looks well while the weights are lost.
            total = total * math.nan if self.how == "loss" else total + torch.sqrt((total - total.detach()).abs())
        return {"total": total}


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_divergence_stops_and_leaves_no_bad_checkpoint(tmp_path, how):
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(FaroutError, match=r"diverged.*lower lr \(now 0.1\)") as caught:
        train(path, method=ExplodesAt(6, how), steps=1)
    assert "\n" not in str(caught.value)
    state = load_state(path, torch.device("cpu"))
    assert state["step"] == 5
    assert all(value.isfinite().all() for value in state["model"].values())


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_divergence_at_the_last_step_is_noticed(how):
    with pytest.raises(FaroutError, match="diverged"):
        train(method=ExplodesAt(20, how))


def test_smoothed_losses():
    smoothed = SmoothedLosses()
    assert smoothed.read() == {}
    smoothed.update({"total": torch.tensor(10.0), "part": torch.tensor(1.0)})
    smoothed.update({"total": torch.tensor(5.0), "part": torch.tensor(1.0)})
    assert smoothed.read() == pytest.approx({"total": 0.8 * 2 + 1, "part": 0.36})


def test_log_gets_the_losses_of_the_epoch_and_the_rate_used():
    points = {}
    fit(
        network(),
        CrossEntropy(),
        random_batches,
        Optimisation(lr=0.1),
        5,
        steps_per_epoch=2,
        callbacks=Callbacks(log=lambda step, values: points.update({step: values}), log_every=1),
    )
    assert list(points) == [1, 2, 3, 4, 5]
    for step, values in points.items():
        assert values["lr"] == pytest.approx(cosine_lr(step - 1, 5, 0.1))
    assert points[5]["lr"] == pytest.approx(1e-6)
    # Steps 1, 3 and 5 open an epoch, so their average is 0.2 of one loss.
    assert points[3]["train/total"] < 0.7 * points[2]["train/total"]


def test_seconds_per_step():
    assert seconds_per_step(Trial(network(), CrossEntropy(), random_batches, Optimisation(lr=0.1))) > 0

    def slow(step: int) -> dict[str, Batch]:
        time.sleep(0.05)
        return random_batches(step)

    assert 0.05 <= seconds_per_step(Trial(network(), CrossEntropy(), slow, Optimisation(lr=0.1))) < 0.5


# --- learning rates chosen by configuration, and methods that look at the training images first


CIDER_STEPS = LRSchedule("steps", milestones=(1, 2), factor=0.1, warm_up=WarmUp(0.01, epochs=1))


@pytest.mark.parametrize(
    "lr_schedule", [CIDER_STEPS, LRSchedule("epoch_cosine", epochs=4, warm_up=WarmUp(0.01, 1, True))]
)
def test_the_course_is_what_the_optimiser_sees_and_the_log_says(lr_schedule, monkeypatch):
    seen, logged = [], []
    real = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self: seen.append(self.param_groups[0]["lr"]) or real(self))
    optimisation = Optimisation(lr=0.1, lr_end=0.001, lr_schedule=lr_schedule)
    log = lambda step, values: logged.append(values["lr"])  # noqa: E731
    fit(
        network(),
        CrossEntropy(),
        random_batches,
        optimisation,
        8,
        steps_per_epoch=2,
        callbacks=Callbacks(log=log, log_every=1),
    )
    assert seen == logged
    if lr_schedule.shape == "steps":
        # Up within the first epoch, and down after the epochs 1 and 2.
        assert seen == pytest.approx([0.01, 0.055, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    else:
        # Epoch 0 extrapolates the rise of epoch 1 backwards, below zero; then a cosine over 4 epochs.
        peak = 0.001 + 0.099 * 0.5 * (1 + math.cos(math.pi / 4))
        rise = [0.01 + (peak - 0.01) * part for part in (-1, -0.5, 0, 0.5)]
        assert seen[:4] == pytest.approx(rise)
        assert seen[0] < 0
        assert seen[4:6] == pytest.approx([0.001 + 0.099 * 0.5] * 2)
        assert seen[6] == seen[7] < seen[5]


class Looking(CrossEntropy):
    """Wants the training images, once."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def prepare(self, model, batches, train_images=()):
        self.seen.append(sum(len(batch.targets) for batch in train_images))


def test_methods_see_the_training_images_before_the_first_step_and_not_on_resume(tmp_path):
    passes = lambda: iter([random_batches(0)["labelled"], random_batches(1)["labelled"]])  # noqa: E731
    rule = Checkpointing(tmp_path / "state", steps=1)
    method = Looking()
    with pytest.raises(Stop):
        fit(network(), method, stop_at(2), Optimisation(lr=0.1), 4, checkpointing=rule, train_images=passes)
    assert method.seen == [16]
    again = Looking()
    fit(network(), again, random_batches, Optimisation(lr=0.1), 4, checkpointing=rule, train_images=passes)
    assert again.seen == []
    timed = Looking()
    seconds_per_step(Trial(network(), timed, random_batches, Optimisation(lr=0.1)))
    assert timed.seen == [8], "the first batch stands for them"


def test_frozen_parameters_are_not_optimised_and_stay_to_the_bit():
    model = given_model(with_batch_norm=True)
    model[0].requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimisation = Optimisation(lr=0.1, weight_decay=0.5)
    assert len(optimisation.optimizer(model, CrossEntropy()).param_groups[0]["params"]) == 2
    fit(model, CrossEntropy(), given_batches, optimisation, 3)
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    # Weights of the frozen batch norm stay; its running statistics follow the data, as in the official code.
    assert changed == {"0.running_mean", "0.running_var", "0.num_batches_tracked", "1.weight", "1.bias"}


# --- the best weights instead of the last


def scripted(figures):
    """A `select` that gives these figures, epoch by epoch, and notes how often it was asked."""
    figures = iter(figures)
    return lambda model: next(figures)


def fit_best(select, path=None, batches=random_batches, **more):
    model, method = network(), Counting()
    rule = Checkpointing(path, minutes=None, steps=1) if path else None
    result = fit(
        model,
        method,
        batches,
        Optimisation(lr=0.1),
        18,
        steps_per_epoch=4,
        select=select,
        checkpointing=rule,
        **more,
    )
    return model, method, result


def test_the_first_best_epoch_is_kept_with_the_methods_own_state():
    model, method, result = fit_best(scripted([0.5, 0.7, 0.7, 0.6, 0.1]))  # after 4, 8, 12, 16 and 18 updates
    assert result.best == {"epoch": 1, "step": 8, "figure": 0.7}
    assert result.step == 18 and method.seen == 8 * 8
    ended, ended_method = network(), Counting()
    with pytest.raises(Stop):
        fit(ended, ended_method, stop_at(8), Optimisation(lr=0.1), 18, steps_per_epoch=4)
    assert tensors_equal(model.state_dict(), ended.state_dict())
    assert tensors_equal(method.state_dict(), ended_method.state_dict())
    last, _, plain = fit_best(None)
    assert plain.best is None and not tensors_equal(model.state_dict(), last.state_dict())


@pytest.mark.parametrize("killed_at", [7, 8, 9, 17])
def test_the_best_weights_survive_a_kill(tmp_path, killed_at):
    path, figures = tmp_path / "c.pt", [0.5, 0.7, 0.7, 0.6, 0.1]
    straight, straight_method, expected = fit_best(scripted(figures))
    with pytest.raises(Stop):
        fit_best(scripted(figures), path, stop_at(killed_at))
    model, method, result = fit_best(scripted(figures[killed_at // 4 :]), path)
    assert result.best == expected.best
    assert tensors_equal(model.state_dict(), straight.state_dict())
    assert tensors_equal(method.state_dict(), straight_method.state_dict())


def test_what_chooses_leaves_training_as_it_was():
    """Looked at in evaluation mode after every epoch, but kept only the last: the same weights as without."""
    rising = iter(range(9))

    def select(model):
        model.eval()
        torch.rand(3)
        return float(next(rising))

    assert tensors_equal(fit_best(select)[0].state_dict(), fit_best(None)[0].state_dict())


# --- JEM's rise by steps writes over the rate of every update


def official_rates(steps: int, epochs: int, per_epoch: int, milestones: tuple[int, ...]) -> list[float]:
    """The official loop: a drop multiplies the rate that stands, and the rise sets it without regard to that."""
    rates, rate, update = [], 0.1, 0
    for epoch in range(epochs):
        rate *= 0.3 if epoch in milestones else 1
        for _ in range(per_epoch):
            rate = 0.1 * update / steps if update <= steps else rate
            rates.append(rate)
            update += 1
    return rates


@pytest.mark.parametrize(("steps", "drops"), [(25, (1, 2, 4)), (20, (2, 4)), (19, (2,)), (7, (1, 3)), (1, (0, 1))])
def test_the_rise_leads_to_the_full_rate_whatever_milestones_pass(steps, drops):
    milestones = tuple(epoch - 1 for epoch in drops if epoch)  # ours are last epochs at the old rate
    lr_schedule = LRSchedule("steps", milestones=milestones, factor=0.3, warm_up=WarmUp(0.0, steps=steps))
    ours = [lr_schedule.rate(update, 60, 10, 0.1, 0.0) for update in range(60)]
    assert ours == pytest.approx(official_rates(steps, 6, 10, drops))
    assert max(ours) == pytest.approx(0.1)
