"""What is loaded before anything is asked for: modules are counted, not seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "torchvision", "sklearn", "scipy", "matplotlib", "wandb", "PIL")
CHILD = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit:
    pass
print("LOADED", *(name for name in {heavy} if name in sys.modules))
"""


def _ended(*words: str) -> str:
    """What a command says, and below it which heavy packages it has loaded when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(heavy=HEAVY), *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def _loaded_of(said: str) -> set[str]:
    last = said.splitlines()[-1].split()
    assert last[0] == "LOADED"
    return set(last[1:])


def _loaded(*words: str) -> set[str]:
    """Which heavy packages a command has loaded when it ends."""
    return _loaded_of(_ended(*words))


@pytest.mark.parametrize(
    "words",
    [
        ("train.py", "--help"),
        ("eval.py", "--help"),
        ("train.py", "--version"),
        ("train.py", "--cfg", "job"),
        ("train.py", "method=nosuch"),
        ("train.py", "experiment=nosuch"),
        ("train.py", "trainer.nosuch=1"),
        ("train.py", "method=energy", "m_in=[1"),
    ],
    ids=" ".join,
)
def test_what_needs_no_network_loads_nothing_heavy(words: tuple[str, ...]) -> None:
    assert _loaded(*words) == set()


@pytest.mark.parametrize("name", ["train", "eval"])
def test_a_console_command_starts_as_fast_and_its_help_names_it(name: str, tmp_path: Path) -> None:
    command = tmp_path / f"farout-{name}"  # as pip writes it
    command.write_text(f"import sys\nfrom farout.commands.entry import start_{name}\nsys.exit(start_{name}())\n")
    done = _ended(str(command), "--help")
    assert _loaded_of(done) == set()
    assert "farout-train method=energy m_in=-25" in done and "farout-eval run=" in done and "farout-data --list" in done
    assert "python " not in done


@pytest.mark.parametrize("words", [("nosuch/group=energy",), ("method=energy", "m_inn=-25")], ids=" ".join)
def test_what_asks_a_component_for_its_arguments_loads_torch_at_most(words: tuple[str, ...]) -> None:
    assert _loaded("train.py", *words) <= {"torch", "PIL"}


def test_training_loads_what_it_trains_with() -> None:
    """The slow packages of evaluation, data sets and figures wait until something is evaluated, read or drawn."""
    script = f"import sys, farout.runs.training as t; print(*(n for n in {HEAVY} if n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"torchvision", "sklearn", "scipy", "wandb"}.isdisjoint(done.stdout.split())
