"""Training that diverges goes back and goes on: exactly, a limited number of times, and never in the same way."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import farout.files
from farout.engine.checkpoint import load_state, save_state
from farout.engine.fit import Callbacks, Checkpointing, FitResult, Optimisation, fit
from farout.engine.restarts import Diverged, Restart, RestartPolicy, default_interval
from farout.engine.states import RestartPoint, furthest, has_states, point_file, state_files
from farout.errors import FaroutError
from farout.methods import Batch, CrossEntropy
from state_dicts import tensors_equal

CPU = torch.device("cpu")
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
    path: Path | None,
    method: Faulty,
    restart_policy: RestartPolicy,
    total: int = 20,
    every: int = 4,
    log_every: int = 50,
    **more: Any,
) -> tuple[nn.Module, FitResult]:
    torch.manual_seed(0)
    SEEN.clear()
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 3))
    checkpointing = Checkpointing(path, **{"minutes": None, "steps": every, **more})
    result = fit(
        model,
        method,
        batches,
        Optimisation(0.1),
        total,
        steps_per_epoch=5,
        checkpointing=checkpointing,
        restart_policy=replace(restart_policy, every=every),
        callbacks=Callbacks(on_restart=TOLD.append, log_every=log_every),
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
    model, result = train(tmp_path / "c.pt", Faulty(once_at(10, fault)), RestartPolicy(2, 1e8))
    assert result.finished and result.step == 20
    (restart,) = result.restarts
    assert (restart.diverged_at, restart.resumed_from) == (10, 8)
    assert "step 10" in restart.reason
    assert list(result.restarts) == TOLD
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_the_update_of_a_diverged_loss_is_never_made(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "a.pt", Faulty(killed_at(10)), RestartPolicy(), every=1)
    with pytest.raises(FaroutError, match="diverged"):
        train(
            tmp_path / "b.pt", Faulty(lambda step, _: math.nan if step == 10 else 0.0), RestartPolicy(0, 1e8), every=1
        )
    state = load_state(tmp_path / "b.pt", CPU)
    plain = load_state(tmp_path / "a.pt", CPU)
    assert state["step"] == plain["step"] == 10
    assert tensors_equal(state["model"], plain["model"])


def test_until_the_fault_training_is_the_same_and_after_it_other_images_come(tmp_path: Path) -> None:
    train(tmp_path / "a.pt", Faulty(), RestartPolicy(1, 1e8))
    plain = [pixel for _, pixel in SEEN]
    train(tmp_path / "b.pt", Faulty(once_at(10, math.nan)), RestartPolicy(1, 1e8))
    assert [pixel for times, pixel in SEEN if times == 0] == plain[:11]
    after = [pixel for times, pixel in SEEN if times == 1]
    assert len(after) == 12  # steps 8 to 19
    assert not set(after) & set(plain)


def test_a_fault_before_the_first_checkpoint_begins_anew(tmp_path: Path) -> None:
    _, result = train(tmp_path / "c.pt", Faulty(once_at(2, math.nan)), RestartPolicy(1))
    assert result.finished
    assert result.restarts[0].resumed_from == 0


def test_a_checkpoint_that_leads_nowhere_is_given_up_for_the_one_before(tmp_path: Path) -> None:
    """Saved at 4 and 8; from 8 on all is lost, whatever the random numbers, until training goes back to 4."""

    def fault(step: int, times: int) -> float:
        return math.nan if step >= 9 and times < 2 else 0.0

    _, result = train(tmp_path / "c.pt", Faulty(fault), RestartPolicy(5))
    assert [restart.resumed_from for restart in result.restarts] == [8, 4]
    assert result.finished


def test_it_gives_up_with_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(FaroutError, match=r"diverged.* at step 6, and 3 restarts did not help; lower lr") as caught:
        train(tmp_path / "c.pt", Faulty(lambda step, _: math.nan if step == 6 else 0.0), RestartPolicy(3))
    assert "\n" not in str(caught.value)
    assert len(TOLD) == 3


def test_without_a_checkpoint_there_is_nothing_to_go_back_to() -> None:
    with pytest.raises(FaroutError, match="diverged"):
        train(None, Faulty(once_at(3, math.nan)), RestartPolicy(3))


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
        checkpointing=Checkpointing(tmp_path / "c.pt", None),
        restart_policy=RestartPolicy(2, None, 0.5, every=4),
        callbacks=Callbacks(log=log, log_every=1),
    )
    plain = [Optimisation(0.1).rate(step, 20, 20) for step in range(20)]
    assert rates[:10] == plain[:10]
    assert rates[10:] == pytest.approx([0.5 * rate for rate in plain[8:]])


def test_a_process_killed_after_a_restart_goes_on_as_if_it_lived(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "a.pt", Faulty(once_at(10, math.nan)), RestartPolicy(2))
    path = tmp_path / "b.pt"
    with pytest.raises(KeyboardInterrupt):
        train(path, Faulty(interrupted_at(13)), RestartPolicy(2))
    assert load_state(path, CPU)["restarts"]
    model, result = train(path, Faulty(), RestartPolicy(2))
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
        train(path, Faulty(interrupted_at(8)), RestartPolicy(2))
    state = load_state(path, CPU)
    assert (state["step"], len(state["restarts"])) == (8, 1)


def test_states_to_return_to_are_kept_only_where_restarts_are_granted(tmp_path: Path) -> None:
    train(tmp_path / "a.pt", Faulty(), RestartPolicy())
    assert [file.exists() for file in state_files(tmp_path / "a.pt")] == [True, False, False]
    train(tmp_path / "b.pt", Faulty(), RestartPolicy(1))
    assert sorted(load_state(file, CPU)["step"] for file in state_files(tmp_path / "b.pt")) == [12, 16, 16]


@pytest.mark.parametrize(
    ("total", "epoch", "expected"), [(140600, 703, 175), (14060, 703, 175), (156, 13, 39), (30, 108, 7), (3, 108, 1)]
)
def test_how_far_apart_they_are_is_counted(total: int, epoch: int, expected: int) -> None:
    assert default_interval(total, epoch) == RestartPolicy(1).interval(total, epoch) == expected
    assert RestartPolicy(1, every=2).interval(total, epoch) == 2


def test_the_bound_is_on_the_size_of_the_loss() -> None:
    RestartPolicy(0, 10.0).check(-9.9, 1)
    for loss in (10.0, -10.1, math.nan):
        with pytest.raises(Diverged):
            RestartPolicy(0, 10.0).check(loss, 1)
    assert not RestartPolicy().checks_losses and RestartPolicy(1).checks_losses and RestartPolicy(0, 1e8).checks_losses


def test_where_there_are_no_links_the_second_name_is_a_copy(tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(farout.files.os, "link", refuse)
    train(tmp_path / "c.pt", Faulty(), RestartPolicy(1))
    assert load_state(tmp_path / "c.pt", CPU)["step"] == 16


# --- whatever the kills and the speed of the machine: the same bits


def troubled(step: int, times: int) -> float:
    """From 8 on all is lost until training goes back to 4; later once more. Five restarts, to 8, 4, 8, 4 and 16."""
    return math.nan if (step == 9 and times < 4) or (step == 18 and times == 4) else 0.0


@pytest.fixture(scope="module")
def untroubled(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, FitResult]:
    """What uninterrupted training comes to, its states written by count alone."""
    model, result = train(tmp_path_factory.mktemp("whole") / "c.pt", Faulty(troubled), RestartPolicy(9))
    assert [restart.resumed_from for restart in result.restarts] == [8, 4, 8, 4, 16]
    return model, result


def assert_same(one: tuple[nn.Module, FitResult], other: tuple[nn.Module, FitResult]) -> None:
    assert tensors_equal(one[0].state_dict(), other[0].state_dict())
    assert (one[1].restarts, one[1].losses) == (other[1].restarts, other[1].losses)


@pytest.mark.parametrize(
    "habits", [{"minutes": 0.0}, {"minutes": 0.0, "steps": None}, {"steps": 3}, {"steps": None}, {"log_every": 1}]
)
def test_when_states_are_written_and_losses_looked_at_decides_nothing(
    tmp_path: Path, untroubled: tuple[nn.Module, FitResult], habits: dict[str, Any]
) -> None:
    assert_same(train(tmp_path / "c.pt", Faulty(troubled), RestartPolicy(9), **habits), untroubled)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_around_any_renaming_of_any_file(
    tmp_path: Path, untroubled: tuple[nn.Module, FitResult], monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """Every n-th renaming is a process's last act, until one comes through; the clock writes states as well."""
    rename, left = farout.files.os.replace, [0]

    def replaced(source: Any, target: Any) -> None:
        left[0] -= 1
        if left[0] == 0 and not after:
            raise Killed
        rename(source, target)
        if left[0] == 0:
            raise Killed

    monkeypatch.setattr("farout.files.os.replace", replaced)
    for distance in (1, 4):
        path, deaths, done = tmp_path / str(distance) / "c.pt", 0, None
        while done is None:
            left[0] = distance + (0 if after else deaths)  # a process that dies before it has written gets nowhere
            deaths += 1
            try:
                done = train(path, Faulty(troubled), RestartPolicy(9), minutes=0.0, steps=None)
            except Killed:
                assert deaths < 200
        assert deaths > 2
        assert_same(done, untroubled)


