"""scripts/NAME.py are doors: they do what farout.commands.NAME says, from any folder, and hold nothing of their own."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from farout.command_names import COMMANDS as COMMANDS_BY_FILE
from farout.config.settings import ROOT

DOORS = sorted(path.relative_to(ROOT / "scripts").as_posix() for path in (ROOT / "scripts").rglob("*.py"))
COMMANDS = ROOT / "src/farout/commands"


def module_of(door: str) -> str:
    return f"farout.commands.{door.removesuffix('.py').replace('/', '.')}"


@pytest.mark.parametrize("door", DOORS)
def test_a_door_opens_its_command_and_nothing_else(door):
    docstring, *lines = ast.parse((ROOT / "scripts" / door).read_text()).body
    assert isinstance(docstring, ast.Expr)
    assert [ast.unparse(line) for line in lines] == [
        "import sys",
        f"from {module_of(door)} import main",
        "if __name__ == '__main__':\n    sys.exit(main())",
    ]


def test_every_command_has_a_door():
    with_main = {
        path.relative_to(COMMANDS).as_posix()
        for path in COMMANDS.rglob("*.py")
        if "def main(arguments" in path.read_text()
    }
    assert with_main == set(DOORS)


@pytest.mark.parametrize("door", DOORS)
def test_help_names_the_script_and_how_it_is_called(door, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(ROOT / "scripts" / door), "--help"])
    assert import_module(module_of(door)).main() == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: {Path(door).name} ")
    assert f"python scripts/{door}" in shown


CONSOLE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
FOR_DEVELOPERS = {"bench.py", "torture.py", "verdicts.py"}  # work on the repository, as benchmark/ is


def test_every_script_that_a_wheel_can_use_is_a_console_command():
    wanted = {f"scripts/{door}": module_of(door) for door in DOORS if "/" not in door and door not in FOR_DEVELOPERS}
    named = {COMMANDS_BY_FILE[file]: f"{module}:main" for file, module in wanted.items()}
    entries = {f"farout-{name}": f"farout.commands.entry:start_{name}" for name in ("train", "eval")}
    assert named | entries == CONSOLE
    assert set(COMMANDS_BY_FILE) == {*wanted, "train.py", "eval.py"}


@pytest.mark.parametrize("name", sorted(set(CONSOLE) - {"farout-train", "farout-eval"}))
def test_help_of_a_console_command_names_it(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"/somewhere/bin/{name}", "--help"])
    assert import_module(CONSOLE[name].removesuffix(":main")).main() == 0
    usage, _, text = capsys.readouterr().out.partition("\n\n")
    assert usage.startswith(f"usage: {name} ") and f"{name} " in text
    assert not re.search(r"python |scripts/|\.py\b", text)


def test_a_script_works_from_any_folder(tmp_path):
    command = [sys.executable, str(ROOT / "scripts/report.py"), "nothing"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
