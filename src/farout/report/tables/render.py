"""Rendering a table: text for the terminal, Markdown and CSV.

OOD sets are lines, methods are columns, and each metric has a block: that fits 100 columns of a terminal.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from farout.papers import ReportedValue, Row
from farout.report.records import EvaluatedRun, name_of
from farout.report.tables.caption import shown_figures
from farout.report.tables.cells import INAPPLICABLE, NOT_RUN, Cell, Control, OODSet, Table, TableRow

TITLES = {
    "fpr95": "FPR95 (%, lower is better)",
    "auroc": "AUROC (%, higher is better)",
    "aupr": "AUPR (%, higher is better)",
    "separability": "Separability of OOD from ID (degrees, larger is better)",
    "accuracy": "accuracy",
    "ece": "ECE",
    "linear_probe": "linear probe accuracy",
    "nearest_class": "nearest class mean accuracy",
    "dispersion": "dispersion",
    "compactness": "compactness",
    "inception_score": "IS",
    "fid": "FID",
}
LOWER_IS_BETTER = ("fpr95", "ece", "compactness", "fid")
USUAL_WIDTH = 120  # columns of text where there is no terminal
UNCONFIRMED = "recalled, unconfirmed"
STYLES = {"ours": "", "paper": "dim", "difference": "italic cyan"}


@dataclass(frozen=True)
class Line:
    """One line of a block: `kind` is ours, paper, difference, or empty; `best` are the columns to stress."""

    label: str
    kind: str
    cells: Sequence[str]
    best: Sequence[int] = ()


@dataclass(frozen=True)
class Block:
    """A small table that fits a terminal: a title, the names of the columns, and lines."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Line]
    numeric: bool = True


def blocks(table: Table) -> list[Block]:
    """The layout that the terminal and Markdown share."""
    columns = [row.kind.label for row in table.rows]
    made = [Block(TITLES[metric], columns, list(_metric_lines(table, metric))) for metric in table.measures.ood]
    of_id = Block(table.measures.heading, columns, list(_id_lines(table)))
    made.insert(0 if table.measures.id_first else len(made), of_id)
    if table.measures.ood and any(len(row.runs) > 1 for row in table.rows):
        title = f"Mean over the OOD sets ({_sign(table)}), seed by seed"
        made.append(Block(title, columns, list(_seed_lines(table))))
    if differences := list(_paired_lines(table)):
        names = [metric.upper() for metric in table.measures.ood]
        made.append(Block("Differences on the same images, points [95 % interval]", names, differences, numeric=False))
    if table.controls:
        made.append(Block("Controls: AUROC (%) of ID against itself, altered", columns, _control_lines(table)))
    if any(s.n_ood for s in table.sets):
        names = ["stands in for", "images", "available", "base rate", "vote", "duplicates dropped"]
        made.append(Block("OOD sets", names, [_set_line(s) for s in table.sets if s.n_ood], numeric=False))
    if elsewhere := _elsewhere(table):
        names = [table.paper.titles[ood] for ood in table.paper.sets[table.id_data]]
        title = "Also reported: FPR95 / AUROC (%), with AUPR where there is one"
        made.append(Block(title, [*names, "mean"], elsewhere, numeric=False))
    return [*made, *_reported_block(table)]


def warnings(table: Table) -> list[str]:
    """One line for every control that is far from chance."""
    labels = {row.kind.key: row.kind.label for row in table.rows}
    return [
        f"⚠ control {c.control}, {labels[key]}: AUROC {c.auroc[key]:.2f} against ID itself, far from 50"
        for c in table.controls
        for key, far in c.warning.items()
        if far
    ]


def footer(table: Table) -> list[str]:
    """Warnings first, then what the marks mean, then the notes."""
    marks = []
    if any(s.stand_in_for for s in table.sets):
        marks.append("† a stand-in, not the paper's set.")
    if any(figure.certainty == UNCONFIRMED for figure in shown_figures([*table.rows, *table.reported])):
        marks.append("? recalled from the paper and not confirmed.")
    return [*warnings(table), *marks, *table.notes]


def width(table: Table) -> int:
    """Columns of text that its figures need unbroken: more than usual from six rows on."""
    return USUAL_WIDTH + 16 * max(0, len(table.rows) - 5)


