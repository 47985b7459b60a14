"""Code blocks of Markdown pages, and whether their commands are ones that there are: composed or parsed, never run.

A block that nothing executes says why, in a comment on the line above it: `<!-- not run: REASON -->`. One that a test
of its own executes names that test: `<!-- run by: FILE -->`.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from farout.commands import cli
from farout.commands.arguments import Parser
from farout.config.compose import check_overrides, compose_after
from script_loader import load_script

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"(?:^<!-- (not run|run by): ([^\n]+) -->\n)?^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
TARGET = re.compile(r"^([a-z0-9-]+):", flags=re.MULTILINE)
VARIABLE = re.compile(r"^([A-Z_]+) +\?=", re.MULTILINE)
OVERRIDE = re.compile(r"[+~]*[\w./@]+=")
OTHERS = {"source", "conda", "pip", "echo", "wandb"}  # programs that are not ours


@dataclass(frozen=True)
class Block:
    """A fenced block: `mark` is "not run" or "run by" with what it says, or both are empty."""

    page: str
    line: int
    mark: str
    says: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
    return [
        Block(name, text[: found.start(3)].count("\n") + 1, found[1] or "", found[2] or "", found[3], found[4])
        for found in FENCE.finditer(text)
    ]


def fences(text: str) -> list[tuple[str, str]]:
    """(language, content) of the fenced blocks in a part of a page."""
    return [(found[3], found[4]) for found in FENCE.finditer(text)]


def commands(text: str) -> Iterator[list[str]]:
    """The words of each line of a shell, without comments and variables set before it."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words = words[1:]
        if words:
            yield words


def check_command(words: Sequence[str]) -> None:
    """Raise where a command is none that there is, or where its own parser refuses its words."""
    program, *rest = words
    program = program.removeprefix(".venv/bin/")
    if program == "torchrun":  # what follows its own options is run by python
        program, rest = "python", rest[rest.index("train.py") :]
    if program == "make":
        _check_make(rest)
    elif program == "python" and rest[0] in ("train.py", "eval.py"):
        _check_job(rest[0].removesuffix(".py"), rest[1:])
    elif program == "python" and rest[:2] == ["-m", "pytest"]:
        assert all((ROOT / word).exists() for word in rest[2:] if word.startswith("tests")), rest
    elif program == "python":
        _check_script(rest[0], rest[1:])
    else:
        assert program in OTHERS, f"{program} is no command that is known here"


def _check_make(words: Sequence[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        name, sign, _ = word.partition("=")
        known = {*VARIABLE.findall(makefile), "PY"} if sign else set(TARGET.findall(makefile))
        assert name in known, f"make {word}"


def _check_job(root: str, words: Sequence[str]) -> None:
    """Composed and checked, every job of a sweep; folders of runs are examples, and left out."""
    _, options = cli.read(words)
    overrides = [word for word in options.overrides if not word.startswith(("run=", "init_from="))]
    jobs = [overrides]
    if cli.is_sweep(options):
        parsed = OverridesParser.create().parse_overrides([_discrete(word) for word in overrides])
        (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    for job in jobs:
        compose_after([], job, root, job if root == "eval" else None)


def _discrete(word: str) -> str:
    """A range to search, as Optuna's sweeper takes it, by its lower end."""
    return re.sub(r"=(?:tag\(\w+,)?interval\(([^,]+),.*", r"=\1", word)


class _Parsed(BaseException):
    """The parser is content."""


def _check_script(file: str, words: Sequence[str]) -> None:
    """Its own parser takes the words, and overrides among them can be read."""

    def stop(real: str):  # type: ignore[no-untyped-def]
        def parse(self: Parser, given: Sequence[str] | None = None) -> None:
            getattr(super(Parser, self), real)(given)
            raise _Parsed

        return parse

    assert (ROOT / file).is_file(), file
    check_overrides([word for word in words if OVERRIDE.match(word)])
    name = file.removeprefix("scripts/").removesuffix(".py")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(_Parsed):
        for real in ("parse_args", "parse_intermixed_args"):
            patch.setattr(Parser, real, stop(real), raising=False)
        assert load_script(name).main(list(words)) == 0, f"{file}: its parser refuses {' '.join(words)}"
