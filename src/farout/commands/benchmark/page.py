"""docs/speed.md: its tables are written from results/bench-*.json, the words around them by people."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farout.commands.benchmark.growth_figure import growth_figure
from farout.errors import FaroutError
from farout.files import load_object, write_text
from farout.places import ROOT
from farout.report.figures.style import svg_text

SPEED = ROOT / "docs/speed.md"
BEGIN, END = "<!-- written from results/bench-*.json by make bench -->", "<!-- end of what make bench writes -->"
FIGURE = "figures/growth.svg"
GROWTH = [
    "How it grows: the slope of log seconds over log size, 1 being linear; over all sizes, and over the last doubling.",
    "",
    "| what | sizes | seconds | slope | last |",
    "|---|---|---|---:|---:|",
]
NOTHING = "No whole run has been recorded yet: `make bench`, `make bench DEVICE=cuda`."
Record = Mapping[str, Any]


def update_page(page: Path, results: Path) -> None:
    """Write the tables and the picture of growth anew; raises FaroutError where the page has no place for them."""
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise FaroutError(f"{page} has no place for the tables: it needs the lines {BEGIN} and {END}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    records = read_records(results)
    write_text(page, f"{before}{BEGIN}\n\n{rendered(records)}\n{END}{after}")
    if growth := {name: lines for name, record in records.items() if (lines := grown(record))}:
        write_text(page.parent / FIGURE, svg_text(growth_figure(growth)))


def read_records(results: Path) -> dict[str, Record]:
    """Device -> what was measured there."""
    return {
        path.stem.removeprefix("bench-"): load_object(path, "measure again: make bench")
        for path in sorted(results.glob("bench-*.json"))
    }


def grown(record: Record) -> list[Record]:
    """The lines of a record that say how cost grows."""
    return [line for line in record["lines"] if "slope" in line]


def rendered(records: Mapping[str, Record]) -> str:
    """All tables."""
    picture = [f"![How cost grows]({FIGURE})\n"] if any(map(grown, records.values())) else []
    tables = [_device(name, record) for name, record in records.items()]
    return "\n".join([*tables, *picture]) or f"{NOTHING}\n"


def _device(name: str, record: Record) -> str:
    """A device's heading, its circumstances and its table."""
    where = f"{record['device']}, PyTorch {record['torch']}, {record['threads']} threads of {record['cores']} cores"
    when = f"{record['date']}, commit {record['commit']}"
    how = ", training steps compiled" if record["compiled"] else ""
    head = f"### {name}\n\n{where}; {when}{how}. `python scripts/bench.py{_options(name, record)}`\n"
    table = ["| what | ours | against | ratio |", "|---|---|---|---:|"]
    gaps = []
    for line in record["lines"]:
        if "not_measured" in line:
            gaps.append(f"- {line['part']}: {line['name']}: {line['not_measured']}")
        elif "slope" not in line:
            table.append(_row(line))
    parts = [head, "\n".join(table), ""]
    if growth := grown(record):
        parts += [*GROWTH, *map(_growth_row, growth), ""]
    if gaps:
        parts += ["Not measured there:", "", *gaps, ""]
    return "\n".join(parts)


def _options(name: str, record: Record) -> str:
    return ("" if name == "cpu" else " --device cuda") + (" --compile" if record["compiled"] else "")


def _row(line: Record) -> str:
    what = f"{line['part']}: {line['name']} ({line['scale']}; {line['agreement']})"
    sides = (f"{side['what']}: {amounts(side, line['unit'])}" for side in (line["ours"], line["baseline"]))
    return f"| {what} | {' | '.join(sides)} | {line['ratio']:.2f} |"


def _growth_row(line: Record) -> str:
    first, last = line["points"][0], line["points"][-1]
    sizes = f"{first['size']:,} to {last['size']:,} {line['by']}"
    seconds = f"{amounts(first, 's')} to {amounts(last, 's')}"
    return (
        f"| {line['name']} ({line['scale']}) | {sizes} | {seconds} | {line['slope']:.2f} | {line['last_slope']:.2f} |"
    )


def amounts(side: Record, unit: str) -> str:
    """The least, and the median in brackets, in a unit that suits them."""
    least, middle = side["min"], side["median"]
    if unit == "MiB":
        return f"{least:,.0f} MiB"
    if least >= 1:
        return f"{least:.2f} s ({middle:.2f})"
    return f"{_milliseconds(least)} ms ({_milliseconds(middle)})"


def _milliseconds(seconds: float) -> str:
    """Three digits, and never a power of ten: a median may exceed a second where the least does not."""
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
