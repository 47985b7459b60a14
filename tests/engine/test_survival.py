"""Training that diverges goes back and goes on: exactly, a limited number of times, and never in the same way."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from farout.engine.checkpoint import load_state, tensors_equal
from farout.engine.fit import Audience, Checkpointing, FitResult, Optimisation, earlier, fit
from farout.engine.survival import Diverged, Restart, Survival
from farout.errors import FaroutError
from farout.methods import Batch, CrossEntropy

SEEN: list[tuple[int, float]] = []  # (restarts, first pixel) of every step


class Faulty(CrossEntropy):
    """Cross-entropy whose `fault` spoils the loss of chosen steps; it counts steps in its state."""

    def __init__(self, fault: Callable[[int, int], float] = lambda step, times: 0.0) -> None:
        super().__init__()
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.fault, self.times = fault, 0

    def restarted(self, times: int) -> None:
        self.times = times

    def loss(self, model: nn.Module, batches: Any) -> dict[str, torch.Tensor]:
        SEEN.append((self.times, float(batches["labelled"].images[0, 0])))
        total = super().loss(model, batches)["total"]
        fault = self.fault(int(self.step), self.times)
        self.step += 1
        return {"total": total + fault}


def batches(step: int) -> dict[str, Batch]:
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(8, 5, generator=generator)
    return {"labelled": Batch(images, torch.randint(0, 3, (8,), generator=generator))}


def train(
    path: Path | None, method: Faulty, survival: Survival, total: int = 20, every: int = 4, **more: Any
) -> tuple[nn.Module, FitResult]:
    torch.manual_seed(0)
    SEEN.clear()
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 3))
    checkpointing = Checkpointing(path, None, every, **more)
    result = fit(
        model,
        method,
        batches,
        Optimisation(0.1),
        total,
        steps_per_epoch=5,
        checkpointing=checkpointing,
        survival=survival,
        audience=Audience(notify=TOLD.append),
    )
    return model, result


TOLD: list[Restart] = []


@pytest.fixture(autouse=True)
def _nothing_told() -> None:
    TOLD.clear()


def once_at(step: int, fault: float) -> Callable[[int, int], float]:
    return lambda now, times: fault if (now, times) == (step, 0) else 0.0


def killed_at(step: int) -> Callable[[int, int], float]:
    def fault(now: int, times: int) -> float:
        if now == step:
            raise KeyboardInterrupt
        return 0.0

    return fault


@pytest.mark.parametrize("fault", [math.nan, math.inf, -math.inf, 1e9, -1e9])
def test_every_kind_of_divergence_is_survived(tmp_path: Path, fault: float) -> None:
    model, result = train(tmp_path / "c.pt", Faulty(once_at(10, fault)), Survival(2, 1e8))
    assert result.finished and result.step == 20
    (restart,) = result.restarts
    assert (restart.diverged_at, restart.resumed_from) == (10, 8)
    assert "step 10" in restart.reason
    assert list(result.restarts) == TOLD
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_the_update_of_a_diverged_loss_is_never_made(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "a.pt", Faulty(killed_at(10)), Survival(), every=1)
    with pytest.raises(FaroutError, match="diverged"):
        train(tmp_path / "b.pt", Faulty(lambda step, _: math.nan if step == 10 else 0.0), Survival(0, 1e8), every=1)
    state = load_state(tmp_path / "b.pt", torch.device("cpu"))
    plain = load_state(tmp_path / "a.pt", torch.device("cpu"))
    assert state["step"] == plain["step"] == 10
    assert tensors_equal(state["model"], plain["model"])


def test_until_the_fault_training_is_the_same_and_after_it_other_images_come(tmp_path: Path) -> None:
    train(tmp_path / "a.pt", Faulty(), Survival(1, 1e8))
    plain = [pixel for _, pixel in SEEN]
    train(tmp_path / "b.pt", Faulty(once_at(10, math.nan)), Survival(1, 1e8))
    assert [pixel for times, pixel in SEEN if times == 0] == plain[:11]
    after = [pixel for times, pixel in SEEN if times == 1]
    assert len(after) == 12  # steps 8 to 19
    assert not set(after) & set(plain)


def test_a_fault_before_the_first_checkpoint_begins_anew(tmp_path: Path) -> None:
    _, result = train(tmp_path / "c.pt", Faulty(once_at(2, math.nan)), Survival(1))
    assert result.finished
    assert result.restarts[0].resumed_from == 0


def test_a_checkpoint_that_leads_nowhere_is_given_up_for_the_one_before(tmp_path: Path) -> None:
    """Saved at 4 and 8; from 8 on all is lost, whatever the random numbers, until training goes back to 4."""

    def fault(step: int, times: int) -> float:
        return math.nan if step >= 9 and times < 2 else 0.0

    _, result = train(tmp_path / "c.pt", Faulty(fault), Survival(5))
    assert [restart.resumed_from for restart in result.restarts] == [8, 4]
    assert result.finished


def test_it_gives_up_with_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(FaroutError, match=r"diverged.* at step 6, and 3 restarts did not help; lower lr") as caught:
        train(tmp_path / "c.pt", Faulty(lambda step, _: math.nan if step == 6 else 0.0), Survival(3))
    assert "\n" not in str(caught.value)
    assert len(TOLD) == 3


def test_without_a_checkpoint_there_is_nothing_to_go_back_to() -> None:
    with pytest.raises(FaroutError, match="diverged"):
        train(None, Faulty(once_at(3, math.nan)), Survival(3))


def test_restarts_lower_the_learning_rate(tmp_path: Path) -> None:
    rates: list[float] = []

    class Watching(Faulty):
        def loss(self, model: nn.Module, batches: Any) -> dict[str, torch.Tensor]:
            before = [p.detach().clone() for p in model.parameters()]
            self.before = before
            return super().loss(model, batches)

    def log(step: int, values: Any) -> None:
        rates.append(values["lr"])

    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    fit(
        model,
        Watching(once_at(10, math.nan)),
        batches,
        Optimisation(0.1),
        20,
        checkpointing=Checkpointing(tmp_path / "c.pt", None, 4),
        survival=Survival(2, None, 0.5),
        audience=Audience(log=log, log_every=1),
    )
    plain = [Optimisation(0.1).rate(step, 20, 20) for step in range(20)]
    assert rates[:10] == plain[:10]
    assert rates[10:] == pytest.approx([0.5 * rate for rate in plain[8:]])


def test_a_process_killed_after_a_restart_goes_on_as_if_it_lived(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "a.pt", Faulty(once_at(10, math.nan)), Survival(2))
    path = tmp_path / "b.pt"
    with pytest.raises(KeyboardInterrupt):
        train(path, Faulty(interrupted_at(13)), Survival(2))
    assert load_state(path, torch.device("cpu"))["restarts"]
    model, result = train(path, Faulty(), Survival(2))
    assert tensors_equal(model.state_dict(), whole.state_dict())
    assert [restart.diverged_at for restart in result.restarts] == [10]


def interrupted_at(step: int) -> Callable[[int, int], float]:
    """A fault at step 10 of the first try, and a killed process at `step` of the second."""

    def fault(now: int, times: int) -> float:
        if times == 1 and now == step:
            raise KeyboardInterrupt
        return once_at(10, math.nan)(now, times)

    return fault


def test_a_process_killed_right_after_going_back_remembers_it(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    with pytest.raises(KeyboardInterrupt):
        train(path, Faulty(interrupted_at(8)), Survival(2))
    state = load_state(path, torch.device("cpu"))
    assert (state["step"], len(state["restarts"])) == (8, 1)


def test_the_earlier_checkpoint_is_kept_only_where_restarts_are_granted(tmp_path: Path) -> None:
    train(tmp_path / "a.pt", Faulty(), Survival())
    assert not earlier(tmp_path / "a.pt").exists()
    train(tmp_path / "b.pt", Faulty(), Survival(1))
    assert load_state(earlier(tmp_path / "b.pt"), torch.device("cpu"))["step"] == 12


def test_the_bound_is_on_the_size_of_the_loss() -> None:
    Survival(0, 10.0).judge(-9.9, 1)
    for loss in (10.0, -10.1, math.nan):
        with pytest.raises(Diverged):
            Survival(0, 10.0).judge(loss, 1)
    assert not Survival().watches and Survival(1).watches and Survival(0, 1e8).watches


def test_where_there_are_no_links_the_earlier_checkpoint_is_a_copy(tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("farout.engine.fit.os.link", refuse)
    train(tmp_path / "c.pt", Faulty(), Survival(1))
    assert load_state(earlier(tmp_path / "c.pt"), torch.device("cpu"))["step"] == 12
