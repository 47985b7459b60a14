"""Reading a report's page as a test does: its tables, words, ids and links."""

from collections import Counter
from html.parser import HTMLParser


class Reader(HTMLParser):
    """Tables as lists of rows, ids, attributes that could load something, and the words of the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.tags: Counter[str] = Counter()
        self.words = ""
        self._rows: list[list[str]] = []
        self._inside: str | None = None
        self._caption = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} {name}"
            if name == "id":
                self.ids[value or ""] += 1
            if name in ("src", "href", "xlink:href", "srcset", "action"):
                self.links.append(value or "")
        if tag == "table":
            self._rows, self._caption = [], ""
        if tag == "tr":
            self._rows.append([])
        if tag in ("th", "td"):
            self._rows[-1].append("")
        if tag in ("th", "td", "caption", "style"):
            self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td", "caption", "style"):
            self._inside = None
        if tag == "table":
            self.tables.setdefault(self._caption or f"table {len(self.tables)}", self._rows)

    def handle_data(self, data: str) -> None:
        if self._inside in ("th", "td"):
            self._rows[-1][-1] += data
        elif self._inside == "caption":
            self._caption += data
        if self._inside != "style":
            self.words += data
