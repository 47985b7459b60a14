"""Tables of results/ for docs/: one for each paper, scale, network and list of OOD sets that was evaluated."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from farout.papers import METRICS, Paper, RowKind, load
from farout.papers.claims import ANGLES, MEAN, SCALES
from farout.report.blocks import pipe_table
from farout.report.records import Record, flatten, name_of
from farout.report.tables.cells import mean_of_votes
from farout.report.tables.render import TITLES
from farout.reproduce.command_lines import override_value
from farout.reproduce.trials import FROM_OTHERS, FROM_TRAINED, LITERATURE, Trial, attack_of_run, largest, trials_of

Seeds = tuple[Trial, ...]
SHOWN = {"energy": "fpr95", "oe": "fpr95", "cider": "fpr95", "jem": "auroc"}  # the metric that single sets have
NAMES = {"fpr95": "FPR95", "auroc": "AUROC", "aupr": "AUPR"}
PAPERS = {"energy": "Energy", "oe": "Outlier Exposure", "cider": "CIDER", "jem": "JEM"}
LINK = "{results}"
ATTACKS = ("linf 0", "linf 2", "linf 8")


@dataclass(frozen=True)
class Column:
    """A row of the paper, as it was run: its label, and the seeds of one setting."""

    kind: RowKind
    seeds: Seeds
    label: str

    def rows(self, trial: Trial) -> dict[str, Mapping[str, Any]]:
        """OOD set -> row of the column's score."""
        return {row["ood"]: row for row in trial.entry["rows"] if row["score"] == self.kind.score}


@dataclass(frozen=True)
class ResultTable:
    """A paper's table as it was run: at one scale, with one network, on one ID set and one list of OOD sets."""

    paper: Paper
    scale: str
    columns: Sequence[Column]

    @property
    def trials(self) -> list[Trial]:
        """Every trial of every column: a network that several scores see comes as often."""
        return [trial for column in self.columns for trial in column.seeds]

    @property
    def id_title(self) -> str:
        """The ID set as the catalogue has it."""
        first = self.trials[0]
        return str((first.entry["id"].get("info") or {}).get("title") or first.id_data)


Below = Callable[[ResultTable], list[str]]  # lines that stand under a table


def result_tables(
    records: Iterable[Record],
    scales: Sequence[str] = tuple(SCALES),
    folder: str = "../results",
    names: Sequence[str] = tuple(SHOWN),
    lists: Sequence[str] | None = None,
    below: Below | None = None,
) -> str:
    """Every table of these papers as Markdown under a heading of its own, each with what it was measured on.

    Networks that others trained have tables of their own (farout.reproduce.literature), but for what began with them.
    `folder` is where links to records lead; `lists` are the lists of OOD sets (conf/ood_data), None for all; `below`
    gives what stands under each.
    """
    parts: list[str] = []
    for table in tables_of(records, names, scales, lists):
        parts += [*_table(table), *(below(table) if below else ())]
    return "\n".join(parts).replace(LINK, folder)


def tables_of(
    records: Iterable[Record],
    names: Sequence[str] = tuple(SHOWN),
    scales: Sequence[str] = tuple(SCALES),
    lists: Sequence[str] | None = None,
) -> Iterator[ResultTable]:
    """What `result_tables` writes, in its order."""
    trials = [trial for trial in largest(trials_of(records)) if lists is None or trial.entry.get("ood_data") in lists]
    for name in names:
        paper = load(name)
        mine = [trial for trial in trials if trial.under(_protocol(paper, trial))]
        for scale in (scale for scale in scales if scale != LITERATURE):
            for group in _groups(mine, scale):
                columns = [column for key in paper.table for column in _columns(paper.kinds[key], group)]
                if columns:
                    yield ResultTable(paper, scale, columns)


