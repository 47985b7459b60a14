"""The report's sections without figures: what ran, the tables, what is missing, the controls."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from farout.papers import METRICS
from farout.report.evidence import Entry, View
from farout.report.page.markup import (
    Link,
    beside,
    breakable,
    card,
    details,
    facts,
    items,
    paragraph,
    plain_table,
    scrolling,
    text,
)
from farout.report.page.paired import paired_tables
from farout.report.records import Record, flatten, name_of
from farout.report.tables.caption import protocol_text
from farout.report.tables.render import LOWER_IS_BETTER, TITLES


def title_block(record: Record, view: View, score: str | None = None) -> str:
    """Run, ID set, accuracy and calibration, and the means of one score over the OOD sets."""
    known = view.entry["id"]
    bins = known.get("ece_bins") or view.entry["protocol"].get("bins")
    tiles = [("accuracy", known.get("accuracy")), (f"ECE ({bins} bins)", known.get("ece"))]
    if "no_accuracy" in known:
        tiles = [("accuracy of the nearest class mean", _nearest_accuracy(view.entry))]
    tiles.append(("accuracy of a linear probe", (known.get("linear_probe") or {}).get("accuracy")))
    tiles = [*_detection(view, score), *tiles]
    shown = "".join(f"<div><dt>{text(k)}</dt><dd>{_percent(v)} %</dd></div>" for k, v in tiles if v is not None)
    n = f", {known['n']:,} images" if known.get("n") else ""
    line = f"In-distribution: {view.id_title} {known.get('split') or ''}".rstrip() + n
    if "no_accuracy" in known:
        shown += "<div><dt>classifier</dt><dd>not trained</dd></div>"
    return f'<header><h1>{text(record["run"])}</h1>{paragraph(line, "quiet")}<dl class="tiles">{shown}</dl></header>'


def _detection(view: View, score: str | None) -> list[tuple[str, float | None]]:
    means: dict[str, Mapping[str, Any]] = {mean["score"]: mean for mean in view.entry.get("means") or ()}
    mean = means.get(score or "", {})
    over = len(mean.get("over") or ())
    words = f"{score}, {'one OOD set' if over == 1 else f'mean of {over} OOD sets'}"
    return [(f"{TITLES[metric].split(' ')[0]}, {words}", mean.get(metric)) for metric in ("fpr95", "auroc")]


def _nearest_accuracy(entry: Entry) -> float | None:
    """Of the class whose mean feature is nearest: what a network without a trained classifier can be asked for."""
    features = (entry.get("geometry") or {}).get("features") or {}
    found: float | None = features.get("nearest_class_accuracy")
    return found


def rounding_of(record: Record) -> str:
    """What the weights of a run that was trained elsewhere lost on their way; empty where nothing."""
    files = [file for arrival in record.get("adopted", ()) for file in arrival["files"]]
    kinds = sorted({kind for file in files for kind in file["rounded"]})
    return f"on their way here, to {' and '.join(kinds)}" if kinds else ""


def what_ran(record: Record, entry: Entry, started: Link | None = None) -> str:
    """Method and knobs, network, data, scale, seed; where and when it was trained and evaluated.

    `started` leads to the run that it started from, where that is known.
    """
    identity, trained = record.get("identity") or {}, record.get("trained") or {}
    pairs = [
        ("Method", name_of(identity.get("method"))),
        ("Knobs", _others(identity.get("method")) or "none"),
        ("Network", _with_others(identity.get("backbone"))),
        ("ID data", _data_text(entry["id"])),
        ("Outliers in training", name_of(identity.get("outliers")) or "none"),
        ("Scale", identity.get("scale") or record.get("scale") or entry.get("scale")),
        ("Seed", identity.get("seed")),
        ("Started from", started or identity.get("parent") or ("random weights" if trained.get("steps") else "")),
        ("Schedule", _others(identity.get("schedule"))),
        ("Transform", name_of(identity.get("transform"))),
        ("Precision in training", identity.get("precision")),
        ("Held out for selection", f"{100 * identity['holdout']:g} %" if identity.get("holdout") else "nothing"),
        ("Trained", _stamp(trained)),
        ("Training time", _duration(trained.get("seconds"))),
        ("Weights rounded", rounding_of(record)),
        ("Note", trained.get("note")),
        ("Evaluated", _stamp(entry)),
        ("OOD list", entry.get("ood_data")),
        ("Images of each set", f"at most {entry['max_eval_images']:,}" if entry.get("max_eval_images") else "all"),
    ]
    leaves = [(key, "" if value is None else value) for key, value in flatten(identity)]
    settings = plain_table(("setting", "value"), leaves, "settings")
    everything = details("Everything that determines the weights", settings)
    return card("What ran", "ran", facts(pairs), everything)


def results(entries: Sequence[Entry], heat_map: str) -> str:
    """FPR95, AUROC and AUPR of every score on every set; the first entry open, further protocols folded."""
    if not entries[0]["rows"]:
        return card("Results", "results", paragraph("No OOD set was at hand: there is nothing to measure.", "note"))
    others = [
        details(f"The same under protocol {entry['protocol']['name']}", *_tables(View(entry))) for entry in entries[1:]
    ]
    return card("Results", "results", *_tables(View(entries[0]), heat_map), *others)


def absences(entry: Entry) -> str:
    """OOD sets that were wanted and are not there, each with its reason; duplicates that were dropped."""
    titles = View(entry).sets
    missing = [f"{gap['ood']}: {gap['reason']}" for gap in entry.get("missing") or ()]
    dropped = [f"{titles.get(ood, ood)}: {n:,}" for ood, n in (entry.get("duplicates") or {}).items() if n]
    gaps = items(missing) if missing else paragraph("No set of the list is missing.")
    twins = [paragraph("No image of an OOD set was among the ID or outlier images.", "note")]
    if dropped:
        twins = [paragraph("Images left out because the ID or outlier images have them too:"), items(dropped)]
    skipped = [f"{score}: {reason}" for score, reason in (entry.get("skipped_scores") or {}).items()]
    scores = [paragraph("Scores that could not be had:"), items(skipped)] if skipped else []
    return card("Missing sets and duplicates", "missing", gaps, *scores, *twins)


def controls(entry: Entry) -> str:
    """ID against itself, altered: a detector of objects stays near 50 %."""
    rows = list(entry.get("controls") or ())
    if not rows:
        return card("Controls", "controls", paragraph("No controls were run.", "note"))
    names, scores = (list(dict.fromkeys(row[key] for row in rows)) for key in ("control", "score"))
    by_pair = {(row["control"], row["score"]): row for row in rows}
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in names)
    body = "".join(
        f'<tr><th scope="row">{breakable(score)}</th>'
        + "".join(_control(by_pair.get((name, score))) for name in names)
        + "</tr>"
        for score in scores
    )
    table = f'<table><thead><tr><th scope="col">AUROC (%)</th>{head}</tr></thead><tbody>{body}</tbody></table>'
    words = "ID images against the same images processed. Far from 50 the score sees the processing, not the object."
    far = list(dict.fromkeys(row["control"] for row in rows if row["warning"]))
    warning = f"⚠ Far from chance: {', '.join(far)}. OOD sets that went through such processing look easier."
    return card("Controls", "controls", paragraph(words), scrolling(table, "controls"), *_if(far, warning))


def _if(condition: object, warning: str) -> list[str]:
    return [paragraph(warning, "warn")] if condition else []


def _control(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "<td>–</td>"
    shown = _percent(row["auroc"])
    return f'<td><span class="warn">⚠ {shown}</span></td>' if row["warning"] else f"<td>{shown}</td>"


def _tables(view: View, heat_map: str = "") -> Iterator[str]:
    protocol = view.entry["protocol"]
    yield paragraph(f"Protocol {protocol['name']}: {protocol_text(protocol)}.")
    if heat_map:
        yield beside(heat_map, "<h3>Means over the OOD sets</h3>", _means(view))
    for metric in METRICS:
        yield scrolling(_table(view, metric), TITLES[metric])
    yield from (paragraph(note, "note") for note in _notes(view))
    yield from paired_tables(view)
    other = "in" if view.positive == "ood" else "out"
    further = [m for m in (f"fpr95_{other}", f"aupr_{other}") if all(m in row for row in view.rows.values())]
    if further:
        tables = (scrolling(_table(view, metric), _title(metric)) for metric in further)
        yield details("The other convention", *tables)


def _means(view: View) -> str:
    """Scores x metrics, each a mean over the sets."""
    means = {mean["score"]: mean for mean in view.entry.get("means") or ()}
    metrics = [metric for metric in METRICS if any(mean.get(metric) is not None for mean in means.values())]
    lines = [[score, *(_or_dash(means.get(score, {}).get(metric)) for metric in metrics)] for score in view.scores]
    return plain_table(("score", *map(_short, metrics)), lines, "means")


def set_table(view: View, ood: str) -> str:
    """Scores x metrics of one set."""
    found = [(score, view.rows[score, ood]) for score in view.scores if (score, ood) in view.rows]
    lines = [[score, *(_or_dash(row.get(metric)) for metric in METRICS)] for score, row in found]
    return plain_table(("score", *map(_short, METRICS)), lines, f"figures of {view.sets[ood]}")


def _short(metric: str) -> str:
    return f"{TITLES[metric].split(' ')[0]} (%)"


def _or_dash(fraction: float | None) -> str:
    return "–" if fraction is None else _percent(fraction)


def _title(metric: str) -> str:
    """A table's title; `_in` and `_out` say that the protocol measures with ID or OOD positive as well."""
    name, _, positive = metric.partition("_")
    return f"{TITLES[name]}, {'ID' if positive == 'in' else 'OOD'} positive" if positive else TITLES[name]


