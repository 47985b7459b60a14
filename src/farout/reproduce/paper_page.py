"""The written parts of a paper's own page: its figures, ours, and what its claims come to."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from farout.data import default_paths
from farout.data.catalogue import dataset_names, load_entry
from farout.papers import MARKS, ExtraTable, Paper, ReportedValue, Row, load
from farout.papers.claims import MEAN
from farout.places import ROOT
from farout.report.blocks import pipe_table
from farout.report.records import Record
from farout.reproduce.paper_figures import figures_of, shown
from farout.reproduce.provenance import made_by, reasons
from farout.reproduce.result_tables import NAMES, ResultTable, result_tables
from farout.reproduce.verdict_page import claim_details, matrix
from farout.reproduce.verdicts import Verdict

LEGEND = (
    "A figure without a mark was seen in a source that the file names; ° was recalled, and agrees with a mean that was "
    "seen; ? was recalled and not confirmed; - is not known."
)
NONE_KEPT = "No run that was evaluated under this paper's protocol is recorded yet."
MEASURES = {"ece": "ECE", "inception_score": "IS", "fid": "FID"}
UNKNOWN = "-"
DOCS = "../"  # docs/, seen from docs/papers/


def paper_blocks(
    name: str, records: Sequence[Record], verdicts: Sequence[Verdict], folder: str = "../../results"
) -> Mapping[str, str]:
    """The blocks of docs/papers/NAME.md; `folder` is where its links to records lead."""
    mine = [verdict for verdict in verdicts if verdict.claim.paper == name]
    return {
        "published": published(load(name)),
        "ours": result_tables(records, folder=folder, names=[name], below=under_table) or NONE_KEPT,
        "claims": matrix(mine),
        "verdicts": claim_details(mine, folder),
    }


def under_table(table: ResultTable) -> list[str]:
    """Its figures, the commands that made it, and why its levels are not the paper's."""
    trials = table.trials
    return [*shown(figures_of(table), DOCS), made_by(trials), "", reasons(table.paper, trials, DOCS), ""]


def published(paper: Paper) -> str:
    """What the paper reports: a table for each ID set, one for each further table; how sure we are of each figure."""
    parts = [f"{paper.trust[0].upper()}{paper.trust[1:].rstrip('.')}. {LEGEND}", ""]
    for id_data, rows in paper.results.items():
        parts += [f"### {title_of(id_data)}, as published", "", _detection(paper, id_data, rows), ""]
    for name, extra in paper.extra_tables.items():
        parts += [f"### {name.capitalize()}, as published", "", extra.note.strip(), "", *_extra(extra)]
    return "\n".join(parts)


def title_of(id_data: str) -> str:
    """What the catalogue calls a set; one that it does not have keeps its short name."""
    paths = default_paths(ROOT)
    names = {name.replace("_", ""): name for name in dataset_names(paths)}
    found = names.get(id_data.replace("_", ""))
    return str(load_entry(found, paths)["title"]) if found else id_data


def _detection(paper: Paper, id_data: str, rows: Mapping[str, Row]) -> str:
    """Rows of the paper, and what other sources say of them, by its OOD sets: its metrics below each other."""
    sets = {**{ood: paper.titles[ood] for ood in paper.sets[id_data]}, MEAN: "**mean**"}
    cells: list[list[list[ReportedValue]]] = []
    labels = []
    for label, row in _labelled(paper, rows):
        labels.append(label)
        of_sets = [[row.cells.get(ood, {}).get(m, ReportedValue()) for m in paper.metrics] for ood in sets]
        cells.append([*of_sets, [row.error]])
    places = _decimals(value for line in cells for cell in line for value in cell)
    head = ["<br>".join(NAMES[metric] for metric in paper.metrics), *sets.values(), "ID error"]
    return _table(head, [[label, *(_cell(c, places) for c in line)] for label, line in zip(labels, cells, strict=True)])


def _labelled(paper: Paper, rows: Mapping[str, Row]) -> Iterator[tuple[str, Row]]:
    for key, row in rows.items():
        yield paper.kinds[key].label, row
        for source, other in row.also.items():
            yield f"{paper.kinds[key].label} ({source})", other


def _extra(extra: ExtraTable) -> list[str]:
    """A table for each ID set; none where the paper's values are not known."""
    parts = []
    for id_data, values in extra.values.items():
        columns = list(dict.fromkeys(column for row in values.values() for column in row))
        places = {c: _decimals(row[c] for row in values.values() if c in row) for c in columns}
        lines = [
            [extra.kinds[kind].label, *(_cell([row.get(c, ReportedValue())], places[c]) for c in columns)]
            for kind, row in values.items()
        ]
        parts += [_table([title_of(id_data), *(MEASURES.get(column, column) for column in columns)], lines), ""]
    return parts


def _decimals(values: Iterable[ReportedValue]) -> int:
    """As many as the figures were printed with."""
    return max((len(f"{v.value:.4f}".rstrip("0").partition(".")[2]) for v in values if v.value is not None), default=0)


def _cell(values: Sequence[ReportedValue], places: int) -> str:
    """Figures below each other, each with its mark."""
    if all(value.value is None for value in values):
        return UNKNOWN
    return "<br>".join(UNKNOWN if v.value is None else f"{v.value:.{places}f}{MARKS[v.certainty]}" for v in values)


def _table(head: list[str], lines: list[list[str]]) -> str:
    """Without columns and lines that have no figure."""
    known = [line for line in lines if set(line[1:]) != {UNKNOWN}]
    kept = [i for i in range(len(head)) if i == 0 or any(line[i] != UNKNOWN for line in known)]
    return pipe_table([head[i] for i in kept], [[line[i] for i in kept] for line in known], 1)