def test_numbers_lost_between_two_states_are_found_by_the_next_update_not_by_the_clock(tmp_path: Path) -> None:
    """The gradient is infinite at step 9: the loss looks well, the weights are lost, and a state is due at once."""

    class Lost(Faulty):
        def loss(self, model: nn.Module, batches: Any) -> dict[str, torch.Tensor]:
            total = super().loss(model, batches)["total"]
            now = int(self.step) - 1 == 9 and self.times == 0
            return {"total": total + (torch.sqrt((total - total.detach()).abs()) if now else 0)}

    by_count = train(tmp_path / "a.pt", Lost(), RestartPolicy(2), steps=None)
    by_clock = train(tmp_path / "b.pt", Lost(), RestartPolicy(2), minutes=0.0)
    assert by_count[1].restarts[0].diverged_at == 10
    assert_same(by_count, by_clock)


def test_parts_of_the_loss_that_are_not_finite_are_found_at_once(tmp_path: Path) -> None:
    class Parted(Faulty):
        def loss(self, model: nn.Module, batches: Any) -> dict[str, torch.Tensor]:
            now = int(self.step) == 10 and self.times == 0
            return {**super().loss(model, batches), "part": torch.tensor(math.inf if now else 0.0)}

    _, result = train(tmp_path / "c.pt", Parted(), RestartPolicy(2))
    assert [(restart.diverged_at, restart.reason) for restart in result.restarts] == [
        (10, "training diverged: part is not finite at step 10")
    ]


