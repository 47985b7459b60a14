"""CONTRIBUTING.md names what is there, and its example is executed; hooks, editor settings and decisions are whole."""

import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
PAGES = [ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md", "docs/install.md")]
PAGES += sorted((ROOT / "docs/decisions").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_the_files_that_it_names_are_there():
    prose = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    named = re.findall(r"`((?:src|conf|tests|scripts|docs|results)/[\w./-]*)`", prose)
    assert len(named) > 25
    for name in named:
        if not re.search(r"[A-Z]{3}", name):  # NAME, SCALE, ID_ROW stand for something
            assert (ROOT / name).exists(), name
    for target in re.findall(r"make ([a-z-]+)", TEXT):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), target


def test_attributes_of_contracts_that_it_names_exist():
    from farout import Method, Score

    for section, kind in (("Add a method", Method), ("Add a score", Score)):
        text = TEXT.split(f"## {section}\n")[1].split("\n## ")[0]
        words = re.findall(r"`([a-z_]{4,})`", text)
        known = {"total", "_target_"}
        missing = [word for word in words if word not in known and not hasattr(kind, word)]
        assert [word for word in missing if word not in kind.__annotations__] == [], section


@pytest.mark.e2e
def test_the_example_works(tmp_path):
    for name in ("src", "conf", "train.py"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    blocks = re.findall(r"```(\w+)\n(.*?)```", TEXT.split("## Add a network\n")[1].split("\n## ")[0], flags=re.DOTALL)
    assert [kind for kind, _ in blocks] == ["python", "yaml", "bash"]
    for _, text in blocks[:2]:
        place = re.search(r"^# ((?:src|conf)/\S+)$", text, flags=re.MULTILINE)
        assert place is not None and not (tmp_path / place.group(1)).exists()
        (tmp_path / place.group(1)).write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "FAROUT_DATA": str(tmp_path / "data")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run(
        blocks[2][1], shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("outputs/runs/ce-small_conv-digits-*/results.json"))


def test_hooks_are_those_of_make_lint_and_fetch_nothing():
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    assert [hook["id"] for hook in local["hooks"]] == ["ruff-check", "ruff-format", "mypy"]
    assert {hook["language"] for hook in local["hooks"]} == {"system"}
    lint = (ROOT / "Makefile").read_text().split("\nlint:")[1].split("\n\n")[0]
    assert all(hook["name"] in lint for hook in local["hooks"])


def test_editors_and_ruff_agree_on_lines():
    settings = ConfigParser()
    settings.read_string("[top]\n" + (ROOT / ".editorconfig").read_text())
    assert f"line-length = {settings['*']['max_line_length']}" in (ROOT / "pyproject.toml").read_text()
    assert settings["Makefile"]["indent_style"] == "tab"


def test_every_decision_is_listed_and_says_what_it_costs():
    index = (ROOT / "docs/decisions/README.md").read_text()
    pages = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
    assert len(pages) >= 2
    for page in pages:
        assert page.name in index
        for part in ("**Decided.**", "**What it costs.**", "**Think again**"):
            assert part in page.read_text(), f"{page.name}: {part}"


def test_the_changelog_keeps_its_format():
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(.+?)\]", text, flags=re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert set(re.findall(r"^### (.+)$", text, flags=re.MULTILINE)) <= {
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
    }