def _table(view: View, metric: str) -> str:
    """Scores x sets with the mean; the best figure of a column is bold."""
    groups = _groups(view)
    columns = [*view.sets, *groups, "mean"]
    values = {(score, ood): row[metric] for (score, ood), row in view.rows.items()}
    values |= {(mean["score"], "mean"): mean.get(metric) for mean in view.entry.get("means") or ()}
    for mean in view.entry.get("group_means") or ():
        values[mean["score"], f"mean, {mean['group']}"] = mean.get(metric)
    values = {pair: value for pair, value in values.items() if value is not None}
    best = {ood: _best([values.get((score, ood)) for score in view.scores], metric) for ood in columns}
    lines = ""
    for score in view.scores:
        cells = "".join(_cell(values.get((score, ood)), best[ood], view, (score, ood), metric) for ood in columns)
        lines += f'<tr><th scope="row">{breakable(score)}</th>{cells}</tr>'
    caption = f"<caption>{text(_title(metric))}</caption>"
    return f"<table>{caption}<thead>{_head(view, metric)}</thead><tbody>{lines}</tbody></table>"


_SET_FACTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "n OOD": lambda row: f"{row['n_ood']:,}",
    "of available": lambda row: f"{row.get('n_available', row['n_ood']):,}",
    "n ID": lambda row: f"{row['n_id']:,}",
    "base rate": lambda row: f"{row['base_rate']:.4f}",
}
_SHOWN_WITH = {"fpr95": tuple(_SET_FACTS), "aupr": ("base rate",)}  # said once, and where it matters again


