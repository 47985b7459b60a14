"""What the documentation's site does beside MkDocs: pages from files outside docs/, links to them, equations, search.

MkDocs calls the functions named on_*. The Markdown of docs/ is written to be read in a repository too: its links may
lead anywhere there. On the site a link leads to a page where there is one, records are copied, and other files are
named by their path, or linked where `repo_url` says where the repository is.
"""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = {  # files outside docs/ that are pages of the site
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "results/README.md": "records.md",
}
FRONT = "index.md"  # in README.md's place
LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^()\s]+)\)")
CODE = re.compile(r"(^(?P<fence>```+|~~~+).*?^(?P=fence)[ \t]*$|`[^`\n]+`)", flags=re.MULTILINE | re.DOTALL)
ELSEWHERE = (
    "https://unpkg.com/"  # the theme fetches from there what old browsers and diagrams need, and we have neither
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fences of `math` become MathML, which browsers draw without scripts."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {})
    fences["custom_fences"] = [{"name": "math", "class": "math", "format": equation}]
    return config


def equation(source: str, *_given: object, **_more: object) -> str:
    """LaTeX -> an element with MathML, one equation a line."""
    return "".join(f'<div class="equation">{convert(line, display="block")}</div>' for line in source.splitlines())


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/, and the records."""
    for name, uri in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / name)))
    for record in sorted((ROOT / "results").glob("*.json")):
        files.append(File.generated(config, f"results/{record.name}", abs_src_path=str(record)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where the site has what they mean."""
    uri = page.file.src_uri
    base = DOCS / uri
    for name, own in PAGES.items():
        base = ROOT / name if own == uri else base
    return relinked(markdown, base.parent, uri, config.repo_url)


def relinked(markdown: str, folder: Path, uri: str, repo_url: str | None) -> str:
    """Markdown of a file in `folder`, with links as the page `uri` needs them; code stays as it is."""

    def link(found: re.Match[str]) -> str:
        target = found["target"]
        if re.match(r"[a-z]+:|#", target):
            return found[0]
        path, _, fragment = target.partition("#")
        place = destination((folder / path).resolve(), fragment)
        if place is not None:
            return f"{found['image']}[{found['text']}]({posixpath.relpath(place, posixpath.dirname(uri))})"
        return outside(found["text"], (folder / path).resolve(), repo_url)

    return outside_code(markdown, lambda text: LINK.sub(link, text))


def outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """Change what is neither a fenced block nor a code span, unless the span is a link's own text."""
    kept: list[str] = []

    def away(found: re.Match[str]) -> str:
        kept.append(found[0])
        return f"\0{len(kept) - 1}\0"

    changed = change(CODE.sub(away, markdown))
    return re.sub("\0(\\d+)\0", lambda found: kept[int(found[1])], changed)


def destination(path: Path, fragment: str) -> str | None:
    """Where the site has a place of the repository, as MkDocs names it; None where it does not have it.

    Raises PluginError for a file that is not there.
    """
    if not path.exists():
        raise PluginError(f"a link leads to {path}, which is not there")
    name, mark = path.relative_to(ROOT).as_posix(), f"#{fragment}" if fragment else ""
    if name == "README.md":
        return FRONT
    if path.is_relative_to(DOCS) and path.is_file() and path.suffix != ".py":
        return path.relative_to(DOCS).as_posix() + mark
    if name in PAGES or f"{name}/README.md" in PAGES:
        return (PAGES.get(name) or PAGES[f"{name}/README.md"]) + mark
    return name if path.parent == ROOT / "results" else None


def outside(text: str, path: Path, repo_url: str | None) -> str:
    """A file that the site does not have: a link into the repository, or its path."""
    name = path.relative_to(ROOT).as_posix() + ("/" if path.is_dir() else "")
    if repo_url:
        return f"[{text}]({repo_url.rstrip('/')}/blob/HEAD/{name})"
    return f"`{name}`" if "\0" in text and " " not in text else f"{text} (`{name}`)"


def on_post_build(config: MkDocsConfig) -> None:
    """Search for pages that are opened as files, and nothing of the theme's own that would ask the network."""
    site = Path(config.site_dir)
    index = (site / "search/search_index.json").read_text(encoding="utf-8")
    (site / "search/search_index.js").write_text(f"var __index = {index}", encoding="utf-8")
    for script in site.glob("assets/javascripts/bundle.*.js"):
        script.write_text(script.read_text(encoding="utf-8").replace(ELSEWHERE, "absent/"), encoding="utf-8")
    for unused in [*site.glob("assets/javascripts/lunr/**/*.js"), *site.glob("assets/**/*.map")]:
        unused.unlink()
