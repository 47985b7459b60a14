"""A wheel works away from the repository: built once, installed into an empty folder, used from another."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from warm_python import WarmPython, finished

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).resolve().parents[2]
DEVELOPERS = ("verdicts", "bench", "torture")  # of whose commands a wheel has no use
MAIN = "import sys; from farout.commands.{} import main; sys.exit(main([]))"
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
WORDS = ["method=ce", "id_data=digits", "scale=smoke", "backbone=resnet20", "logger=none"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, which takes what a build leaves, and has what must not come along."""
    source = tmp_path_factory.mktemp("source")
    for name in ("src", "conf", "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        here = ROOT / name
        (shutil.copytree if here.is_dir() else shutil.copy)(here, source / name)
    for name in ("tests", "results", "outputs", "data", "docs"):
        (source / name).mkdir()
        (source / name / "__init__.py").touch()
        (source / name / "unwanted.yaml").touch()
    words = ["wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(source / "dist")]
    subprocess.run([*PIP, *words, str(source)], check=True)
    (found,) = (source / "dist").glob("farout-*.whl")
    return found


@dataclass(frozen=True)
class Installed:
    """A wheel in `place`, the folder `here` from which it is used, with a conf/ of its own, and what was `said`."""

    place: Path
    here: Path
    said: Path

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A console command, or `-c CODE`."""
        command = list(words) if words[0] == "-c" else [str(self.place / "bin" / words[0]), *words[1:]]
        environment = {**os.environ, "PYTHONPATH": str(self.place), "OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "0"}
        for name in ("FAROUT_DATA", "FAROUT_PACKS"):
            environment.pop(name, None)
        to = self.said / str(len(list(self.said.iterdir())))
        return finished(WarmPython(command, self.here, environment, to), 300)


@pytest.fixture(scope="module")
def farout(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel's commands, in a folder that is empty but for a score of its own."""
    found = Installed(*(tmp_path_factory.mktemp(name) for name in ("installed", "here", "said")))
    words = ["install", "--no-deps", "--no-index", "--no-compile", "--target", str(found.place)]
    subprocess.run([*PIP, *words, str(wheel)], check=True)
    (found.here / "conf/score").mkdir(parents=True)
    mine = "# @package score.mine\n_target_: farout.scores.energy.Energy\ntemperature: 2\n"
    (found.here / "conf/score/mine.yaml").write_text(mine)
    return found


def test_it_holds_the_package_with_conf_and_papers_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if ".dist-info/" not in name}
    package = [
        path for kind in ("*.py", "*.yaml", "*.css", "*.js", "*.j2", "py.typed") for path in (ROOT / "src").rglob(kind)
    ]
    wanted = {path.relative_to(ROOT / "src").as_posix() for path in package}
    wanted |= {f"farout/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert held == wanted
    assert {"farout/py.typed", "farout/conf/train.yaml", "farout/papers/energy.yaml"} <= held


def test_it_trains_and_evaluates_below_the_current_folder(farout: Installed) -> None:
    trained = farout("farout-train", *WORDS, "evaluate=false")
    assert trained.returncode == 0, trained.stderr
    (run,) = (farout.here / "outputs/runs").glob("ce-resnet20-digits-*-s1")
    done = farout("farout-eval", *WORDS, "score=[msp,mine]", "ood_data.sets=[gaussian@50]")
    assert done.returncode == 0, done.stderr
    rows = json.loads((run / "results.json").read_text())["evaluations"][0]["rows"]
    assert {row["score"] for row in rows} == {"msp", "energy_t2"}
    assert (run / "report.html").is_file() and list(run.glob("plots/*.svg"))
    assert json.loads((run / "run.json").read_text())["trained"]["commit"] is None
    assert {path.name for path in farout.here.iterdir()} == {"conf", "data", "outputs"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["farout-train", "method=energy"], "run `farout-data cifar10` to download it"),
        (["farout-eval", *WORDS, "seed=7"], "train it with the same overrides (farout-train)"),
        (["farout-eval", "score=nosuch"], "score=nosuch is not there: choose from all, ash, dice, energy,"),
        (["farout-make-table"], "there is no folder results"),
        *([["-c", MAIN.format(name)], "is work on the repository, and this farout is a wheel"] for name in DEVELOPERS),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_it_refuses_is_one_line_that_holds_there(words: list[str], message: str, farout: Installed) -> None:
    done = farout(*words)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and message in line