def to_terminal(table: Table) -> RenderableType:
    """For `rich.console.Console().print`; readable in 100 columns with the four rows of Table 1, else see `width`."""
    parts: list[RenderableType] = [Text(line, style="bold" if i == 0 else "") for i, line in enumerate(table.caption)]
    for block in blocks(table):
        grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, title=block.title, title_justify="left")
        grid.title_style = "bold"
        grid.add_column("OOD set" if block.title in TITLES.values() else "", no_wrap=False)
        if block.numeric:
            grid.add_column("")
        for column in block.columns:
            grid.add_column(column, justify="right" if block.numeric else "left")
        for line in block.lines:
            cells = [Text(cell, style="bold" if i in line.best else "") for i, cell in enumerate(line.cells)]
            kind = [Text(line.kind)] if block.numeric else []
            grid.add_row(Text(line.label), *kind, *cells, style=STYLES.get(line.kind, ""))
        parts.append(Padding(grid, (1, 0, 0, 0)))
    parts += [Text(line, style="bold yellow" if line.startswith("⚠") else "dim") for line in footer(table)]
    return Group(*parts)


def to_markdown(table: Table) -> str:
    """The same blocks as Markdown; the best of our figures on a line is bold."""
    out = [f"**{table.caption[0]}**", "", *(f"- {line}" for line in table.caption[1:]), ""]
    for block in blocks(table):
        kind = [""] if block.numeric else []
        first = "OOD set" if block.title in TITLES.values() else ""
        side = "---:" if block.numeric else "---"
        out += [f"### {block.title}", "", _pipes([first, *kind, *block.columns])]
        out.append(_pipes(["---", *["---" for _ in kind], *[side for _ in block.columns]]))
        for line in block.lines:
            cells = [f"**{cell}**" if i in line.best else cell for i, cell in enumerate(line.cells)]
            out.append(_pipes([line.label, *([line.kind] if block.numeric else []), *cells]))
        out.append("")
    return "\n".join([*out, *(f"- {line}" for line in footer(table)), ""])


def to_csv(table: Table) -> str:
    """Long form, in the table's unit: a line per row, OOD set, metric and seed, and lines with seed "mean" and "sd".

    A cell without a figure has one line with an empty seed whose `status` says why. The set "id" carries what is
    measured of ID alone (accuracy, ECE); "mean" is the mean over the votes of `mean_over`.
    """
    lines = list(_csv_lines(table))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _metric_lines(table: Table, metric: str) -> Iterator[Line]:
    for s in table.sets:
        yield from _lines(s.label, [row.cells.get((s.ood, metric), Cell()) for row in table.rows], metric, table)
    for name, sets in table.groups.items():
        yield from _lines(f"mean of {len(sets)} {name} sets", _cells_of(table, f"mean {name}", metric), metric, table)
    means = [row.cells["mean", metric] for row in table.rows]
    own = table.paper.sets.get(table.id_data, ())
    if not own or set(own) == set(table.mean_over):
        yield from _lines(_mean_label(table), means, metric, table)
        return
    ours = [_ours(cell, row) for cell, row in zip(means, table.rows, strict=True)]
    yield Line(_mean_label(table), "ours", ours, _best(means, metric))
    # The paper's mean is over other sets than ours: a line of its own, not beside ours.
    if any(cell.paper.value is not None for cell in means):
        yield Line(f"mean of the paper's {len(own)}", "paper", [_papers(cell) for cell in means])


def _paired_lines(table: Table) -> Iterator[Line]:
    """What one row has more than another of the same networks, seed by seed, where an evaluation has recorded it."""
    titles = {**{s.ood: s.label for s in table.sets}, "mean": "mean of the sets it was evaluated on"}
    for first, second in permutations(table.rows, 2):
        for run in first.runs:
            mine = [d for d in run.paired if (d["first"], d["second"]) == (first.kind.score, second.kind.score)]
            for d in mine if any(run is other for other in second.runs) else ():
                rows = f"{first.kind.label} less {second.kind.label}, seed {run.seed}"
                label = f"{rows}: {titles.get(d['ood'], d['ood'])}"
                yield Line(label, "", [_with_interval(d.get(metric)) for metric in table.measures.ood])


def _with_interval(figures: Sequence[float] | None) -> str:
    """[difference, low, high] of fractions in points."""
    if figures is None:
        return ""
    difference, low, high = (round(100 * value, 2) + 0.0 for value in figures)
    return f"{difference:+.2f} [{low:+.2f}, {high:+.2f}]"