def _groups(view: View) -> list[str]:
    """Titles of the means over a part of the sets."""
    return list(dict.fromkeys(f"mean, {mean['group']}" for mean in view.entry.get("group_means") or ()))


def _head(view: View, metric: str) -> str:
    """Titles of the sets, and under them how many images and which share is positive."""
    first = {ood: next(row for (_, o), row in view.rows.items() if o == ood) for ood in view.sets}
    marks = {ood: "†" if row.get("stand_in_for") else "" for ood, row in first.items()}
    titles = "".join(f'<th scope="col">{text(title)}{marks[ood]}</th>' for ood, title in view.sets.items())
    means = [*_groups(view), "mean"]
    blanks = '<th class="mean"></th>' * len(means)
    titles += "".join(f'<th scope="col" class="mean">{text(name)}</th>' for name in means)
    lines = f'<tr><th scope="col">score</th>{titles}</tr>'
    for name in _SHOWN_WITH.get(metric, ()):
        cells = "".join(f"<th>{text(_SET_FACTS[name](row))}</th>" for row in first.values())
        lines += f'<tr class="sub"><th scope="row">{name}</th>{cells}{blanks}</tr>'
    return lines


def _cell(value: float | None, best: str, view: View, pair: tuple[str, str], metric: str) -> str:
    kind = "" if pair[1] in view.sets else ' class="mean"'
    if value is None:
        return f"<td{kind}>–</td>"
    shown = _percent(value)
    row = view.rows.get(pair, {})
    return f"<td{kind}{_hint(row, metric)}>" + (f"<b>{shown}</b>" if shown == best else shown) + "</td>"


