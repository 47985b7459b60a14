"""A little of Slurm, for tests: sbatch, srun, squeue, sacct, scontrol and scancel over a folder of files.

Partitions: closed takes no job, held keeps jobs waiting until they are released, in broken every job fails at once.
Each job has a keeper, a process that waits for what the job depends on, runs its script, and runs it again when
`scontrol requeue` asked for that. Signals of `scancel --signal` reach the job's step (what srun runs), as Slurm's do.
"""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

COMMANDS = ("sbatch", "srun", "squeue", "sacct", "scontrol", "scancel")
FOLDER = "FAKE_SLURM"
OVER = ("COMPLETED", "FAILED", "CANCELLED")


class FakeSlurm:
    """The cluster, as a test sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder / "state", folder / "bin"
        self.folder.mkdir(parents=True)
        self.bin.mkdir()
        for name in COMMANDS:
            file = self.bin / name
            file.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" {name} "$@"\n')
            file.chmod(file.stat().st_mode | stat.S_IXUSR)

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs to find the cluster."""
        return {FOLDER: str(self.folder), "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"}

    def jobs(self) -> dict[str, dict[str, Any]]:
        """All that were ever submitted, by number."""
        return {path.stem: _read(path) for path in sorted(self.folder.glob("*.job"), key=_number)}

    def release(self) -> None:
        """Let the jobs of the partition `held` begin."""
        (self.folder / "released").touch()

    def wait(self, seconds: float = 240.0) -> None:
        """Until no job waits or runs."""
        _until(lambda: all(job["state"] in OVER for job in self.jobs().values()), seconds)


def _number(path: Path) -> list[int]:
    return [int(part) for part in path.stem.split("_")]


def _read(path: Path) -> dict[str, Any]:
    for _ in range(100):
        try:
            return dict(json.loads(path.read_text()))
        except ValueError:  # being written
            time.sleep(0.01)
    raise AssertionError(f"{path} cannot be read")


def _until(true: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.1)


def _folder() -> Path:
    return Path(os.environ[FOLDER])


def _change(number: str, **facts: Any) -> None:
    path = _folder() / f"{number}.job"
    known = _read(path) if path.exists() else {}
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps({**known, **facts}))
    temporary.replace(path)


def _job(number: str) -> dict[str, Any]:
    return _read(_folder() / f"{number}.job")


def sbatch(words: list[str]) -> None:
    """Accept a script and start its keepers."""
    text = Path(words[-1]).read_text()
    flags = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, re.MULTILINE))
    if flags.get("partition") == "closed":
        sys.exit("sbatch: error: invalid partition specified: closed")
    main = str(1 + len({path.stem.split("_")[0] for path in _folder().glob("*.job")}))
    array = re.match(r"'?0-(\d+)", flags.get("array", ""))
    numbers = [f"{main}_{i}" for i in range(int(array[1]) + 1)] if array else [main]
    for number in numbers:
        _change(number, state="PENDING", flags=flags, script=words[-1], started=0)
        subprocess.Popen(
            [sys.executable, __file__, "keep", number], start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    print(f"Submitted batch job {main}")


def keep(words: list[str]) -> None:
    """The life of a job."""
    (number,) = words
    flags = _job(number)["flags"]
    awaited = re.findall(r"\d+", flags.get("dependency", ""))
    while any(_job(each)["state"] not in OVER for each in awaited):
        time.sleep(0.1)
    if any(_job(each)["state"] != "COMPLETED" for each in awaited):
        assert flags["kill-on-invalid-dep"] == "yes", "it would wait for ever"
        _change(number, state="CANCELLED")
        return
    while "held" in flags["partition"] and not (_folder() / "released").exists():
        time.sleep(0.1)
    if "broken" in flags["partition"]:
        _change(number, state="FAILED")
        return
    time.sleep(0.3)  # until whoever submitted has put the pickle where the job looks for it
    main, _, index = number.partition("_")
    environment = {**os.environ, "SLURM_JOB_ID": main, "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    environment |= {"SLURM_ARRAY_JOB_ID": main, "SLURM_ARRAY_TASK_ID": index} if index else {}
    while True:
        _change(number, state="RUNNING", requeue=False, started=_job(number)["started"] + 1)
        status = subprocess.run(["bash", _job(number)["script"]], env={**environment, "KEPT": number}).returncode
        if not _job(number)["requeue"]:
            break
    _change(number, state="COMPLETED" if status == 0 else "FAILED")


def srun(words: list[str]) -> None:
    """Become the step, with its output appended to files."""
    number = os.environ["KEPT"]
    main, _, index = number.partition("_")
    names = {"%j": number, "%A": main, "%a": index, "%t": "0"}
    while words[0].startswith("--"):
        option, given = words.pop(0), None
        if option in ("--output", "--error"):
            given = re.sub("%[jAat]", lambda found: names[found[0]], words.pop(0))
            os.dup2(os.open(given, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1 if option == "--output" else 2)
    _change(number, step=os.getpid())
    os.execvp(words[0], words)


def squeue(words: list[str]) -> None:
    """Who waits or runs."""
    assert "--array" in words and "--format=%i %T" in words
    for path in _folder().glob("*.job"):
        if (state := _read(path)["state"]) not in OVER:
            print(path.stem, state)


def sacct(words: list[str]) -> None:
    """What became of jobs."""
    print("JobID|State|NodeList")
    for path in _folder().glob("*.job"):
        print(f"{path.stem}|{_read(path)['state']}|node1")


def scontrol(words: list[str]) -> None:
    """Put a job back."""
    assert words[0] == "requeue"
    _change(words[1], requeue=True)


def scancel(words: list[str]) -> None:
    """Send a signal."""
    number, option, name = words
    assert option == "--signal"
    os.kill(_job(number)["step"], getattr(signal, f"SIG{name.removeprefix('SIG')}"))


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2:])
