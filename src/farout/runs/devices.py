"""Several devices for one run: the processes that follow the command's own are started here, or were by torchrun."""

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

import torch
import torch.distributed as dist

from farout.config.settings import TrainerSettings
from farout.engine import stopping
from farout.engine.allocator import keep_freed_memory
from farout.engine.processes import ALONE, PATIENCE, Processes
from farout.engine.progress import console
from farout.errors import ConfigError, FaroutError


class Task(Protocol):
    """What a follower is sent, and does."""

    def carry_out(self, processes: Processes, device: torch.device) -> None: ...


@contextmanager
def several_devices(trainer: TrainerSettings, device: torch.device) -> Iterator[Processes]:
    """The processes that a command works with; a follower's body (rank above 0) is `follow`.

    Followers are started for the time of the block and end with it, however it ends; under torchrun they are there.

    Raises:
        ConfigError: there are not as many devices as asked for.
        FaroutError: another process has ended amid the work.
    """
    size = trainer.devices
    if size == 1:
        yield ALONE
        return
    _check(trainer, device)
    threads = torch.get_num_threads()
    here = Processes(_rank(), size, trainer.batch_norm)
    with tempfile.TemporaryDirectory() as folder:
        started = [] if _under_torchrun() else _followers(here, Path(folder) / "meeting", device)
        try:
            if device.type == "cpu":
                torch.set_num_threads(max(1, threads // size))
            _join(here, device_of(here, device), "env://" if _under_torchrun() else f"file://{folder}/meeting")
            yield here
            if here.rank == 0:
                here.send(None)
        except RuntimeError as problem:  # of a collective whose other side is gone
            for process in started:
                process.join(1)  # whose side is gone may be on its way out yet
            if any(process.exitcode for process in started):
                raise FaroutError(f"a process of another device has ended, see above ({_first(problem)})") from None
            if here.rank:
                raise FaroutError(f"the process of device 0 has ended ({_first(problem)})") from None
            raise
        finally:
            torch.set_num_threads(threads)
            for process in started:
                process.kill()
                process.join()
            if dist.is_initialized():
                dist.destroy_process_group()


def as_launched(trainer: TrainerSettings) -> TrainerSettings:
    """With as many devices as torchrun has started processes; raises ConfigError where others are asked for."""
    if not _under_torchrun():
        return trainer
    size = int(os.environ["WORLD_SIZE"])
    if trainer.devices not in (1, size):
        raise ConfigError(f"trainer.devices={trainer.devices}, but torchrun has started {size} processes: leave it out")
    return replace(trainer, devices=size)


def device_of(processes: Processes, device: torch.device) -> torch.device:
    """The device of a process: the CPU for all of a machine, or an accelerator for each; of one process as asked."""
    if not processes.several or device.type == "cpu":
        return device
    return torch.device(device.type, int(os.environ.get("LOCAL_RANK", processes.rank)))


def follow(processes: Processes, device: torch.device) -> None:
    """Do what the leader sends, until it sends None."""
    console.quiet = True
    for number in (signal.SIGINT, signal.SIGTERM, *stopping.WARNINGS):  # the leader hears them
        signal.signal(number, signal.SIG_IGN)
    while (task := processes.receive()) is not None:
        task.carry_out(processes, device)


def _under_torchrun() -> bool:
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and "LOCAL_RANK" in os.environ


def _rank() -> int:
    return int(os.environ["RANK"]) if _under_torchrun() else 0


def _check(trainer: TrainerSettings, device: torch.device) -> None:
    if device.index is not None:
        raise ConfigError(
            f"trainer.device={device} is one device, trainer.devices={trainer.devices}: leave the number out"
        )
    here = int(os.environ.get("LOCAL_WORLD_SIZE", trainer.devices))
    if device.type == "cuda" and torch.cuda.device_count() < here:
        count = torch.cuda.device_count()
        raise ConfigError(f"trainer.devices={here}, but there are {count} CUDA devices here: ask for at most {count}")


def _followers(here: Processes, meeting: Path, device: torch.device) -> list[BaseProcess]:
    start = multiprocessing.get_context("spawn").Process
    threads = max(1, torch.get_num_threads() // here.size)
    others = [Processes(rank, here.size, here.batch_norm) for rank in range(1, here.size)]
    processes = [start(target=_follower, args=(each, meeting, device, threads), daemon=True) for each in others]
    with stopping.unheard():  # by the leader's followers: it hears them itself
        for process in processes:
            process.start()
    return list(processes)


def _follower(here: Processes, meeting: Path, device: torch.device, threads: int) -> None:
    """The life of a process that was started to follow."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    own = device_of(here, device)
    if device.type == "cpu":
        torch.set_num_threads(threads)
        keep_freed_memory()
    try:
        _join(here, own, f"file://{meeting}")
        follow(here, own)
    except FaroutError as problem:
        print(f"the process of device {here.rank}: {problem}", file=sys.stderr)
        sys.exit(2)


def _end_with_parent() -> None:
    """A leader that is killed cannot say so, and a GPU's collectives wait for long."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _join(here: Processes, device: torch.device, where: str) -> None:
    backend = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl", "xpu": "cpu:gloo,xpu:xccl"}[device.type]
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, where, rank=here.rank, world_size=here.size, timeout=PATIENCE)


def _first(problem: Exception) -> str:
    return str(problem).strip().split("\n")[0]
