"""Commands in processes that need not import PyTorch again: forked from one that has, and has done nothing else.

Importing what others wrote takes longer than most commands of the tests. The rest is a command's own: farout is
imported as it says, and signals, exit status, streams and death are those of a process.
"""

import atexit
import multiprocessing
import os
import runpy
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired

LOADED = ["torch", "torchvision", "hydra", "wandb", "sklearn.datasets", "scipy.stats", "matplotlib.figure"]
_SERVER = multiprocessing.get_context("forkserver")


class WarmPython:
    """`python ARGUMENTS...` under way: as much of `subprocess.Popen` as the tests use, with text of both streams."""

    def __init__(
        self,
        arguments: Sequence[str],
        cwd: Path,
        environment: Mapping[str, str],
        said: Path,
        streams: tuple[str, str] = ("out.txt", "err.txt"),
    ) -> None:
        self.args = [sys.executable, *arguments]
        said.mkdir(parents=True, exist_ok=True)
        self._streams = said / streams[0], said / streams[1]
        _SERVER.set_forkserver_preload(LOADED)
        with _one_thread():
            self._process = _SERVER.Process(
                target=_become, args=(list(arguments), str(cwd), dict(environment), *map(str, self._streams))
            )
            self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> None:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutExpired(self.args, timeout or 0.0)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end, and return what was said; a process that takes longer is killed."""
        try:
            self.wait(timeout)
        except TimeoutExpired:
            self.kill()
            raise
        out, err = (path.read_text() for path in self._streams)
        return out, err

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def finished(process: WarmPython, timeout: float) -> CompletedProcess[str]:
    """Wait for its end."""
    out, err = process.communicate(timeout)
    assert process.returncode is not None
    return CompletedProcess(process.args, process.returncode, out, err)


@contextmanager
def _one_thread() -> Iterator[None]:
    """What the server starts with: PyTorch reads it when it is imported, and its children keep it."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _become(arguments: list[str], cwd: str, environment: dict[str, str], out: str, err: str) -> None:
    """In the child: the command, `-c CODE ...` or `FILE ...`, as the interpreter would run it."""
    for number, path in ((1, out), (2, err)):
        file = 1 if number == 2 and err == out else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        if file > 2:
            os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    try:
        if arguments[0] == "-c":
            sys.argv = ["-c", *arguments[2:]]
            sys.path.insert(0, "")
            exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = list(arguments)
            sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
            runpy.run_path(arguments[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()
