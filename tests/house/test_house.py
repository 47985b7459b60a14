"""The house rules that a machine can check: imports, environment files, Makefile, tree."""

import ast
import graphlib
import re
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LAYERS = [  # lowest first: a package imports from those below it and from itself
    {"places"},
    {"command_names"},
    {"errors", "lazy", "version"},
    {"files", "kernels", "shapes", "targets"},
    {"backbones"},
    {"methods", "scores", "data", "metrics", "papers"},
    {"engine", "report", "attacks"},
    {"config"},
    {"runs"},
    {"evaluation"},
    {"detector", "reproduce"},
    {"commands"},
]
NEVER = {("engine", "papers"), *(("attacks", other) for other in ("scores", "data", "metrics", "papers"))}


def _imports(source: str) -> set[str]:
    """The packages and modules of farout that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "farout":
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("farout."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {name.name.split(".")[1] for name in node.names if name.name.startswith("farout.")}
    return found


def _level(package: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if package in layer)


def _not_below(package: str, source: str) -> list[str]:
    """What a file of `package` imports that does not stand below it."""
    others = sorted(_imports(source) - {package})
    return [other for other in others if _level(other) >= _level(package) or (package, other) in NEVER]


SOURCES = sorted((ROOT / "src/farout").rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src/farout")))
def test_imports_point_downwards(path: Path) -> None:
    package = path.relative_to(ROOT / "src/farout").parts[0].removesuffix(".py")
    if package != "__init__":
        assert _not_below(package, path.read_text()) == []


@pytest.mark.parametrize(
    ("package", "line", "refused"),
    [
        ("config", "from farout.runs.run import Run", ["runs"]),
        ("runs", "def later():\n    import farout.reproduce.slices", ["reproduce"]),
        ("engine", "from farout import papers", ["papers"]),
        ("methods", "from farout.scores import MSP", ["scores"]),
        ("report", "from farout.engine.evaluate import collect", ["engine"]),
        ("runs", "from farout.config.settings import ROOT\nfrom farout.runs import inputs", []),
    ],
)
def test_an_import_upwards_or_sideways_is_found(package: str, line: str, refused: list[str]) -> None:
    assert _not_below(package, line) == refused


Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(source: str) -> list[Function]:
    """All functions and methods, inner ones too."""
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, Function)]


def _body_lines(function: Function) -> int:
    """Lines from the first statement to the last, without the docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def _parameters(function: Function) -> list[str]:
    """Names of the parameters but self and cls; *args and **kwargs are one each."""
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    rest = [each for each in (given.vararg, given.kwarg) if each is not None]
    return [each.arg for each in [*named, *rest] if each.arg not in ("self", "cls")]


def test_functions_are_short() -> None:
    """The median body under 10 lines, and no function over 60 with its signature and docstring."""
    found = {path: _functions(path.read_text()) for path in [*SOURCES, *sorted((ROOT / "scripts").rglob("*.py"))]}
    assert median(_body_lines(each) for own in found.values() for each in own) < 10
    assert [f"{path.name}: {f.name}" for path, own in found.items() for f in own if _all_lines(f) > 60] == []


def _all_lines(function: Function) -> int:
    return (function.end_lineno or 0) - function.lineno + 1


def test_functions_take_few_arguments() -> None:
    """At most 7: a group that travels is an object. Kernels of Triton, which know no objects, have more."""
    many = [
        f"{path.relative_to(ROOT)}: {function.name} takes {len(names)}"
        for path in SOURCES
        for function in _functions(path.read_text())
        if len(names := _parameters(function)) > 7
        and "triton.jit" not in map(ast.unparse, function.decorator_list)
        and (path.name, function.name) != ("fit.py", "fit")
    ]
    assert many == []


def test_lines_and_parameters_are_counted() -> None:
    text = 'def f(self, a, b=1, *rest, c, **more):\n    """Says\n    what."""\n    x = a\n\n    return x\n'
    (function,) = _functions(text)
    assert (_body_lines(function), _all_lines(function)) == (3, 6)
    assert _parameters(function) == ["a", "b", "c", "rest", "more"]


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")


def _imported_modules(path: Path, known: set[str]) -> set[str]:
    """Modules of the package that one names in an import, wherever it stands; but the lazy exports of `farout`."""
    if path == ROOT / "src/farout/__init__.py":
        return set()
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: a relative import"
            names = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {full if full in known else node.module for full in names.values()}
    return found & known