def column_means(columns: Sequence[Column], metric: str) -> dict[str, list[float]]:
    """Label -> a mean per seed, in percent, over the OOD sets that all columns have."""
    sets = _common(columns)
    means = {column.label: [_mean(column, trial, sets, metric) for trial in column.seeds] for column in columns}
    return {label: [value for value in values if value is not None] for label, values in means.items()}


def votes(columns: Sequence[Column]) -> int:
    """How many those sets count as in a mean: sets that share a vote are one."""
    return _votes(columns[0], _common(columns))


def _common(columns: Sequence[Column]) -> list[str]:
    return [ood for ood in set_titles(columns) if all(ood in c.rows(trial) for c in columns for trial in c.seeds)]


def _protocol(paper: Paper, trial: Trial) -> str:
    """The paper's own; the demo is Energy's table under the plain one, for its sets are small."""
    return "plain" if trial.scale == "demo" and paper.name == "energy" else paper.protocol


def _groups(trials: Sequence[Trial], scale: str) -> list[list[Trial]]:
    """The trials of a scale by network and by how they were evaluated; networks of others beside what began there."""
    found: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in trials:
        if trial.scale == scale:
            found.setdefault((*trial.network, *trial.conditions), []).append(trial)
    if scale in (FROM_OTHERS, FROM_TRAINED):
        for group in found.values():
            group += [trial for trial in trials if any(_began_with(child, trial) for child in group)]
    return list(found.values())


def _began_with(child: Trial, other: Trial) -> bool:
    return (child.network, child.conditions) == (other.network, other.conditions) and child.child_of(other)


def _table(table: ResultTable) -> list[str]:
    paper, columns, first = table.paper, table.columns, table.trials[0]
    what = f"{table.id_title}, {''.join(first.network[:2])}, sets of `{first.entry.get('ood_data')}`"
    heading = f"### {PAPERS[paper.name]}: scale {SCALES[table.scale]}, {what}"
    head = ["", *(column.label for column in columns)]
    return [heading, "", _caption(columns), "", pipe_table(head, _lines(paper, columns), 1), ""]


def _columns(kind: RowKind, group: Sequence[Trial]) -> list[Column]:
    """A row's settings; where there are several, the label has what distinguishes their folders."""
    kind = kind.on(group[0].id_data)
    settings: dict[tuple[Any, ...], dict[int, Trial]] = {}
    for trial in group:
        if trial.is_a(kind) and any(row["score"] == kind.score for row in trial.entry["rows"]):
            settings.setdefault(trial.setting, {})[trial.seed] = trial
    several = len(settings) > 1
    return [
        Column(kind, seeds, f"{kind.label} ({seeds[0].code})" if several else kind.label)
        for seeds in (tuple(by_seed[seed] for seed in sorted(by_seed)) for by_seed in settings.values())
    ]


def _lines(paper: Paper, columns: Sequence[Column]) -> list[list[str]]:
    shown = SHOWN[paper.name]
    sets = set_titles(columns)
    common = _common(columns)
    lines = [[label, *(_cell(column, ood, shown) for column in columns)] for ood, label in sets.items()]
    for metric in paper.metrics if paper.name != "jem" else (shown,):
        means = [_seeds([_mean(column, trial, common, metric) for trial in column.seeds]) for column in columns]
        if any(mean != "-" for mean in means):
            lines.append([f"**mean {NAMES[metric]}**, {_votes(columns[0], common)} votes", *means])
    lines += [line for line in _of_id(columns) if any(cell != "-" for cell in line[1:])]
    return lines + _papers(paper, columns)


def set_titles(columns: Sequence[Column]) -> dict[str, str]:
    """OOD set -> its title, with what the paper's own set is where it stands in for one."""
    found = {}
    for column in columns:
        for trial in column.seeds:
            for ood, row in column.rows(trial).items():
                found[ood] = str(row.get("title") or ood) + (" †" if row.get("stand_in_for") else "")
    return found


def _cell(column: Column, ood: str, metric: str) -> str:
    rows = [column.rows(trial).get(ood) for trial in column.seeds]
    return _seeds([None if row is None else 100 * row[metric] for row in rows])


