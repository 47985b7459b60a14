"""scripts/NAME.py are doors: they do what farout.commands.NAME says, from any folder, and hold nothing of their own."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

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


def test_a_script_works_from_any_folder(tmp_path):
    command = [sys.executable, str(ROOT / "scripts/report.py"), "nothing"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
