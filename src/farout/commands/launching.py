"""Jobs of a sweep in processes of their own: `hydra/launcher=joblib` here, and what other launchers share."""

import multiprocessing
import os
import signal
import traceback
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed, wait
from contextlib import suppress
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from farout.commands.arguments import hear, plain
from farout.engine import stopping
from farout.engine.progress import Bar, draw_no_bars, say
from farout.errors import ConfigError, FaroutError, Pruned, one_line

PATIENCE = 60.0  # seconds for a job to save its state


class Returned(JobReturn):
    """What a job came to; whoever asks for the value of one that failed gets its error, without a report of Hydra's."""

    @property
    def return_value(self) -> Any:
        if self.status == JobStatus.FAILED:
            raise self._return_value
        return self._return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


def failed(error: Exception) -> Returned:
    """What a job came to that left nothing but an error."""
    return Returned(status=JobStatus.FAILED, _return_value=error)


class SweepJob:
    """One job, as it travels to another process.

    Args:
        spread: jobs share this machine's CUDA devices, so this one takes its turn among them (`device_of_job`).
    """

    def __init__(self, launcher: "ProcessLauncher", words: Sequence[str], number: int, spread: bool = False) -> None:
        self.context, self.task, self.config = launcher.hydra_context, launcher.task_function, launcher.config
        self.words, self.number, self.spread = list(words), number, spread
        self.state = Singleton.get_state()

    def __call__(self) -> Returned:
        """Do it here."""
        setup_globals()
        Singleton.set_state(self.state)
        hear()
        config = self.context.config_loader.load_sweep_config(self.config, self.words)
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = f"{config.hydra.job.name}_{self.number}", self.number
            if self.spread:
                config.trainer.device = device_of_job(config, self.number)
        HydraConfig.instance().set_config(config)
        done = run_job(
            hydra_context=self.context,
            task_function=self.task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        value = done._return_value
        if isinstance(value, Exception) and not isinstance(value, FaroutError | OSError):
            traceback.print_exception(value)  # here, where the frames are
            said = one_line(f"{type(value).__name__}: {value}")
            return failed(FaroutError(f"{said} (a mistake of farout's own: the job has printed where)"))
        return Returned(overrides=self.words, status=done.status, _return_value=value)


def device_of_job(config: DictConfig, number: int) -> str:
    """`trainer.device` of a job that shares a machine: where none is named, CUDA devices in turn by its number."""
    import torch

    asked = str(config.trainer.device)
    count = torch.cuda.device_count() if asked in ("auto", "cuda") and config.trainer.devices == 1 else 0
    return f"cuda:{number % count}" if count > 1 else asked


class ProcessLauncher(Launcher):
    """What launchers have in common that give every job a process.

    Attributes:
        heard: what jobs say is seen where the command is.
    """

    heard = False
    config: DictConfig
    hydra_context: HydraContext
    task_function: TaskFunction

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's: before the sweep."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Hydra's: do the jobs; what they came to, in their order. All are tried."""
        jobs = [self.job(words, number) for number, words in enumerate(job_overrides, initial_job_idx)]
        ended: dict[int, Returned] = {}
        with Bar("sweep", len(jobs), unit="job") as bar:
            for number, returned in self.carry_out(jobs):
                ended[number] = returned
                self._say_end(number, returned)
                bar.at(len(ended))
        return [ended[job.number] for job in jobs]

    def job(self, words: Sequence[str], number: int) -> SweepJob:
        """One of the jobs."""
        return SweepJob(self, words, number)

    @abstractmethod
    def carry_out(self, jobs: Sequence[SweepJob]) -> Iterable[tuple[int, Returned]]:
        """The number of each job and what it came to, as they end."""

    def _say_end(self, number: int, returned: Returned) -> None:
        value = returned._return_value
        if returned.status == JobStatus.COMPLETED:
            say(f"job {number} done")
        elif not (self.heard and returned.overrides):  # which the job has said itself
            say(f"job {number} {'pruned' if isinstance(value, Pruned) else 'failed'}: {plain(value)}")


class JoblibLauncher(ProcessLauncher):
    """`n_jobs` processes of this machine at a time, by joblib; conf/hydra/launcher/joblib.yaml."""

    heard = True

    def __init__(self, n_jobs: int | None) -> None:
        self.n_jobs = n_jobs

    def job(self, words: Sequence[str], number: int) -> SweepJob:
        """One of the jobs; they take this machine's devices in turn."""
        return SweepJob(self, words, number, spread=True)

    def carry_out(self, jobs: Sequence[SweepJob]) -> Iterator[tuple[int, Returned]]:
        """As they end."""
        import torch
        from joblib.externals.loky import get_reusable_executor

        if self.n_jobs is not None and (not isinstance(self.n_jobs, int) or self.n_jobs < 1):
            raise ConfigError(f"hydra.launcher.n_jobs={self.n_jobs} is no number of processes")
        at_once = min(len(jobs), self.n_jobs or max(2, torch.cuda.device_count()))
        say(f"{len(jobs)} jobs, {at_once} at a time, in processes of this machine")
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, torch.get_num_threads() // at_once))
        pool = get_reusable_executor(at_once, env={"OMP_NUM_THREADS": threads})
        work = {pool.submit(_heard, job): job.number for job in jobs}
        try:
            for done in as_completed(work):
                yield work[done], _returned(done)
        except (KeyboardInterrupt, stopping.Terminated):
            _let_them_save(work)
            raise
        finally:
            pool.shutdown(kill_workers=True)


def _heard(job: SweepJob) -> Returned | None:
    """A job that ends with its state saved by the signals that end a command; None where one did."""
    draw_no_bars()
    with stopping.signals():
        try:
            return job()
        except (KeyboardInterrupt, stopping.Terminated) as stop:
            stopping.report_stop(stop)
            return None


def _returned(done: "Future[Returned | None]") -> Returned:
    """What a future holds; of a process that was killed, or told to end, an error that says so."""
    from joblib.externals.loky.process_executor import BrokenProcessPool

    try:
        returned = done.result()
    except BrokenProcessPool:
        return failed(FaroutError("a process was killed, and the others with it: repeat the command to go on"))
    return failed(FaroutError("stopped by a signal: repeat the command to go on")) if returned is None else returned


def _let_them_save(work: "Mapping[Future[Returned | None], int]") -> None:
    """Tell the processes to end, and wait until they did."""
    for done in work:
        done.cancel()
    for process in multiprocessing.active_children():
        assert process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
    wait(work, timeout=PATIENCE)
