"""The documentation's site: built strictly and without a network, which its pages do not need either."""

import logging
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from filelock import FileLock

import farout
from farout.papers import load

ROOT = Path(__file__).resolve().parents[2]
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data", "image": "href"}
FETCHED = re.compile(r"(?:https?:)?//[\w.-]+\.\w+/[^\"'`\s)]*\.(?:m?js|css|woff2?|ttf|otf|png|jpe?g|svg|gif|wasm)\b")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CITED = ("energy", "oe", "jem", "cider")


class Page(HTMLParser):
    """What a page loads by itself, where its links lead, and the places in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.places |= {values[name] for name in ("id", "name") if name in values}
        if tag == "link" and values.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(values.get("href", ""))
        if tag in LOADING and LOADING[tag] in values:
            self.loads.append(values[LOADING[tag]])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """build/site as `make docs` makes it, elsewhere; one for all processes of a test run."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "site"
    with FileLock(f"{folder}.lock"):
        if not folder.with_suffix(".done").exists():
            _build(folder)
            folder.with_suffix(".done").touch()
    return folder


def _build(folder: Path) -> None:
    """Strictly: a warning is an error. Whatever reaches for the network fails."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    def refuse(*_given: object) -> None:
        raise AssertionError("the build asked for the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        patch.setattr(socket.socket, "connect", refuse)
        config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder))
        assert config.strict
        before = logging.getLogger("mkdocs").level
        try:
            build(config)
        finally:
            logging.getLogger("mkdocs").setLevel(before)


@pytest.fixture(scope="session")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def test_every_page_is_in_the_navigation_and_built(pages, site):
    assert len(pages) > 25
    named = re.findall(r": ([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    assert len(named) > 20
    for name in named:
        assert (site / name.replace("README.md", "index.md")).with_suffix(".html") in pages, name


def test_nothing_is_loaded_from_elsewhere(pages, site):
    loads = {f"{path.name}: {load}" for path, page in pages.items() for load in page.loads}
    assert len(loads) > 100
    assert [load for load in loads if re.search(r": (?:[a-z]+:)?//", load)] == []
    for style in [*site.rglob("*.css"), *site.rglob("*.html")]:
        assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text()) == [], style
    for script in site.rglob("*.js"):
        if script.parent.name != "search":  # the texts of the pages, which are searched and not loaded
            assert FETCHED.findall(script.read_text()) == [], script
            assert "unpkg.com" not in script.read_text(), script


def test_loads_from_elsewhere_are_seen():
    page = Page(
        '<link rel="preconnect" href="https://a.b"><script src="//cdn.c/x.js"></script><img src="https://d.e/f">'
    )
    assert page.loads == ["https://a.b", "//cdn.c/x.js", "https://d.e/f"]
    assert FETCHED.findall('load("https://unpkg.com/mermaid@11/dist/mermaid.min.js")')
    assert not FETCHED.findall("see https://clipboardjs.com/")


def test_every_link_leads_somewhere(pages):
    broken = []
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            known = target.exists() and (target not in pages or _there(pages[target], unquote(parts.fragment)))
            broken += [] if known else [f"{path.name}: {link}"]
    assert broken == []


def _there(page: Page, fragment: str) -> bool:
    return not fragment or fragment in page.places or fragment.startswith("__")


def test_every_public_name_has_its_place(pages, site):
    names = {f"farout.{name}" for name in farout.__all__ if name != "__version__"}
    assert names - pages[site / "api.html"].places == set()


def test_every_set_score_and_protocol_is_on_its_page():
    for group, page in (("dataset", "data"), ("ood_data", "data"), ("score", "scores"), ("protocol", "scores")):
        text = (ROOT / f"docs/{page}.md").read_text()
        missing = [path.stem for path in (ROOT / "conf" / group).glob("*.yaml") if f"`{path.stem}`" not in text]
        assert missing == [], f"conf/{group}"


def test_equations_are_mathml_and_files_outside_are_pages(site):
    for paper in CITED:
        assert (site / f"papers/{paper}.html").read_text().count("<math ") >= 2
    assert "Keep a Changelog" in (site / "changelog.html").read_text()
    assert "SmoothedCrossEntropy" in (site / "extending.html").read_text()
    assert "commands/entry" in (site / "map.html").read_text()
    records = {path.name for path in (ROOT / "results").glob("*.json")}
    assert {path.name for path in (site / "results").iterdir()} == records


@pytest.fixture(scope="module")
def hooks():
    import importlib.util

    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs/site_hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "url", "shown"),
    [
        ("[a](../verdicts.md#how-a-verdict-is-made)", None, "[a](../verdicts.md#how-a-verdict-is-made)"),
        ("[log](../../CHANGELOG.md)", None, "[log](../changelog.md)"),
        ("[it](../../README.md)", None, "[it](../index.md)"),
        ("[all](../../results)", None, "[all](../records.md)"),
        ("[cpu](../../results/bench-cpu.json)", None, "[cpu](../results/bench-cpu.json)"),
        ("[why](../../conf/train.yaml)", None, "why (`conf/train.yaml`)"),
        ("[`papers`](../../src/farout/papers)", None, "`src/farout/papers/`"),
        ("[why](../../conf/train.yaml)", "https://host/o/r/", "[why](https://host/o/r/blob/HEAD/conf/train.yaml)"),
        ("`[x](nowhere)` [y](https://z) [here](#there)", None, "`[x](nowhere)` [y](https://z) [here](#there)"),
        ("```\n[x](nowhere)\n```", None, "```\n[x](nowhere)\n```"),
        ("![p](../figures/growth.svg)", None, "![p](../figures/growth.svg)"),
    ],
)
def test_links_lead_to_what_the_site_has(hooks, text, url, shown):
    assert hooks.relinked(text, ROOT / "docs/papers", "papers/energy.md", url) == shown


def test_a_link_to_nothing_ends_the_build(hooks):
    from mkdocs.exceptions import PluginError

    with pytest.raises(PluginError, match="not there"):
        hooks.relinked("[a](nowhere.md)", ROOT / "docs/papers", "papers/energy.md", None)


@pytest.fixture(scope="module")
def found(site, tmp_path_factory) -> Iterator[str]:
    """The page after a search, opened as a file by a browser that reaches no host."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium: `make browser` installs it")
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --dump-dom"
    profile = f"--user-data-dir={tmp_path_factory.mktemp('profile')}"
    command = [program, *flags.split(), "--virtual-time-budget=8000", "--host-resolver-rules=MAP * ~NOTFOUND", profile]
    address = f"file://{site}/index.html?q=prototypes"
    yield subprocess.run([*command, address], capture_output=True, text=True, timeout=120, check=True).stdout


def test_search_works_in_files_without_a_server(found):
    assert "matching documents" in found
    assert found.count('class="md-search-result__item"') >= 3


def test_citation_has_the_papers_and_the_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited.keys() >= {"cff-version", "message", "title", "authors", "references"}
    assert cited["version"] == farout.__version__ and cited["license"] == "MIT"
    titles = [load(name).title for name in CITED]
    assert [each["title"] for each in cited["references"]] == titles
    assert all(each.keys() >= {"type", "title", "authors", "year"} for each in cited["references"])
    bibtex = (ROOT / "docs/citation.md").read_text()
    assert re.findall(r"^  title     = \{(.+)\},$", bibtex, flags=re.MULTILINE) == titles
