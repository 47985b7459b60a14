"""One list of rows and stages, whichever command works on it; what a deadline ends, and what stages cost."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from farout.commands import campaign, reproduce
from farout.config.compose import compose_settings
from farout.errors import ConfigError, OutOfBudget
from farout.reproduce import costs
from farout.reproduce.rows import ROWS, SCALES, TableRequest, rows_of
from farout.reproduce.stages import ATTACKS, CHAIN_STEPS, Stage, carry_out, stages_of
from farout.runs.robustness import AttackPlan

CPU = torch.device("cpu")
WORDS = ["logger=none", "trainer.device=cpu"]


@pytest.mark.parametrize(("paper", "table"), [("energy", "demo"), ("cider", "demo_cider"), ("jem", "demo_jem")])
def test_campaigns_and_reproduce_do_the_same(paper: str, table: str, tmp_path: Path) -> None:
    asked = ["--seeds", "1", "2", "--paper", paper, "--scale", "demo", "--id", "digits"]
    whole = reproduce.request_of(reproduce.parse_arguments([*asked, *WORDS, f"paths.outputs={tmp_path}"]))
    sliced = ["--seeds", "1", "2", "--table", table, "--id", "digits", "--outputs", str(tmp_path)]
    slices = campaign.request_of(campaign.parse([*sliced, *WORDS]))
    lists = [[(s.kind, s.row, s.settings.seed, s.run.folder) for s in stages_of(each, CPU)] for each in (whole, slices)]
    assert lists[0] == lists[1]
    assert whole.label == slices.label
    assert {row for _, row, _, _ in lists[0]} == set(rows_of(paper, "demo"))


def test_jem_is_sampled_before_its_evaluation_and_attacked_after_it_beside_its_own_seeds_classifiers() -> None:
    stages = stages_of(TableRequest("jem", "full", "cifar10", rows_of("jem", "full"), (1, 2), overrides=(*WORDS,)), CPU)
    kinds = [(stage.kind, stage.row, stage.settings.seed) for stage in stages]
    of_jem = [kind for kind, row, seed in kinds if (row, seed) == ("jem", 1)]
    assert of_jem == ["train", "sample", "evaluate", "attack"]
    attacks = [stage for stage in stages if stage.kind == "attack"]
    beside = [[(each.row, each.settings.seed) for each in attack.classifiers] for attack in attacks]  # type: ignore[attr-defined]
    assert beside == [[("ce", seed), ("ce_plain", seed)] for seed in (1, 2)]
    samples = [stage.classifier for stage in stages if stage.kind == "sample"]  # type: ignore[attr-defined]
    assert [(each.row, each.settings.seed) for each in samples] == [("ce", 1)] * 2, "one ruler for all seeds"


def test_every_paper_has_its_most_valuable_row_first_and_no_row_twice() -> None:
    for rows in ROWS.values():
        assert rows[0] in ("softmax", "baseline", "ce") and len(set(rows)) == len(rows)
    assert rows_of("jem", "full") != rows_of("jem", "small")
    assert ATTACKS.keys() == CHAIN_STEPS.keys() == set(SCALES)


@dataclass(frozen=True)
class Job(Stage):
    """A stage that writes down what happens to it."""

    kind = "job"
    log: list[str] = field(default_factory=list)
    was_done: bool = False
    pauses: bool = False
    needs: float = 0.0

    @property
    def run(self):  # type: ignore[no-untyped-def]
        return self

    @property
    def name(self) -> str:
        return self.row

    @property
    def done(self) -> bool:
        return self.was_done

    def work(self, deadline: float | None = None) -> None:
        self.log.append(self.row)
        if self.pauses:
            raise OutOfBudget("paused")

    def seconds(self) -> float:
        return self.needs

    def done_lines(self) -> list[str]:
        return [f"{self.row} was done"]


@pytest.fixture
def job():  # type: ignore[no-untyped-def]
    settings, log = compose_settings(["scale=smoke", "id_data=digits", "backbone=resnet20"]), []
    make = lambda row, **how: Job(row, settings, CPU, log, **how)  # noqa: E731
    make.log = log  # type: ignore[attr-defined]
    return make


def test_without_a_deadline_all_is_done_and_what_was_done_is_told(job, capsys) -> None:  # type: ignore[no-untyped-def]
    assert carry_out([job("a", was_done=True), job("b", needs=1e9), job("c", needs=1e9)])
    assert job.log == ["b", "c"]
    assert capsys.readouterr().out == "a was done\n"


def test_with_a_deadline_the_first_stage_starts_and_the_next_waits(job, capsys) -> None:  # type: ignore[no-untyped-def]
    stages = [job("a", was_done=True), job("b", needs=1e9), job("c", needs=1e9), job("d")]
    assert not carry_out(stages, time.monotonic() + 600)
    assert job.log == ["b"]
    said = capsys.readouterr().out
    assert "too little of the time budget is left for the next stage: job c" in said and "was done" not in said


def test_a_pause_ends_a_slice_and_is_an_error_of_one_go(job, capsys) -> None:  # type: ignore[no-untyped-def]
    assert not carry_out([job("a", pauses=True), job("b")], time.monotonic() + 600)
    assert job.log == ["a"] and capsys.readouterr().out == "paused\n"
    with pytest.raises(OutOfBudget):
        carry_out([job("a", pauses=True)])


def test_costs_grow_with_what_is_to_be_done() -> None:
    jem = compose_settings(["experiment=jem/demo/digits_jem", *WORDS])
    few, many = (costs.sampling_seconds(jem, CPU, steps) for steps in (10, 1000))
    assert 0 < few < many
    short = AttackPlan({"linf": (1.0,)}, refine=(0,), images=10, steps=1, restarts=1)
    long = AttackPlan({"linf": (1.0, 2.0, 4.0)}, refine=(0, 10), images=100, steps=10, restarts=2)
    assert 0 < 100 * costs.attack_seconds(jem, CPU, short) < costs.attack_seconds(jem, CPU, long)


def test_a_row_that_is_not_there_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"demo has no row cifar10_softmax: choose --id and --rows from digits_"):
        TableRequest("energy", "demo", "cifar10", ("softmax",), (1,)).check("demo")


def test_a_pre_training_is_not_recorded_as_composed_from_its_childs_words():
    stages = stages_of(TableRequest("energy", "full", "cifar10", ("energy_ft",), (1,), overrides=(*WORDS,)), CPU)
    assert [(stage.kind, stage.row, stage.settings.composition is None) for stage in stages] == [
        ("train", "pre-training", True), ("train", "energy_ft", False), ("evaluate", "energy_ft", False)
    ]  # fmt: skip
