"""`hydra/launcher=slurm`: every job of a sweep is a job of Slurm, which goes on by itself when it is preempted."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from farout.commands import slurm
from farout.commands.launching import ProcessLauncher, Returned, SweepJob, failed
from farout.engine.progress import say
from farout.engine.stopping import told_as
from farout.errors import FaroutError
from farout.files import load_object, save_json

OPTION = "hydra.launcher.{}"


class SlurmLauncher(ProcessLauncher):
    """One array of jobs, waited for; the options are those of conf/hydra/launcher/slurm.yaml."""

    def __init__(self, cluster: str, folder: str, **parameters: Any) -> None:
        self.cluster, self.folder = cluster, Path(folder)
        self.parameters = {
            key: OmegaConf.to_container(each) if OmegaConf.is_config(each) else each for key, each in parameters.items()
        }

    def carry_out(self, jobs: Sequence[SweepJob]) -> Iterator[tuple[int, Returned]]:
        """As they end; those that an earlier command has in the queue are not submitted again."""
        slurm.require_submitit("hydra/launcher=slurm")
        executor = slurm.executor_of(self.cluster, self.folder, self.parameters, OPTION)
        waiting = self._in_queue()
        old = {job.number: slurm.job_before(waiting[key], self.folder) for job in jobs if (key := _key(job)) in waiting}
        new = [job for job in jobs if job.number not in old]
        if new:
            old |= zip([job.number for job in new], slurm.submitted(executor, new), strict=True)
        self._remember({_key(job): old[job.number].job_id for job in jobs})
        say(f"{self.cluster}: {', '.join(f'#{job.number} is {old[job.number].job_id}' for job in jobs)}")
        say(f"logs: {self.folder}")
        with self._left_behind():
            for number, job in slurm.as_they_end(old):
                yield number, _returned(job)

    def _in_queue(self) -> dict[str, str]:
        """Of the jobs that were submitted before those that wait or run, by what they do."""
        if self.cluster != "slurm" or not self._record.exists():
            return {}
        there = slurm.in_queue()
        known = load_object(self._record, "remove it and repeat the sweep")["jobs"]
        return {key: number for key, number in known.items() if number in there}

    def _remember(self, numbers: dict[str, str]) -> None:
        known = load_object(self._record)["jobs"] if self._record.exists() else {}
        save_json(self._record, {"jobs": {**known, **numbers}})

    @property
    def _record(self) -> Path:
        return self.folder / "jobs.json"

    @contextmanager
    def _left_behind(self) -> Iterator[None]:
        """Whoever stops waiting is told what becomes of the jobs."""
        if self.cluster != "slurm":
            yield
            return
        table = f"python scripts/make_table.py sweep={self.config.hydra.sweep.dir.rpartition('/')[2]}"
        with told_as(f"waiting; the jobs go on in Slurm: the same command waits again, and `{table}` shows the table"):
            yield


def _key(job: SweepJob) -> str:
    return " ".join(sorted(job.words))


def _returned(job: Any) -> Returned:
    try:
        returned: Returned = slurm.result_of(job)
    except FaroutError as problem:
        return failed(problem)
    return returned
