"""Every code block of the pages is executed, here or by the test that it names, or says why not; commands exist."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import yaml

from documents import ROOT, Block, blocks, check_command, commands
from farout.errors import ConfigError
from worked_examples import copy_of_the_repository, run_line

PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCKS = [block for page in PAGES for block in blocks(page)]
EXAMPLES = {"README.md": "", "CONTRIBUTING.md": "Add a network"}  # sections with files of their own
# These run their blocks, which are about files that are not there yet, or in which something fails.
EXECUTED = {"tests/docs/test_extending.py", "tests/commands/test_sweeps.py"}
OWN = re.compile(r"^# conf/dataset/(\w+)\.yaml$", flags=re.MULTILINE)  # a set that a page defines
LANGUAGES = {"bash", "python", "yaml", "math", "bibtex", ""}
SHELL = re.compile(r"^(?:python|make|pip|git) ", flags=re.MULTILINE)


def _of(language: str, mark: str | None = None) -> list[Block]:
    return [block for block in BLOCKS if block.language == language and mark in (None, block.mark)]


def test_every_fence_is_of_a_known_kind():
    assert [str(block) for block in BLOCKS if block.language not in LANGUAGES] == []
    assert [str(block) for block in _of("") if SHELL.search(block.text)] == [], "a shell's lines are ```bash"
    for page in PAGES:
        text = page.read_text()
        assert len(re.findall(r"^ *```", text, flags=re.MULTILINE)) == 2 * len(blocks(page)), page
        assert len(re.findall(r"^<!-- (?:not run|run by):", text, flags=re.MULTILINE)) == sum(
            bool(block.mark) for block in blocks(page)
        ), f"{page}: a mark stands right above its block"


def test_what_is_not_run_says_why_and_who_runs_it():
    assert len(_of("bash", "not run")) > 10
    for block in BLOCKS:
        if block.mark == "not run":
            assert block.language in ("bash", "python") and len(block.says.split()) >= 3, block
        if block.mark == "run by":
            assert "\ndef test_" in (ROOT / block.says).read_text(), block


@pytest.mark.parametrize("block", _of("python"), ids=str)
def test_python_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for what it writes
    code = compile(block.text, str(block), "exec", flags=0, dont_inherit=True)
    if not block.mark:
        exec(code, {"__name__": "page"})
        return
    import farout

    names = {
        node.attr
        for node in ast.walk(ast.parse(block.text))
        if ast.unparse(node).startswith("farout.")
        and isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
    }
    assert names <= set(farout.__all__), block


@pytest.mark.parametrize("block", _of("yaml"), ids=str)
def test_yaml_is_yaml(block):
    assert isinstance(yaml.safe_load(block.text), dict)


@pytest.fixture
def classes(tmp_path, monkeypatch):
    """A folder with the list of classes that a command names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagenet100.txt").write_text("\n".join(f"n{i:08}" for i in range(100)))


@pytest.mark.usefixtures("classes")
def test_every_command_of_the_pages_composes_or_parses():
    for block in _of("bash"):
        for words in commands(block.text) if block.says not in EXECUTED else ():
            _check(words, block)


@pytest.mark.usefixtures("classes")
def test_every_command_of_readme_and_contributing_composes_or_parses():
    """But for the worked examples, which are executed: they are about files that are not there yet."""
    for page, examples in EXAMPLES.items():
        before, _, rest = (ROOT / page).read_text().partition(f"\n## {examples}\n") if examples else ("", "", "")
        worked = range(before.count("\n"), (before + rest.partition("\n## ")[0]).count("\n"))
        for block in blocks(ROOT / page):
            for words in commands(block.text) if block.language == "bash" and block.line not in worked else ():
                _check(words, block)


def _check(words: list[str], block: Block) -> None:
    own = [name for other in BLOCKS if other.page == block.page for name in OWN.findall(other.text)]
    try:
        check_command([re.sub(rf"\b({'|'.join(own)})\b", "textures", word) if own else word for word in words])
    except (AssertionError, ConfigError) as error:
        raise AssertionError(f"{block}: {shlex.join(words)}: {error}") from error


@pytest.mark.parametrize(
    "line",
    [
        "python train.py method=nope",
        "python train.py -m method=energy m_in=-25,3",
        "python eval.py score=[msp,nope]",
        "python scripts/nope.py",
        "python scripts/detect.py --nope",
        "python scripts/campaign.py --table energy a=[",
        "make nope",
        "make bench NOPE=1",
        "rm -r docs",
    ],
)
def test_a_command_that_is_none_is_found(line):
    (words,) = commands(line)
    with pytest.raises((AssertionError, ConfigError)):
        check_command(words)


@pytest.mark.e2e
def test_the_shell_blocks_without_a_mark_run(tmp_path: Path) -> None:
    copy_of_the_repository(tmp_path)
    lines = [line for block in _of("bash", "") for line in block.text.splitlines()]
    assert len(lines) >= 2
    for line in lines:
        run_line(line, tmp_path)
