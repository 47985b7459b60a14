"""A campaign on a cluster: every stage a job of Slurm, which waits for those that it needs; parents come first."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table

from farout.commands import slurm
from farout.commands.arguments import hear
from farout.commands.reproduce import write_tables
from farout.engine.progress import duration, say
from farout.errors import ConfigError, one_line
from farout.files import load_object, save_json
from farout.places import conf_file
from farout.reproduce.rows import TableRequest
from farout.reproduce.stages import Stage, before, carry_out, stages_here
from farout.runs.status import status_of

PREFIX = "hydra.launcher."
TABLES = "tables"  # the job that writes them


@dataclass(frozen=True)
class Step:
    """What one job does, by names that mean the same on every machine: a stage, or the tables where it has none."""

    request: TableRequest
    outputs: Path
    key: str

    def __call__(self) -> None:
        hear()
        stages = stages_here(self.request)
        if self.key == TABLES:
            write_tables(self.request, stages, self.outputs)
        else:
            carry_out([keyed(stages)[self.key]])


def keyed(stages: Sequence[Stage]) -> dict[str, Stage]:
    """The stages by names that say nothing of precision, which depends on the machine: `seed 1 energy_ft train`."""
    seen: Counter[str] = Counter()
    found = {}
    for stage in stages:
        name = f"seed {stage.settings.seed} {stage.row} {stage.kind}"
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name} {seen[name]}"] = stage
    return found


class Jobs:
    """The jobs of one campaign: which there are is kept in its folder, and what became of them asked of Slurm."""

    def __init__(self, request: TableRequest, stages: Sequence[Stage], outputs: Path) -> None:
        self.request, self.outputs, self.stages = request, outputs, keyed(stages)
        self.folder = outputs / "campaigns" / f"{request.label}-{request.id_data}"
        self._record = self.folder / "jobs.json"
        self.numbers: dict[str, str] = {}
        if self._record.exists():
            self.numbers = load_object(self._record, "remove it once `squeue` shows no job of the campaign")["jobs"]
        self.states = slurm.in_queue() if self.numbers else {}

    def submit(self, parameters: Mapping[str, object]) -> int:
        """Submit what is neither done nor in the queue, each with what it waits for; how many stages that were."""
        count = 0
        for key, stage in self.stages.items():
            if not stage.done and not self._in_queue(key):
                needed = [
                    name for name, other in self.stages.items() if other in before(stage, [*self.stages.values()])
                ]
                count += self._submit(key, needed, parameters)
        if count and not self._in_queue(TABLES):
            self._submit(TABLES, list(self.stages), parameters)
        return count

    def _submit(self, key: str, needed: Sequence[str], parameters: Mapping[str, object]) -> int:
        awaited = [self.numbers[name] for name in needed if self._in_queue(name)]
        own = {**parameters, "name": f"{self.request.label} {key}".replace(" ", "-")}
        if awaited:
            more = dict(parameters.get("additional_parameters") or {})  # type: ignore[call-overload]
            # Whatever waits for a job that failed goes with it, or it would wait for ever.
            own |= {"dependency": f"afterok:{':'.join(awaited)}"}
            own |= {"additional_parameters": {**more, "kill-on-invalid-dep": "yes"}}
        executor = slurm.executor_of("slurm", self.folder, own, PREFIX + "{}")
        (job,) = slurm.submitted(executor, [Step(self.request, self.outputs, key)])
        self.numbers[key] = job.job_id
        self.states[job.job_id] = "PENDING"
        save_json(self._record, {"jobs": self.numbers})  # at once: what was submitted is never forgotten
        say(f"{key}: job {job.job_id}" + (f", after {', '.join(awaited)}" if awaited else ""))
        return 1

    def _in_queue(self, key: str) -> bool:
        return self.numbers.get(key) in self.states

    def state(self, key: str) -> str:
        """Where a stage stands, in a few words."""
        stage, number = self.stages[key], self.numbers.get(key)
        if stage.done:
            return "done"
        if number in self.states:
            return f"{self.states[number].lower()}{_progress(stage)}"
        if number is None:
            return "not submitted"
        if (log := Path(slurm.job_before(number, self.folder).paths.stderr)).exists():
            return f"failed: {log}"
        missing = [name for name in self._needed(stage) if not self.stages[name].done]
        return f"cancelled, because {missing[0]} is not done" if missing else "failed before it began"

    def _needed(self, stage: Stage) -> list[str]:
        needed = before(stage, list(self.stages.values()))
        return [name for name, other in self.stages.items() if other in needed]

    def show(self) -> int:
        """Print where every stage stands; how many are not done."""
        table = Table(title=f"{self.request.label}-{self.request.id_data}")
        for column in ("stage", "run", "job", "state"):
            table.add_column(column, overflow="fold")
        states = {key: self.state(key) for key in self.stages}
        for key, state in states.items():
            table.add_row(key, self.stages[key].run.name, self.numbers.get(key, ""), state)
        Console(width=None if Console().is_terminal else 150).print(table)
        left = sum(state != "done" for state in states.values())
        say(f"{len(states) - left} of {len(states)} stages are done; logs: {self.folder}")
        return left


def _progress(stage: Stage) -> str:
    folder = stage.run.folder
    if stage.kind != "train" or not (folder / "run.json").is_file():
        return ""
    known = status_of(folder)
    if known.step is None or not known.total_steps:
        return ""
    left = "" if known.seconds_left is None else f", {duration(known.seconds_left)} left"
    return f": step {known.step:,} of {known.total_steps:,}{left}"


def parameters_of(words: Sequence[str]) -> dict[str, object]:
    """What sbatch is told: conf/hydra/launcher/slurm.yaml, and `hydra.launcher.NAME=VALUE`, as for sweeps.

    Raises:
        ConfigError: a word that cannot be read, or another cluster than slurm.
    """
    slurm.require_submitit("--launcher slurm")
    usual = OmegaConf.load(conf_file("hydra/launcher/slurm"))
    assert isinstance(usual, DictConfig)
    for name in ("_target_", "folder"):
        del usual[name]
    try:
        merged = OmegaConf.merge(
            usual, OmegaConf.from_dotlist([word.lstrip("+").removeprefix(PREFIX) for word in words])
        )
        values = OmegaConf.to_container(merged, resolve=True)
    except (OmegaConfBaseException, ValueError) as problem:
        raise ConfigError(f"{PREFIX}*: {one_line(str(problem))}") from None
    assert isinstance(values, dict)
    if (cluster := values.pop("cluster")) != "slurm":
        raise ConfigError(f"{PREFIX}cluster={cluster}: jobs that wait for others need Slurm; leave it out")
    return {str(name): value for name, value in values.items()}