def _cells_of(table: Table, ood: str, metric: str) -> list[Cell]:
    return [row.cells.get((ood, metric), Cell()) for row in table.rows]


def _sign(table: Table) -> str:
    return "%" if table.measures.unit == "percent" else table.measures.unit


def _elsewhere(table: Table) -> list[Line]:
    """What other sources say of the table's rows, a line each; its marks are those of the paper's figures."""
    sets = [*table.paper.sets.get(table.id_data, ()), "mean"]
    return [
        Line(f"{row.kind.label}: {label}", "", [_pair(said, ood) for ood in sets])
        for row in table.rows
        for label, said in table.paper.also(table.id_data, row.kind.key).items()
    ]


def _reported_block(table: Table) -> Iterator[Block]:
    """The rows that are only reported, a line each; columns without a figure are left out."""
    sets, measures = table.paper.sets.get(table.id_data, ()), table.measures
    columns = {(ood, metric): table.paper.titles[ood] for metric in measures.ood for ood in sets}
    columns |= {("id", metric): _title(table, metric) for metric in measures.id}
    cells = [{**row.cells, **{("id", m): cell for m, cell in row.id_cells.items()}} for row in table.reported]
    known = [key for key in columns if any(each[key].paper.value is not None for each in cells)]
    if known:
        what = "/".join(metric.upper() for metric in measures.ood) or "as in the table above"
        lines = [
            Line(row.kind.label, "", [_papers(each[key]) for key in known])
            for row, each in zip(table.reported, cells, strict=True)
        ]
        yield Block(f"Reported, not run here ({what})", [columns[key] for key in known], lines, numeric=False)


def _title(table: Table, metric: str) -> str:
    return table.measures.titles.get(metric) or TITLES[metric]


def _pair(said: Row, ood: str) -> str:
    figures = [figure for figure in said.cells[ood].values() if figure.value is not None]
    return " / ".join(_reported(figure) for figure in figures)


def _mean_label(table: Table) -> str:
    sets, votes = len(table.mean_over), table.votes
    return f"mean of {sets} sets" if sets == votes else f"mean of {sets} sets, {votes} votes"


def _id_lines(table: Table) -> Iterator[Line]:
    for metric in table.measures.id:
        yield from _lines(_title(table, metric), [row.id_cells[metric] for row in table.rows], metric, table)


def _seed_lines(table: Table) -> Iterator[Line]:
    seeds = sorted({run.seed for row in table.rows for run in row.runs})
    for metric in table.measures.ood:
        for seed in seeds:
            values = [row.cells["mean", metric].seeds.get(seed) for row in table.rows]
            label = metric.upper() if seed == seeds[0] else ""
            yield Line(label, f"seed {seed}", ["" if v is None else f"{v:.2f}" for v in values])


def _lines(label: str, cells: Sequence[Cell], metric: str, table: Table) -> Iterator[Line]:
    """Ours, and the paper's and the difference where there is any; a gap of ours is said beside the label."""
    reported = any(cell.paper.value is not None for cell in cells)
    if any(cell.seeds for cell in cells) or not reported:
        ours = [_ours(cell, row) for cell, row in zip(cells, table.rows, strict=True)]
        yield Line(label, "ours", ours, _best(cells, metric))
        label = ""
    else:
        label += f" ({_gap(cells)})"
    if reported:
        yield Line(label, "paper", [_papers(cell) for cell in cells])
    if any(cell.difference is not None for cell in cells):
        yield Line("", "difference", [_difference(cell) for cell in cells])


def _ours(cell: Cell, row: TableRow) -> str:
    if cell.mean is None:
        return cell.status
    text = f"{cell.mean:.2f}" + ("" if cell.sd is None else f" ± {cell.sd:.2f}")
    seeds, all_seeds = len(cell.seeds), len(row.runs)
    return text if seeds == all_seeds else f"{text} ({seeds}/{all_seeds} seeds)"


def _papers(cell: Cell) -> str:
    return _reported(cell.paper)


def _reported(figure: ReportedValue) -> str:
    if figure.value is None:
        return ""
    return f"{figure.value:.2f}" + ("?" if figure.certainty == UNCONFIRMED else "")


def _difference(cell: Cell) -> str:
    # Adding zero turns a rounded -0.0 into 0.0.
    return "" if cell.difference is None else f"{round(cell.difference, 2) + 0.0:+.2f}"


