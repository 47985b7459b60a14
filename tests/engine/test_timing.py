"""What an update costs: throwaway networks, random states left alone, and when a compiler pays."""

import random
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from farout.backbones import Backbone
from farout.engine.fit import Optimisation
from farout.engine.timing import (
    CompileTiming,
    Trial,
    compile_problem,
    in_turns,
    random_states_kept,
    seconds_per_step,
    time_compiling,
)
from farout.methods import Batch, CrossEntropy

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs g++")


class Tiny(Backbone):
    """One convolution."""

    def __init__(self) -> None:
        super().__init__(3, feature_dim=8)
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.fc = nn.Linear(8, 3)

    def _features(self, images: Tensor) -> Tensor:
        return self.trunk(images).mean((2, 3))


def batches(step: int) -> dict[str, Batch]:
    generator = torch.Generator().manual_seed(step)
    images, labels = torch.randn(6, 3, 8, 8, generator=generator), torch.randint(0, 3, (6,), generator=generator)
    return {"labelled": Batch(images, labels)}


def trial() -> Trial:
    torch.manual_seed(0)
    return Trial(Tiny(), CrossEntropy(), batches, Optimisation(lr=0.1))


@pytest.fixture
def fresh_compiler(tmp_path, monkeypatch) -> Iterator[None]:
    """Nothing that was compiled before is found."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_random_states_are_as_they_were() -> None:
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = float(torch.rand(())), np.random.rand(), random.random()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    with pytest.raises(ZeroDivisionError), random_states_kept():
        seconds_per_step(trial())
        np.random.rand(), random.random()
        raise ZeroDivisionError
    assert (float(torch.rand(())), np.random.rand(), random.random()) == expected


@pytest.mark.parametrize(
    ("compiling", "compiled", "seconds", "pays"),
    [(30.0, 0.5, 100.0, True), (60.0, 0.5, 100.0, False), (0.0, 1.1, 100.0, False), (30.0, 0.9, 1000.0, True)],
)
def test_a_compiler_is_paid_for_by_what_is_left(compiling, compiled, seconds, pays) -> None:
    assert CompileTiming(1.0, compiled, compiling).pays(seconds) is pays


def test_what_was_not_compiled_never_pays() -> None:
    assert not CompileTiming(1.0, problem="no compiler").pays(1e9)


def test_turns_give_the_least_of_each() -> None:
    class Given:
        def __init__(self, *seconds: float) -> None:
            self.seconds = list(seconds)

        def update(self) -> float:
            return self.seconds.pop(0)

    slow, quick = Given(4.0, 3.0, 5.0), Given(2.0, 2.5, 1.0)
    assert in_turns({"slow": slow, "quick": quick}) == {"slow": 3.0, "quick": 1.0}  # type: ignore[dict-item]
    assert slow.seconds == quick.seconds == [], "two turns after the first, where turns are long"


def test_a_short_run_never_meets_the_compiler(monkeypatch) -> None:
    monkeypatch.setattr(Tiny, "compile_trunk", lambda self: pytest.fail("compiled"))
    asked = []
    found = time_compiling(trial, lambda seconds: asked.append(seconds) or False)
    assert found == CompileTiming(asked[0])


@needs_compiler
def test_a_comparison_compiles_and_times_both() -> None:
    torch._dynamo.reset()
    found = time_compiling(trial, lambda seconds: True)
    assert found.problem is None and found.compiled is not None
    assert 0 < found.eager < 1 and 0 < found.compiled < 1
    assert found.compiling > 10 * found.compiled, "compiled before or not, it is traced anew"


@pytest.mark.usefixtures("fresh_compiler")
def test_without_a_compiler_the_reason_is_a_few_words() -> None:
    from torch._inductor import config

    with config.patch({"cpp.cxx": ("no-such-compiler",)}):
        assert compile_problem(trial()) == "there is no C++ compiler such as g++"
        assert time_compiling(trial, lambda seconds: True).problem == "there is no C++ compiler such as g++"
