"""The caption and notes of a table: what ran, on what, when, and what the figures do not cover."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from farout.papers import METRICS, Paper, ReportedValue
from farout.report.records import EvaluatedRun, name_of, size_of
from farout.report.tables.cells import NO_MEAN, Cell, OODSet, TableRow

POSITIVE = {
    "id": "ID is positive: FPR95 is the share of OOD accepted when 95 % of ID is",
    "ood": "OOD is positive: FPR95 is the share of ID rejected when 95 % of OOD is",
}


def caption_lines(paper: Paper, how: str, rows: Sequence[TableRow]) -> list[str]:
    """What ran (network, data, scale, outliers, seeds), how it was measured, and where and when."""
    ran = [row for row in rows if row.runs]
    first = ran[0].runs[0]
    outliers = _per_row([r for r in ran if _outliers(r.runs[0])], _outliers) or "none"
    return [
        f"{paper.reference}: {paper.title}",
        f"ID {_id_text(first)}; network {_per_row(ran, _network)}; "
        f"scale {_per_row(ran, lambda run: run.identity.get('scale') or 'not stated')}; outliers {outliers}; "
        f"seeds {_per_row(ran, lambda run: run.seed)}",
        how,
        f"trained {_stamp(ran, lambda run: run.trained)} in {_per_row(ran, precision_of)}; "
        f"evaluated {_stamp(ran, lambda run: run.evaluated)}",
    ]


def protocol_text(protocol: Mapping[str, Any]) -> str:
    """The protocol in words; what it does not state is left out."""
    ratio, redraws = protocol.get("ratio"), protocol.get("redraws") or 1
    parts = [POSITIVE[protocol["positive"]], f"OOD:ID 1:{ratio}" if ratio else "all images"]
    if redraws > 1:
        parts.append(f"mean of {redraws} redraws")
    if rule := protocol.get("fpr_rule"):
        parts.append(f"FPR at the {rule} recall")
    if bins := protocol.get("bins"):
        parts.append(f"ECE with {bins} bins")
    return "; ".join(parts)


def note_lines(
    paper: Paper,
    rows: Sequence[TableRow],
    sets: Sequence[OODSet],
    over: Collection[str],
    votes: int,
    unused: Sequence[str],
) -> list[str]:
    """What a reader must know before comparing: the mean's sets, absences, and the paper's own certainty."""
    notes = [_mean_note(sets, over, votes)] if any("mean" in key for row in rows for key in row.cells) else []
    if any(row.cells.get(("mean", "aupr"), Cell()).status == NO_MEAN for row in rows) and over:
        notes.append("No mean of AUPR: the sets' base rates differ, and AUPR follows the base rate.")
    if any(len(row.runs) > 1 for row in rows):
        notes.append("± is the sample standard deviation over seeds.")
    if any(precision_of(run) in ("bf16", "tf32") for row in rows for run in row.runs):
        notes.append("The papers trained in fp32; in another precision, logits, losses and scores are fp32 here too.")
    if absent := [row.kind.label for row in rows if not row.runs]:
        notes.append(f"Not run: {', '.join(absent)}.")
    notes += [f"Missing: {s.title} ({s.reason})." for s in sets if s.reason]
    if any(figure.value is not None for figure in shown_figures(rows)):
        notes.append("Differences (ours less the paper's, in points) only where the set is the paper's own.")
        notes.append(f"Paper's figures: {paper.trust}.")
        notes += _convention_notes(rows)
    if unused:
        notes.append(f"Runs that belong to no row here: {', '.join(unused)}.")
    return notes


def shown_figures(rows: Sequence[TableRow]) -> list[ReportedValue]:
    """What the paper says, in every cell of OOD sets and of ID."""
    return [cell.paper for row in rows for cell in [*row.cells.values(), *row.id_cells.values()]]


def _mean_note(sets: Sequence[OODSet], over: Collection[str], votes: int) -> str:
    taken = [s for s in sets if s.ood in over]
    if not taken:
        return "No mean: there is no OOD set that every run has."
    shared: dict[str, list[str]] = {}
    for s in taken:
        shared.setdefault(s.vote or s.ood, []).append(s.title)
    text = f"Mean over {votes} {'vote' if votes == 1 else 'votes'}: {'; '.join(s.title for s in taken)}."
    text += "".join(f" One vote together: {'; '.join(t)}." for t in shared.values() if len(t) > 1)
    left = [s.title for s in sets if s.ood not in over and s.n_ood is not None]
    return text + (f" Left out, as not every run has it: {'; '.join(left)}." if left else "")


def _convention_notes(rows: Sequence[TableRow]) -> list[str]:
    """Metrics that have both figures for some set of the paper's own, but under another convention."""
    notes = []
    for metric in METRICS:
        cells = [c for row in rows for (ood, m), c in row.cells.items() if m == metric and ood != "mean"]
        both = [c for c in cells if c.seeds and c.paper.value is not None]
        if both and not any(c.comparable for c in both):
            notes.append(f"No difference of {metric.upper()}: the paper's protocol or data are others.")
    return notes


def _per_row(rows: Sequence[TableRow], get: Callable[[EvaluatedRun], Any]) -> str:
    """One text where all rows agree, else each value with the rows it belongs to."""
    values: dict[str, list[str]] = {}
    for row in rows:
        text = ", ".join(dict.fromkeys(str(get(run)) for run in row.runs))
        values.setdefault(text, []).append(row.kind.label)
    if len(values) < 2:
        return next(iter(values), "")
    return ", ".join(f"{text} ({', '.join(labels)})" for text, labels in values.items())


def _stamp(rows: Sequence[TableRow], get: Callable[[EvaluatedRun], Mapping[str, Any]]) -> str:
    """When, on what device and at which commit."""
    day = _per_row(rows, lambda run: _day(get(run)))
    device = _per_row(rows, lambda run: _of(get(run), "device"))
    commit = _per_row(rows, lambda run: _of(get(run), "commit")[:10])
    return f"{day} on {device} at commit {commit}"


def precision_of(run: EvaluatedRun) -> str:
    """What the network's trunk was trained in; nothing is known of networks that others trained."""
    if name_of(run.identity.get("method")) == "imported":
        return "a precision not known to us"
    return _of(run.identity, "precision")


def _network(run: EvaluatedRun) -> str:
    """Its name, and what that does not say of its size."""
    backbone = run.identity["backbone"]
    return f"{name_of(backbone)}{size_of(backbone)}"


def _outliers(run: EvaluatedRun) -> Any:
    return name_of(run.identity.get("outliers"))


def _of(facts: Mapping[str, Any], key: str) -> str:
    return str(facts.get(key) or "not stated")


def _day(facts: Mapping[str, Any]) -> str:
    return _of(facts, "date").partition("T")[0][:10] if facts.get("date") else "not stated"


def _id_text(run: EvaluatedRun) -> str:
    info = run.id.get("info") or {}
    text = f"{info.get('title') or run.id.get('dataset')} {run.id.get('split', '')}".strip()
    facts = [f"{run.id['n']:,} images"] if run.id.get("n") else []
    facts += [str(info["variant"])] if info.get("variant") else []
    facts += [f"stand-in for {info['stand_in_for']}"] if info.get("stand_in_for") else []
    return f"{text} ({', '.join(facts)})" if facts else text