def _hint(row: Mapping[str, Any], metric: str) -> str:
    """How sure the figure is, shown to who points at it: the spread over redraws, or a bootstrap interval."""
    hints = []
    if (row.get("redraws") or 1) > 1 and f"{metric}_sd" in row:
        hints.append(f"± {_percent(row[f'{metric}_sd'])} over {row['redraws']} redraws")
    intervals = row.get("intervals") or {}
    if metric in intervals:
        low, high = intervals[metric]
        hints.append(f"{_percent(low)} to {_percent(high)} ({100 * intervals['level']:g} % bootstrap interval)")
    return f' title="{text("; ".join(hints))}"' if hints else ""


def _best(values: Sequence[float | None], metric: str) -> str:
    """The best figure as printed; none where fewer than two differ."""
    known = [value for value in values if value is not None]
    if len({_percent(value) for value in known}) < 2:
        return ""
    return _percent(min(known) if metric.split("_")[0] in LOWER_IS_BETTER else max(known))


def _notes(view: View) -> Iterator[str]:
    """What the mean is over, and what the marks mean."""
    for over in dict.fromkeys(tuple(mean["over"]) for mean in view.entry.get("means") or ()):
        titles = [view.sets.get(ood, ood) for ood in over]
        votes = _votes(view, over)
        together = "".join(f" One vote together: {'; '.join(v)}." for v in votes.values() if len(v) > 1)
        yield f"Mean over {len(votes)} {'vote' if len(votes) == 1 else 'votes'}: {'; '.join(titles)}.{together}"
    for group, over in {m["group"]: m["over"] for m in view.entry.get("group_means") or ()}.items():
        yield f"Mean, {group}: {'; '.join(view.sets.get(ood, ood) for ood in over)}."
    if any(mean["aupr"] is None for mean in view.entry.get("means") or ()):
        yield "No mean of AUPR: the sets' base rates differ, and AUPR follows the base rate."
    stand_ins = {view.sets[o]: row["stand_in_for"] for (_, o), row in view.rows.items() if row.get("stand_in_for")}
    if stand_ins:
        yield "† a stand-in: " + "; ".join(f"{title} for {official}" for title, official in stand_ins.items()) + "."
    yield "Bold: the best of a column. The base rate is the share of positives, which AUPR depends on."


def _votes(view: View, over: Sequence[str]) -> dict[str, list[str]]:
    votes: dict[str, list[str]] = {}
    by_set = {ood: row.get("vote") or ood for (_, ood), row in view.rows.items()}
    for ood in over:
        votes.setdefault(by_set.get(ood, ood), []).append(view.sets.get(ood, ood))
    return votes


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


def _others(group: Any) -> str:
    """The settings of a group without its name: "m_in -23, m_out -5"."""
    if not isinstance(group, Mapping):
        return ""
    known = ((key, str(value)) for key, value in flatten(group) if key != "name" and value is not None)
    return ", ".join(f"{key} {value if len(value) <= 40 else value[:12] + '…'}" for key, value in known)


def _with_others(group: Any) -> str:
    others = _others(group)
    return f"{name_of(group)} ({others})" if others else str(name_of(group) or "not stated")


def _data_text(known: Mapping[str, Any]) -> str:
    """The ID set with what tells its variants apart."""
    info = known.get("info") or {}
    parts = [info.get("title") or known.get("dataset"), known.get("split"), info.get("variant"), info.get("built_from")]
    parts += [f"stand-in for {info['stand_in_for']}"] if info.get("stand_in_for") else []
    parts += [f"sha256 {info['sha256'][:12]}"] if info.get("sha256") else []
    return ", ".join(str(part) for part in parts if part)


def _stamp(known: Mapping[str, Any]) -> str:
    """When, on what and at which commit."""
    commit = f"commit {known['commit'][:13]}" if known.get("commit") else "commit not stated"
    return ", ".join([known.get("date") or "date not stated", known.get("device") or "device not stated", commit])


def _duration(seconds: float | None) -> str:
    if not seconds:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
