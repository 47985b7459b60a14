"""Work put into Slurm by submitit, which pickles a callable, and puts it back when its time runs out."""

import getpass
import importlib.util
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from farout.engine import stopping
from farout.errors import ConfigError, FaroutError, one_line

# Parameters that submitit has for every kind of cluster; all others are Slurm's own.
GENERAL = (
    "name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node", "stderr_to_stdout",
)  # fmt: skip
LOOK = 1.0  # seconds between two looks at a file system that many nodes share
AT_START = ("max_num_timeout", "python")


class Requeued:
    """Something to do in a job of the cluster; told that its time runs out, it saves its state and is put back.

    It travels as a pickle, and so does what it does.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work

    def __call__(self) -> Any:
        with stopping.saved_before_requeue():
            return self.work()

    def checkpoint(self) -> Any:
        """submitit's: what to do when the job comes back. All state lies in the folders of runs."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def require_submitit(what: str) -> None:
    """Raise FaroutError where submitit is absent."""
    if importlib.util.find_spec("submitit") is None:
        raise FaroutError(f"{what} needs submitit: pip install farout[slurm]")


def executor_of(cluster: str, folder: Path, parameters: Mapping[str, Any], where: str) -> Any:
    """What jobs are submitted to; scripts, pickles and logs lie in `folder`.

    Args:
        cluster: slurm, or local: processes of this machine.
        parameters: submitit's, those of Slurm without their prefix; None: as the cluster has it.
        where: how a user writes a parameter's name, for messages: hydra.launcher.{}.

    Raises:
        ConfigError: no such cluster or parameter, or a value that it does not take.
        FaroutError: there is no Slurm here.
    """
    import submitit

    if cluster not in ("slurm", "local"):
        raise ConfigError(f"{where.format('cluster')}={cluster} is not there: choose slurm or local")
    given = {key: value for key, value in parameters.items() if value is not None}
    first = {f"{cluster}_{key}": given.pop(key) for key in AT_START if key in given}
    try:
        executor = submitit.AutoExecutor(folder, cluster, **first)
        executor.update_parameters(**{key if key in GENERAL else f"slurm_{key}": each for key, each in given.items()})
    except RuntimeError:
        raise FaroutError(
            f"there is no Slurm here (srun): submit where sbatch works, or try {where.format('cluster')}=local"
        ) from None
    except NameError as problem:
        (unknown,) = re.findall(r"Unknown argument '(\w+)'", str(problem))[:1] or ["?"]
        raise ConfigError(f"{where.format(unknown)} is no parameter of submitit: see its documentation") from None
    except (AssertionError, ValueError, TypeError) as problem:
        raise ConfigError(f"{where.format('*')}: {problem}") from None
    return executor


def submitted(executor: Any, works: Sequence[Callable[[], Any]]) -> list[Any]:
    """Submit several as one array; raises FaroutError, with Slurm's own words, where it refuses."""
    try:
        with redirect_stderr(StringIO()):  # what sbatch said is in the error
            return list(executor.submit_array([Requeued(work) for work in works]))
    except RuntimeError as problem:  # submitit's own kinds are such
        raise FaroutError(f"Slurm refuses the job: {_reason(str(problem))}") from None


def in_queue() -> dict[str, str]:
    """State by number (of arrays 12_3) of this user's jobs that wait or run; raises FaroutError without Slurm."""
    words = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i %T"]
    try:
        listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as problem:
        said = getattr(problem, "stderr", None) or str(problem)
        raise FaroutError(f"squeue does not tell which jobs there are: {_reason(said)}") from None
    return dict(line.split(maxsplit=1) for line in listed.splitlines() if line.strip())


def job_before(number: str, folder: Path) -> Any:
    """A job that was submitted before."""
    import submitit

    return submitit.SlurmJob(folder, number)


def as_they_end(jobs: Mapping[int, Any]) -> Iterator[tuple[int, Any]]:
    """The keys and jobs of those that have ended, as they do."""
    waiting = dict(jobs)
    while waiting:
        for key in [key for key, job in waiting.items() if job.done()]:
            yield key, waiting.pop(key)
        time.sleep(LOOK)


def result_of(job: Any) -> Any:
    """What the work of an ended job came to; raises FaroutError, with the log, where it came to nothing."""
    import submitit

    utils = submitit.core.utils
    try:
        return job.result()
    except utils.UncompletedJobError as problem:
        why = f"job {job.job_id} ended without a result ({_reason(str(problem))})"
        raise FaroutError(f"{why}, see {job.paths.stderr}") from None


def _reason(text: str) -> str:
    """The line that says most."""
    lines = [line.strip(" -") for line in text.strip().splitlines() if line.strip(" -")]
    named = [line for line in lines if re.match(r"(sbatch: )?error:|\w*(Error|Exception)\b", line)]
    return one_line((named or lines or ["no reason given"])[-1])
