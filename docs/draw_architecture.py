"""Draws docs/figures/architecture.svg: the rooms of the package, from the imports in its source. `make architecture`.

A room is a folder of src/farout or a module beside them. Above each room stand those that import it; an arrow is an
import that no longer way explains (the transitive reduction), so every import of the code runs along arrows, downwards.
The same source always gives the same bytes.
"""

import ast
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

from farout.files import write_text

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs/figures/architecture.svg"
ENTRIES = {"train.py, eval.py": ["train.py", "eval.py"], "scripts/": ["scripts"]}
PURPOSES = {"train.py, eval.py": "Train, evaluate: Hydra's command line.", "scripts/": "Doors to all other commands."}

BOX, GAP, BEND = 172, 14, 16  # widths: of a room, between neighbours, of an arrow that passes a row
TALL, BETWEEN, MARGIN = 86, 44, 16
LINE, TEXT_WIDTH = 13, 28  # pixels and characters of a room's description
Imports = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Room:
    """A part of the package, by what its own docstring says of it."""

    name: str
    purpose: str
    imports: frozenset[str]


def rooms(root: Path) -> list[Room]:
    """Everything below src/farout, and what stands before it, in alphabetical order."""
    source = root / "src/farout"
    places = {path.stem: path for path in sorted(source.iterdir()) if path.suffix == ".py" and path.stem != "__init__"}
    places |= {f"{path.name}/": path for path in sorted(source.iterdir()) if (path / "__init__.py").is_file()}
    files = {name: _python_files([path]) for name, path in places.items()}
    files |= {name: _python_files([root / part for part in parts]) for name, parts in ENTRIES.items()}
    names = {name.removesuffix("/"): name for name in places}
    found = []
    for name, paths in sorted(files.items()):
        own = frozenset(names[part] for part in _imported(paths) if part in names and names[part] != name)
        found.append(Room(name, PURPOSES.get(name) or _first_sentence(places[name]), own))
    return found


def _python_files(places: Sequence[Path]) -> list[Path]:
    return [file for place in places for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]


def _imported(paths: Sequence[Path]) -> set[str]:
    """The parts of farout that these files import, at whatever place in them, but for type checkers alone."""
    found: set[str] = set()
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        hidden = {id(inner) for node in ast.walk(tree) if _only_for_types(node) for inner in ast.walk(node)}
        for node in (node for node in ast.walk(tree) if id(node) not in hidden):
            if isinstance(node, ast.ImportFrom) and node.module:
                modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            else:
                continue
            found |= {module.split(".")[1] for module in modules if module.startswith("farout.")}
    return found


def _only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _first_sentence(place: Path) -> str:
    """What a module or package says of itself, up to the first full stop."""
    file = place / "__init__.py" if place.is_dir() else place
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    first = " ".join(text.split("\n\n")[0].replace("`", "").split())
    return first.partition(". ")[0].removesuffix(".")


def rows_of(imports: Imports) -> dict[str, int]:
    """The row of each room, 0 at the top: one below the lowest of those that import it.

    Raises ValueError where rooms import each other in a circle.
    """
    users = {name: {other for other, own in imports.items() if name in own} for name in imports}
    rows: dict[str, int] = {}
    while len(rows) < len(imports):
        ready = [name for name in imports if name not in rows and users[name] <= rows.keys()]
        if not ready:
            raise ValueError(f"imports run in a circle among {', '.join(sorted(imports.keys() - rows.keys()))}")
        rows |= {name: max((rows[user] + 1 for user in users[name]), default=0) for name in ready}
    return rows


def direct_only(imports: Imports) -> list[tuple[str, str]]:
    """The imports that no longer way explains."""
    below: dict[str, frozenset[str]] = {}
    for name in sorted(imports, key=rows_of(imports).__getitem__, reverse=True):
        below[name] = imports[name].union(*(below[other] for other in imports[name]))
    return sorted(
        (name, other)
        for name, own in imports.items()
        for other in own
        if not any(other in below[between] for between in own - {other})
    )


def ways(arrows: Sequence[tuple[str, str]], rows: Mapping[str, int]) -> list[list[str]]:
    """Every arrow as its stations from row to row; where it passes rooms, the station is named after the arrow."""
    return [
        [start, *(f"{start}>{end}@{row}" for row in range(rows[start] + 1, rows[end])), end] for start, end in arrows
    ]


