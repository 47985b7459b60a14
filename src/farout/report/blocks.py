"""Parts of Markdown pages that are written from results/, between two marks, in the midst of what people write."""

from collections.abc import Mapping
from pathlib import Path

from farout.errors import FaroutError
from farout.files import write_text

BEGIN, END = "<!-- begin {}: written by make verdicts, do not edit -->", "<!-- end {} -->"


def with_blocks(text: str, blocks: Mapping[str, str], page: Path) -> str:
    """The text with every block's content between its marks; raises FaroutError where the page lacks them."""
    for name, content in blocks.items():
        begin, end = BEGIN.format(name), END.format(name)
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
            raise FaroutError(f"{page} has no place for {name}: it needs the lines {begin} and {end}, once each")
        before, after = text.split(begin)[0], text.split(end)[1]
        text = f"{before}{begin}\n\n{content.strip()}\n\n{end}{after}"
    return text


def update_page(page: Path, blocks: Mapping[str, str]) -> bool:
    """Write the blocks anew; whether anything changed. Raises FaroutError as `with_blocks`."""
    known = page.read_text(encoding="utf-8")
    text = with_blocks(known, blocks, page)
    if text != known:
        write_text(page, text)
    return text != known


def is_current(page: Path, blocks: Mapping[str, str]) -> bool:
    """Whether the page has these very blocks."""
    known = page.read_text(encoding="utf-8")
    return with_blocks(known, blocks, page) == known


def pipe_table(head: list[str], rows: list[list[str]], numeric: int | None = None) -> str:
    """A Markdown table; columns from `numeric` on are right-aligned."""
    side = ["---" if numeric is None or i < numeric else "---:" for i in range(len(head))]
    lines = ([cell.replace("|", "\\|") for cell in cells] for cells in (head, side, *rows))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