def _mean(column: Column, trial: Trial, sets: Sequence[str], metric: str) -> float | None:
    rows = column.rows(trial)
    value = mean_of_votes([rows[ood] for ood in sets], metric)
    return None if value is None else 100 * value


def _votes(column: Column, sets: Sequence[str]) -> int:
    rows = column.rows(column.seeds[0])
    return len({rows[ood].get("vote") or ood for ood in sets})


def _seeds(values: Sequence[float | None]) -> str:
    """Mean, and the sample standard deviation over seeds."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{fmean(known):.1f}" + (f" ± {stdev(known):.1f}" if len(known) > 1 else "")


def _of_id(columns: Sequence[Column]) -> list[list[str]]:
    """What is measured without OOD sets, controls and attacks among it."""
    lines = []
    for key in ("accuracy", "ece", "linear_probe"):
        values = [[_id_value(trial, key) for trial in column.seeds] for column in columns]
        lines.append([f"ID {TITLES[key]}", *(_seeds(seeds) for seeds in values)])
    for key in ANGLES if any(c.kind.method == "cider" for c in columns) else ():
        values = [[_angle(trial, key) for trial in column.seeds] for column in columns]
        lines.append([f"{key} of the features, degrees", *(_seeds(seeds) for seeds in values)])
    for name in ("resampled", "jpeg"):
        values = [[_control(trial, name, column.kind.score) for trial in column.seeds] for column in columns]
        lines.append([f"control: AUROC of ID against itself, {name}", *(_seeds(seeds) for seeds in values)])
    return lines + _attacks(columns) + [_distances(columns)]


def _attacks(columns: Sequence[Column]) -> list[list[str]]:
    """Accuracy under attack, of the networks as they are and after refinement by the run's own chain."""
    records = [trial.record for column in columns for trial in column.seeds]
    lines = []
    for steps in (0, 10):
        for attack in ATTACKS:
            found = [[attack_of_run(records, trial.run, attack, steps) for trial in c.seeds] for c in columns]
            of = max((hit[1] for seeds in found for hit in seeds if hit), default=0)
            shares = [[None if hit is None else 100 * hit[0] for hit in seeds] for seeds in found]
            epsilon = attack.split()[1]
            under = "without an attack" if epsilon == "0" else f"under PGD, L-infinity {epsilon}/255"
            refined = f", after {steps} steps of refinement" if steps else ""
            lines.append([f"accuracy on {of} images {under}{refined}", *(_seeds(seeds) for seeds in shares)])
    return lines


def _distances(columns: Sequence[Column]) -> list[str]:
    """How far samples lie from test images, by the classifier's own features: no FID."""
    cells = []
    for column in columns:
        known = [(trial.record.get("samples") or {}).get("frechet_distance") or {} for trial in column.seeds]
        cells.append(_seeds([facts["samples"]["value"] if "samples" in facts else None for facts in known]))
    return ["Frechet distance of samples on the classifier's features (not FID)", *cells]


def _id_value(trial: Trial, key: str) -> float | None:
    value = trial.entry["id"].get(key)
    value = value.get("accuracy") if isinstance(value, Mapping) else value
    return None if value is None else 100 * value


def _angle(trial: Trial, key: str) -> float | None:
    features = (trial.entry.get("geometry") or {}).get("features") or {}
    value = features.get("mean_separability" if key == "separability" else key)
    return None if value is None else float(value)


def _control(trial: Trial, name: str, score: str) -> float | None:
    found = [c["auroc"] for c in trial.entry.get("controls", ()) if (c["control"], c["score"]) == (name, score)]
    return 100 * found[0] if found else None