@pytest.mark.parametrize("spoilt", [(0,), (0, 1), (0, 1, 2)])
def test_spoilt_states_are_moved_aside_and_the_end_is_the_same(
    tmp_path: Path, untroubled: tuple[nn.Module, FitResult], spoilt: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """A flipped bit in some of the three files of a run that was killed after its second restart, and once more."""
    path = tmp_path / "c.pt"

    def dying(step: int, times: int) -> float:
        if (step, times) == (7, 2):
            raise Killed
        return troubled(step, times)

    with pytest.raises(Killed):
        train(path, Faulty(dying), RestartPolicy(9))
    assert furthest(path) == (2, 4)
    files = [state_files(path)[number] for number in spoilt]
    for file in files:
        content, weight = bytearray(file.read_bytes()), load_state(file, CPU)["model"]["0.weight"].numpy().tobytes()
        content[content.index(weight) + 7] ^= 1
        file.unlink()  # the file of another name may be the same one
        file.write_bytes(content)
    assert_same(train(path, Faulty(troubled), RestartPolicy(9)), untroubled)
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and said.count("is damaged and was moved to") == len(files)
    assert ("starts afresh" in said) == (len(spoilt) == 3)
    assert all(file.with_name(f"{file.name}.damaged").exists() for file in files)


def test_a_state_to_return_to_that_is_gone_is_made_up_for_by_another(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"

    def losing(step: int, times: int) -> float:
        if (step, times) == (10, 0):
            point_file(path, 0).unlink()  # of step 8
            return math.nan
        return math.nan if (step, times) == (11, 1) else 0.0

    _, result = train(path, Faulty(losing), RestartPolicy(9), steps=None)
    assert [restart.resumed_from for restart in result.restarts] == [4, 8]
    assert result.finished


def test_states_of_before_there_were_points_are_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    with pytest.raises(KeyboardInterrupt):
        train(path, Faulty(killed_at(10)), RestartPolicy(2))
    state = load_state(path, CPU)
    for key in ("points", "saved_since_restart", "conditions"):
        del state[key]
    for file in state_files(path):
        file.unlink()
    torch.save(state, path)
    model, result = train(path, Faulty(once_at(10, math.nan)), RestartPolicy(2))
    whole, expected = train(tmp_path / "whole.pt", Faulty(once_at(10, math.nan)), RestartPolicy(2))
    assert_same((model, result), (whole, expected))


def test_points_are_ordered_by_restarts_and_updates(tmp_path: Path) -> None:
    assert RestartPoint(0, 1, 4).position > RestartPoint(1, 0, 8).position
    assert furthest(tmp_path / "c.pt") is None and not has_states(tmp_path / "c.pt")
    save_state(point_file(tmp_path / "c.pt", 1), {"step": 8, "restarts": []})
    save_state(tmp_path / "c.pt", {"step": 4, "restarts": [1]})
    assert has_states(tmp_path / "c.pt") and furthest(tmp_path / "c.pt") == (1, 4)
