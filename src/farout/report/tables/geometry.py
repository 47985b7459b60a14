"""The table of the geometry of embeddings: our angles in degrees beside the paper's, per network and space."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from farout.errors import ConfigError
from farout.papers import Paper, ReportedValue, RowKind, load
from farout.report.records import EvaluatedRun, Record, runs_under
from farout.report.tables.caption import shown_figures
from farout.report.tables.cells import ANGLES, Table
from farout.report.tables.tabulate import Content, runs_of, shown, tabulate


def geometry_table(
    records: Iterable[Record],
    paper: Paper | str = "cider",
    protocol: str | None = None,
    expected: Mapping[str, str] | None = None,
) -> Table:
    """Dispersion and compactness of the ID classes, and separability per OOD set: a column per network and space.

    Arguments and errors are those of `farout.report.tables.tabulate.table1`; angles follow no protocol (all images of
    a set count), so `protocol` only chooses among the evaluations of a record. Raises ConfigError where the paper
    reports no angles.
    """
    paper = load(paper) if isinstance(paper, str) else paper
    angles = paper.extra_tables.get("geometry")
    if angles is None:
        raise ConfigError(f"{paper.name} reports no angles, so there is no table of them: choose --paper cider")
    runs = runs_under(records, protocol or paper.protocol)
    kinds = list(angles.kinds.values())
    by_row = {kind.key: [seen_in(run, kind.score) for run in runs_of(kind, runs)] for kind in kinds}
    kinds = shown(kinds, by_row)

    def reported(id_data: str, kind: RowKind, ood: str, measure: str) -> ReportedValue:
        return angles.value(id_data, kind.key, measure) if ood in ("id", "mean") else ReportedValue()

    content = Content(ANGLES, reported, expected or {}, _how(kinds, by_row))
    table = tabulate(paper, kinds, runs, by_row, content)
    known = [angles.note] if any(figure.value is not None for figure in shown_figures(table.rows)) else []
    return replace(table, notes=[*table.notes, *known, *_reasons(runs)])


def seen_in(run: EvaluatedRun, space: str) -> EvaluatedRun:
    """The run with the angles of one of its spaces for figures: `rows[space, ood]` and `id`, in degrees."""
    facts = run.geometry.get(space, {})
    sets = {row["ood"]: row for row in run.rows.values()}
    rows = {}
    for ood, angle in facts.get("separability", {}).items():
        if own := sets.get(ood):
            every = {"n_ood": own["n_available"], "base_rate": None}
            rows[space, ood] = {**own, **every, "score": space, "separability": angle}
    of_id = {key: facts.get(key) for key in ANGLES.id}
    return replace(run, rows=rows, id={**run.id, **of_id}, controls=())


def _how(kinds: Sequence[RowKind], by_row: Mapping[str, Sequence[EvaluatedRun]]) -> str:
    """What the angles are taken to, column by column."""
    sources: dict[str, list[str]] = {}
    for kind in kinds:
        for run in by_row[kind.key]:
            text = run.geometry.get(kind.score, {}).get("directions")
            if text and kind.label not in sources.setdefault(text, []):
                sources[text].append(kind.label)
    directions = "; ".join(f"{text} ({', '.join(labels)})" for text, labels in sources.items())
    return f"angles of mean cosines over all images of a set; directions of the classes: {directions or 'none'}"


def _reasons(runs: Sequence[EvaluatedRun]) -> list[str]:
    """Runs without angles, and images that have no direction."""
    notes = [f"No angles of {run.name}: {run.no_geometry}." for run in runs if run.no_geometry]
    for run in runs:
        for space, facts in run.geometry.items():
            if gone := {name: n for name, n in facts.get("left_out", {}).items() if n}:
                listed = ", ".join(f"{n} of {name}" for name, n in gone.items())
                notes.append(f"{run.name}, {space}: images without a direction left out: {listed}.")
    return notes