def _papers(paper: Paper, columns: Sequence[Column]) -> list[list[str]]:
    """The paper's means over its own sets, which are others than ours: never subtracted."""
    id_data = columns[0].seeds[0].id_data
    own, lines = paper.sets.get(id_data, ()), []
    for metric in METRICS:
        values = [paper.value(id_data, column.kind.key, MEAN, metric).value for column in columns]
        if any(value is not None for value in values):
            label = f"the paper, its own {len(own)} sets: mean {NAMES[metric]}"
            lines.append([label, *("-" if value is None else f"{value:.1f}" for value in values)])
    return lines


def _caption(columns: Sequence[Column]) -> str:
    """What ran, how it was measured, where, when and at which commits."""
    trials = [trial for column in columns for trial in column.seeds]
    first, ours = trials[0], [trial for trial in trials if not trial.imported]
    protocol = first.entry["protocol"]
    positive = "ID" if protocol["positive"] == "id" else "OOD"
    shown = [
        f"protocol {protocol['name']} ({positive} positive) on the sets of `{first.entry.get('ood_data')}`"
        + limit_of(first),
        _seed_text(ours),
        each_of("outliers", (name_of(t.identity.get("outliers")) for t in ours)),
        each_of("trained in", (t.identity.get("precision") for t in ours)),
        each_of("trained on", (stamp_of(t.record.get("trained") or {}) for t in ours)),
        each_of("evaluated on", (stamp_of(t.entry) for t in trials)),
        each_of("ID images", (id_images(t) for t in trials)),
    ]
    stand_ins = any(row.get("stand_in_for") for trial in trials for row in trial.entry["rows"])
    shown += ["† in the place of a set of the paper"] if stand_ins else []
    shown += _settings_of_labels(columns)
    files = dict.fromkeys(str(trial.record.get("file", trial.run)) for trial in trials)
    text = "; ".join(part for part in shown if part)
    links = ", ".join(f"[{file.removesuffix('.json')}]({LINK}/{file})" for file in files)
    return f"{text[0].upper()}{text[1:]}. Records: {links}."


def _settings_of_labels(columns: Sequence[Column]) -> list[str]:
    """Of a row that ran with several settings: what each folder's code stands for, by the keys that differ."""
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for column in columns:
        first = column.seeds[0]
        rows.setdefault(column.kind.key, {})[first.code] = dict(flatten(first.identity))
    told = {}
    for settings in (own for own in rows.values() if len(own) > 1):
        keys = sorted({key for leaves in settings.values() for key in leaves} - {"seed"})
        apart = [key for key in keys if len({str(leaves.get(key)) for leaves in settings.values()}) > 1]
        for code, leaves in settings.items():
            words = [f"`{key}={override_value(leaves[key])}`" for key in apart if key in leaves]
            told[code] = ", ".join(words) or "none of these"
    return [f"{code} has {words}" for code, words in told.items()]


def limit_of(trial: Trial) -> str:
    """In words, how many images count at most; nothing where all do."""
    limit = trial.entry.get("max_eval_images")
    return f", at most {limit} images of each" if limit else ""


def _seed_text(trials: Sequence[Trial]) -> str:
    seeds = list(dict.fromkeys(str(trial.seed) for trial in trials))
    if len(seeds) < 2:
        return f"percent, seed {seeds[0]}" if seeds else "percent"
    return f"percent, mean ± sample standard deviation of seeds {' and '.join(seeds)}"


def each_of(what: str, values: Iterable[Any]) -> str:
    """What is said of several trials, every value once."""
    listed = _listed(str(value) for value in values if value)
    return f"{what} {listed}" if listed else ""


def _listed(values: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(values))


def stamp_of(facts: Mapping[str, Any]) -> str:
    """Device, day and commit of a record's training or evaluation."""
    return f"{facts.get('device')}, {str(facts.get('date'))[:10]}, commit {facts.get('commit')}"


def id_images(trial: Trial) -> str:
    """The file that the ID test images came from, and how its hash begins."""
    info = trial.entry["id"].get("info") or {}
    return f"{info.get('built_from') or info.get('title')} ({str(info.get('sha256'))[:8]})" if info else ""