def _circle(sources: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, from one back to itself; empty where there is none."""
    sorter = graphlib.TopologicalSorter(sources)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_import_goes_round_in_a_circle() -> None:
    known = {_module(path): path for path in SOURCES}
    imports = {name: _imported_modules(path, set(known)) for name, path in known.items()}
    assert len(imports["farout.data.store"]) > 5, "imports are seen, so the next line can fail"
    assert _circle(imports) == []
    assert set(_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


def test_only_work_on_the_repository_asks_where_it_lies() -> None:
    """All else asks `farout.places` for files of conf/ and for folders: a wheel has no repository."""
    folders = {"commands/bench.py", "commands/verdicts.py", "reproduce/pages.py", "reproduce/paper_page.py"}
    folders |= {"commands/torturing/process.py", "commands/torturing/disks.py"}
    folders |= {"commands/benchmark/page.py", "commands/benchmark/start_up.py", "runs/environment.py"}
    named = {"places.py", "config/settings.py"}  # where it is defined, and handed on to tests
    asking = {
        path.relative_to(ROOT / "src/farout").as_posix()
        for path in SOURCES
        if re.search(r"\bROOT\b|parents\[[23]\]", path.read_text())
    }
    assert asking == folders | named


WRITERS = {"os.replace", "os.rename", "os.link", "shutil.copy", "shutil.copy2", "shutil.copyfile", "shutil.copytree"}
METHODS = {"write_text", "write_bytes", "rename"}  # of a path


def _writes(source: str) -> list[str]:
    """The calls that write, rename or copy a file, as far as names and modes show; os.devnull is none."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [text for call in calls if _is_write(call) and "os.devnull" not in (text := ast.unparse(call))]


def _is_write(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    if name.rpartition(".")[2] == "open":
        modes = [
            part.value for part in ast.walk(call) if isinstance(part, ast.Constant) and isinstance(part.value, str)
        ]
        in_place = any(word.arg == "fileobj" for word in call.keywords)
        return not in_place and any(re.fullmatch(r"(?=.*[wxa+])[rwxabt+]{1,3}", mode) for mode in modes)
    return name in WRITERS or (isinstance(call.func, ast.Attribute) and call.func.attr in METHODS)


def test_files_are_written_by_one_module_alone() -> None:
    found = {path.relative_to(ROOT): _writes(path.read_text()) for path in SOURCES}
    assert found.pop(Path("src/farout/files.py")), "writing is seen, so the next line can fail"
    assert {path: calls for path, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    ("line", "writes"),
    [
        ("path.open('wb')", True),
        ("open(path, mode='a')", True),
        ("path.write_text('x')", True),
        ("shutil.copyfile(a, b)", True),
        ("path.open('rb')", False),
        ("write_text(path, 'x')", False),
        ("tarfile.open(fileobj=archive, mode='w')", False),
    ],
)
def test_a_write_is_told_from_a_read(line: str, writes: bool) -> None:
    assert bool(_writes(line)) == writes


def _pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _name(requirement: str) -> str:
    return re.split(r"[<>=!\[; ]", requirement)[0].lower().replace("_", "-")


def test_environment_yml_agrees_with_pyproject() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    project = _pyproject()["project"]
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    assert f"python {project['requires-python']}" in plain
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["-c constraints.txt", "-e .[dev]"]
    assert environment["name"] == project["name"]


def test_constraints_lock_every_dependency_by_name_and_version_only() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!-]+", line) for line in lines)
    locked = {_name(line) for line in lines}
    project = _pyproject()["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert {_name(item) for item in wanted} <= locked


def test_make_alone_lists_every_target() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE):
        assert re.search(rf"^\s+{target}\s", shown, flags=re.MULTILINE), target


def test_make_env_takes_pytorch_from_where_it_is_told() -> None:
    """Before all else and without what it depends on: the rest comes from the usual place, and finds it there."""
    command = ["make", "-n", "env", "VENV=/nowhere/venv"]
    usual, told = (
        [line for line in subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
         if "pip install" in line and "--upgrade" not in line]
        for words in (command, [*command, "TORCH_INDEX=https://index.invalid/cpu"])
    )  # fmt: skip
    assert len(usual) == 1 and usual[0].endswith('-c constraints.txt -e ".[dev]"')
    assert told[1:] == usual
    assert told[0].endswith('-c constraints.txt --no-deps --index-url "https://index.invalid/cpu" torch torchvision')


def test_ci_calls_make_and_nothing_else() -> None:
    commands = [
        line for line in (ROOT / ".ci/run").read_text().splitlines() if line.strip() and not line.startswith("#")
    ]
    assert commands[:2] == ["set -euo pipefail", 'cd "$(dirname "$0")/.."']
    assert all(command.startswith("make ") for command in commands[2:])
    assert commands[-1] == "make test"


def test_no_large_file_and_no_machine_path_is_tracked() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    for name in filter(None, listed):
        path = ROOT / name
        if not path.is_file():
            continue
        assert path.stat().st_size <= 1_000_000, name
        if path.suffix in {".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".json"} and "vectors" not in name:
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"(?<![\w.])/(root|home|tmp|work)/\w", text), name


def test_the_package_runs_from_a_checkout_that_was_never_installed() -> None:
    """Metadata is there for installed packages alone: nothing may ask for it."""
    asking = [path for path in (ROOT / "src").rglob("*.py") if "importlib.metadata" in path.read_text()]
    assert not asking
