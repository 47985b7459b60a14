"""A copy of the repository in which the lines of a page are run, as a user would type them."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from warm_python import WarmPython, finished

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("src", "conf", "scripts", "train.py", "eval.py")  # what a run needs


def copy_of_the_repository(folder: Path) -> None:
    """Its parts that a run needs, into an empty folder."""
    for name in PARTS:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)


def run_line(line: str, folder: Path) -> None:
    """A line of a shell: Python at once, in a process of its own, what else there is by the shell."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder / "src"),
        "FAROUT_DATA": str(folder / "data"),
        "OMP_NUM_THREADS": "1",
    }
    program, *words = shlex.split(line, comments=True)
    if program != "python":
        subprocess.run(line, shell=True, cwd=folder, env=environment, check=True)
        return
    to = Path(words[words.index(">") + 1]) if ">" in words else None
    words = words if to is None else words[: words.index(">")]
    done = finished(WarmPython(words, folder, environment, folder / "said"), 600)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    if to is not None:
        (folder / to).write_text(done.stdout)