def arranged(paths: Sequence[Sequence[str]], rows: Mapping[str, int]) -> list[list[str]]:
    """Rooms and stations of every row from left to right, such that neighbours in a path stand close to each other."""
    table: list[list[str]] = [[] for _ in range(max(rows.values()) + 1)]
    for name in sorted(rows):
        table[rows[name]].append(name)
    near: dict[str, set[str]] = {name: set() for name in rows}
    for path in paths:
        for i, station in enumerate(path[1:-1], rows[path[0]] + 1):
            table[i].append(station)
        for one, other in pairwise(path):
            near.setdefault(one, set()).add(other)
            near.setdefault(other, set()).add(one)
    for sweep in range(24):
        order = range(1, len(table)) if sweep % 2 == 0 else range(len(table) - 2, -1, -1)
        for i in order:
            at, other_row = centres(table), set(table[i - 1 if sweep % 2 == 0 else i + 1])
            wish = {name: _mean(at, near[name] & other_row, name) for name in table[i]}
            table[i] = [name for _, name in sorted((place, name) for name, place in wish.items())]
    return table


def _mean(at: Mapping[str, float], names: set[str], own: str) -> float:
    return round(sum(at[name] for name in sorted(names)) / len(names), 3) if names else at[own]


def centres(table: Sequence[Sequence[str]]) -> dict[str, float]:
    """The horizontal centre of everything in the rows, each row in the middle of the picture."""
    widths = [[BEND if "@" in name else BOX for name in row] for row in table]
    widest = max(sum(row) + GAP * (len(row) - 1) for row in widths)
    found = {}
    for row, sizes in zip(table, widths, strict=True):
        left = MARGIN + (widest - sum(sizes) - GAP * (len(sizes) - 1)) / 2
        for name, size in zip(row, sizes, strict=True):
            found[name] = left + size / 2
            left += size + GAP
    return found


def drawn(found: Sequence[Room]) -> str:
    """The picture as SVG."""
    imports = {room.name: room.imports for room in found}
    rows = rows_of(imports)
    paths = ways(direct_only(imports), rows)
    table = arranged(paths, rows)
    at = centres(table)
    top = {name: MARGIN + i * (TALL + BETWEEN) for i, row in enumerate(table) for name in row}
    width = max(at.values()) + BOX / 2 + MARGIN
    height = MARGIN + len(table) * (TALL + BETWEEN) - BETWEEN + MARGIN
    parts = [_arrow(path, at, top) for path in paths] + [_box(room, at, top) for room in found]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" font-family="system-ui, sans-serif" role="img">\n'
        "<title>The rooms of farout, each above those that it imports</title>\n"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#6b7a90"/></marker></defs>\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{"".join(parts)}</svg>\n'
    )


def _arrow(path: Sequence[str], at: Mapping[str, float], top: Mapping[str, float]) -> str:
    """From the lower edge of the first room, past the stations, to the upper edge of the last."""
    x, y = at[path[0]], top[path[0]] + TALL
    steps = [f"M{x:.1f} {y}"]
    for name in path[1:]:
        new, upper = at[name], top[name]
        steps.append(f"C{x:.1f} {y + BETWEEN / 2} {new:.1f} {upper - BETWEEN / 2} {new:.1f} {upper}")
        x, y = new, upper
        if "@" in name:
            y += TALL
            steps.append(f"L{x:.1f} {y}")
    return (
        f'<path d="{"".join(steps)}" fill="none" stroke="#6b7a90" stroke-width="1.2" marker-end="url(#tip)">'
        f"<title>{escape(path[0])} imports {escape(path[-1])}</title></path>\n"
    )


def _box(room: Room, at: Mapping[str, float], top: Mapping[str, float]) -> str:
    x, y = at[room.name] - BOX / 2, top[room.name]
    lines = textwrap.wrap(room.purpose, TEXT_WIDTH, max_lines=4, placeholder=" ...")
    text = "".join(
        f'<text x="{x + 9:.1f}" y="{y + 34 + LINE * i}" font-size="10.5" fill="#45526a">{escape(line)}</text>'
        for i, line in enumerate(lines)
    )
    used = ", ".join(sorted(room.imports)) or "nothing of farout"
    return (
        f'<g><title>{escape(room.name)} imports {escape(used)}</title><rect x="{x:.1f}" y="{y}" width="{BOX}" '
        f'height="{TALL}" rx="6" fill="#f3f6fb" stroke="#41628f"/><text x="{x + 9:.1f}" y="{y + 18}" font-size="13" '
        f'font-weight="600" fill="#1b2a41">{escape(room.name)}</text>{text}</g>\n'
    )


def main() -> int:
    """Write the picture."""
    write_text(PICTURE, drawn(rooms(ROOT)))
    print(PICTURE.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