def _gap(cells: Sequence[Cell]) -> str:
    """Why no row has the figure: the first reason that says more than "not run"."""
    return next((cell.status for cell in cells if cell.status not in (NOT_RUN, INAPPLICABLE)), NOT_RUN)


def _best(cells: Sequence[Cell], metric: str) -> list[int]:
    """The columns of our best figure as printed: ties share; where all are equal none is best."""
    shown = {i: round(cell.mean, 2) for i, cell in enumerate(cells) if cell.mean is not None}
    if len(set(shown.values())) < 2:
        return []
    best = min(shown.values()) if metric in LOWER_IS_BETTER else max(shown.values())
    return [i for i, value in shown.items() if value == best]


def _control_lines(table: Table) -> list[Line]:
    return [Line(c.control, "", [_control(c, row.kind.key) for row in table.rows]) for c in table.controls]


def _control(control: Control, key: str) -> str:
    if key not in control.auroc:
        return "not run"
    return ("⚠ " if control.warning[key] else "") + f"{control.auroc[key]:.2f}"


def _set_line(s: OODSet) -> Line:
    cells = [
        s.stand_in_for or "",
        f"{s.n_ood:,}",
        f"{s.n_available:,}" if s.n_available is not None else "",
        f"{s.base_rate:.4f}" if s.base_rate is not None else "",
        s.vote or s.ood,
        str(s.duplicates),
    ]
    return Line(s.label, "", cells)


def _csv_lines(table: Table) -> Iterator[dict[str, Any]]:
    means = [OODSet(f"mean {name}", f"mean over {' '.join(sets)}") for name, sets in table.groups.items()]
    means.append(OODSet("mean", f"mean over {table.votes} votes: {' '.join(table.mean_over)}"))
    for row in [*table.rows, *table.reported]:
        for s in [*table.sets, *means]:
            for metric in table.measures.ood:
                yield from _cell_lines(table, row, s, metric, row.cells.get((s.ood, metric), Cell()))
        for metric, cell in row.id_cells.items():
            yield from _cell_lines(table, row, OODSet("id", table.id_data), metric, cell)


def _cell_lines(table: Table, row: TableRow, s: OODSet, metric: str, cell: Cell) -> Iterator[dict[str, Any]]:
    if row.kind.method is None and cell.paper.value is None:
        return
    unit = table.measures.unit
    base = {
        "id_data": table.id_data,
        "row": row.kind.key,
        "method": _blank(row.kind.method),
        "score": row.kind.score,
        "protocol": table.protocol["name"],
        "positive": table.protocol["positive"],
        **_set_facts(s),
        "metric": metric,
        "seed": "",
        unit: "",
        "status": cell.status,
        f"paper_{unit}": _blank(cell.paper.value),
        "paper_certainty": "" if cell.paper.value is None else cell.paper.certainty,
        "difference": "",
        **_run_facts(None),
    }
    runs = {run.seed: run for run in row.runs}
    for seed, value in cell.seeds.items():
        yield {**base, "seed": seed, unit: _blank(value), **_run_facts(runs[seed])}
    if cell.mean is None:
        yield base
        return
    yield {**base, "seed": "mean", unit: _blank(cell.mean), "difference": _blank(cell.difference)}
    if cell.sd is not None:
        yield {**base, "seed": "sd", unit: _blank(cell.sd)}


def _blank(value: Any) -> Any:
    """Empty for None; floats without the noise of their last bits."""
    if isinstance(value, float):
        return round(value, 9)
    return "" if value is None else value


def _set_facts(s: OODSet) -> dict[str, Any]:
    facts = ("ood", "title", "stand_in_for", "vote", "n_ood", "base_rate")
    return {fact: _blank(getattr(s, fact)) for fact in facts}


def _run_facts(run: EvaluatedRun | None) -> dict[str, Any]:
    """What made one seed's figure; blank in the aggregates."""
    if run is None:
        return dict.fromkeys(("run", "backbone", "scale", "outliers", "device", "date", "commit"), "")
    named = {key: _blank(name_of(run.identity.get(key))) for key in ("backbone", "scale", "outliers")}
    return {
        "run": run.name,
        **named,
        **{key: _blank(run.trained.get(key)) for key in ("device", "date", "commit")},
    }
