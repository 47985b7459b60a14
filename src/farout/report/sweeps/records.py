"""What a sweep leaves on the disk while it runs: sweep.json with the jobs it has, and jobs/KEY.json for each one begun.

Every job writes its own file, whichever process or machine it runs in, so nothing has to be gathered. A job that runs
holds a lock: whoever reads finds out that a killed one does not run any more.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from farout.errors import FaroutError, MissingDataError
from farout.files import load_object, save_json, writing
from farout.shapes import misfit

JOB = {"number": int, "overrides": [str], "state": str, "reason?": str, "run?": (str, None), "evaluations?": [dict]}
SWEEP = {"sweep": str, "command": str, "typed": [str], "swept": [str], "jobs": [{"number": int, "overrides": [str]}]}
STATES = {
    "done": "trained or evaluated as asked",
    "failed": "it ended with an error; the same sweep tries it again",
    "interrupted": "it was stopped or killed; the same sweep goes on with it",
    "running": "a process works on it",
    "pruned": "stopped early, because its figure on the holdout was worse than that of others",
    "not run": "its turn has not come",
}
TO_DO = ("failed", "interrupted", "not run")


@dataclass(frozen=True)
class Job:
    """One job of a sweep, as its file tells it.

    Attributes:
        number: its place in the sweep, from 0; job lines show it.
        overrides: of the command line, those that are the same for all jobs too.
        state, reason: one of STATES; why, in a line, where there is something to say.
        run: the run's folder, from the sweep's own; None where it is not known.
        evaluations: figures of this very job; empty where the run's own are the job's (training).
    """

    number: int
    overrides: tuple[str, ...]
    state: str = "not run"
    reason: str = ""
    run: str | None = None
    evaluations: Sequence[Mapping[str, Any]] = field(default=(), repr=False)

    @property
    def key(self) -> str:
        """Twelve hex digits of the overrides, in whatever order."""
        return hashlib.sha256(json.dumps(sorted(self.overrides)).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class SweepFolder:
    """outputs/sweeps/NAME."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def begun(self) -> bool:
        """Whether a job of it ever began."""
        return (self.path / "sweep.json").is_file()

    def record(self) -> dict[str, Any]:
        """sweep.json; raises MissingDataError, or FaroutError where it is damaged."""
        advice = "repeat the command of the sweep"
        if not self.begun:
            raise MissingDataError(f"there is no sweep in {self.path}: name a folder of outputs/sweeps")
        found = load_object(self.path / "sweep.json", advice)
        if wrong := misfit(found, SWEEP):
            raise FaroutError(f"{self.path / 'sweep.json'} is damaged ({wrong}): {advice}")
        return found

    def jobs(self) -> list[Job]:
        """All jobs by number, as they stand; raises as `record`."""
        found = {job.key: job for each in self.record()["jobs"] for job in [Job(each["number"], (*each["overrides"],))]}
        found |= {job.key: job for path in sorted((self.path / "jobs").glob("*.json")) for job in [self._job(path)]}
        return sorted(found.values(), key=lambda job: job.number)

    def job(self, key: str) -> Job | None:
        """One that has begun, by its key; None where it has not. Raises FaroutError where its file is damaged."""
        path = self.path / "jobs" / f"{key}.json"
        return self._job(path) if path.is_file() else None

    def _job(self, path: Path) -> Job:
        advice = "remove it and repeat the sweep"
        known = load_object(path, advice)
        if wrong := misfit(known, JOB):
            raise FaroutError(f"{path} is damaged ({wrong}): {advice}")
        state, reason = known["state"], known.get("reason", "")
        if state == "running" and not self._is_held(path.stem):
            state, reason = "interrupted", "its process was killed"
        own = tuple(known.get("evaluations") or ())
        return Job(known["number"], tuple(known["overrides"]), state, reason, known.get("run"), own)

    def begin(self, command: str, typed: Sequence[str], swept: Sequence[str], jobs: Sequence[Job]) -> None:
        """Write sweep.json; jobs of earlier commands with the same name stay in it."""
        known = self.record()["jobs"] if self.begun else []
        planned = {Job(each["number"], tuple(each["overrides"])).key: each for each in known}
        planned |= {job.key: {"number": job.number, "overrides": list(job.overrides)} for job in jobs}
        old = self.record()["swept"] if self.begun else []
        keys = list(dict.fromkeys([*old, *swept]))
        facts = {"sweep": self.name, "command": command, "typed": list(typed), "swept": keys}
        save_json(self.path / "sweep.json", {**facts, "jobs": list(planned.values())})

    def write(self, job: Job) -> None:
        """The job's file."""
        facts = {"number": job.number, "overrides": list(job.overrides), "state": job.state, "reason": job.reason}
        more = {"run": job.run, "evaluations": list(job.evaluations)}
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        save_json(self.path / "jobs" / f"{job.key}.json", {**facts, **more, "written": now})

    @contextmanager
    def held(self, job: Job) -> Iterator[None]:
        """The job is somebody's for the time of the block; another process that has it is waited for."""
        path = self._lock(job.key)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _lock(self, key: str) -> Path:
        return self.path / "jobs" / f".{key}.lock"

    def _is_held(self, key: str) -> bool:
        if not self._lock(key).exists():
            return False
        try:
            with FileLock(self._lock(key), timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # a disk that is only read: nobody works there
            return False


def sweeps_of(outputs: Path) -> list[SweepFolder]:
    """The sweeps of an outputs folder, by name."""
    folders = [SweepFolder(path) for path in sorted((outputs / "sweeps").glob("*")) if path.is_dir()]
    return [folder for folder in folders if folder.begun]
