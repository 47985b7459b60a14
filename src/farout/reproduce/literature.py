"""Tables of networks that others trained: what energy has more than every other score, and what training adds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from farout.metrics.paired import MEAN
from farout.papers import RowKind, load
from farout.report.blocks import pipe_table
from farout.report.records import Record
from farout.report.tables.cells import mean_of_votes
from farout.reproduce.result_tables import LINK, limit_of, stamp_of
from farout.reproduce.score_tables import MARKED, PAIRED, by_score, in_points, name_of_trial, title_of
from farout.reproduce.trials import Trial, trials_of

PROTOCOL = "energy"
SCORES = ("energy", "msp")
LISTS = ("genuine", "stand_in")  # in this order: sets under their own names first
Difference = tuple[Mapping[str, Any], bool]  # as recorded, and whether it is the first network's less the second's


def literature_tables(
    records: Iterable[Record], paired: Sequence[Mapping[str, Any]], folder: str = "../results"
) -> str:
    """Markdown: for each ID set, list of OOD sets and limit of images a table by score and one of energy's lead.

    After them stand comparisons of two such networks. `folder` is where links to records lead.
    """
    every = [t for t in trials_of(records) if t.imported and t.entry["protocol"]["name"] == PROTOCOL]
    groups: dict[tuple[Any, ...], dict[str, Trial]] = {}
    for trial in every:
        groups.setdefault((trial.id_data, trial.entry.get("ood_data"), trial.conditions[-1]), {})[trial.run] = trial
    parts: list[str] = []
    for key in sorted(groups, key=_rank):
        trials = sorted(groups[key].values(), key=lambda trial: (trial.outliers_of_others, trial.run))
        where = f"sets of `{trials[0].entry.get('ood_data')}`{limit_of(trials[0])}"
        parts += by_score(f"{title_of(trials[0])}, networks of others, {where}", trials)
    latest = {(trial.run, *trial.conditions): trial for trial in every}
    for record in sorted(paired, key=lambda r: _rank((str(r["file"]), r["ood_data"], r["max_eval_images"]))):
        parts += _compared(record, latest)
    return "\n".join(parts).replace(LINK, folder)


def _rank(key: tuple[Any, ...]) -> tuple[Any, ...]:
    id_data, ood_data, limit = key
    return LISTS.index(ood_data) if ood_data in LISTS else len(LISTS), str(ood_data), id_data, limit is not None


def _compared(record: Mapping[str, Any], latest: Mapping[tuple[Any, ...], Trial]) -> list[str]:
    """Two networks of others beside each other: set by set, what the second has more."""
    conditions = (record["protocol"]["name"], record["ood_data"], record["max_eval_images"])
    trials = [latest.get((run["run"], *conditions)) for run in record["runs"]]
    known = [trial for trial in trials if trial is not None]
    if len(trials) != 2 or len(known) != 2:
        return []
    before, after = sorted(known, key=lambda trial: trial.outliers_of_others)
    where = f"sets of `{record['ood_data']}`{limit_of(before)}"
    heading = f"### {title_of(before)}: {name_of_trial(before)} and {name_of_trial(after)}, {where}"
    caption = (
        f"FPR95, percent, of both networks, and what the second has more [{PAIRED}]; "
        f"protocol {record['protocol']['name']}. {MARKED} Compared on "
        f"{stamp_of(record)}: [record]({LINK}/{record['file']})."
    )
    kinds = [kind for kind in SCORES if _of_pair(record, before.run, kind)]
    head = ["", *(text for kind in kinds for text in (f"{_label(kind)}, first", "second", "difference"))]
    lines = list(_set_lines(record, before, after, kinds))
    return [heading, "", caption, "", pipe_table(head, lines, 1), "", *_id_lines(record, before, after)]


def _label(score: str) -> str:
    kinds: Iterable[RowKind] = load(PROTOCOL).kinds.values()
    return next((kind.label for kind in kinds if kind.score == score), score)


def _of_pair(record: Mapping[str, Any], before: str, score: str) -> dict[str, Difference]:
    """OOD set -> the difference of both networks under a score."""
    found = {}
    for difference in record["differences"]:
        first, second = (record["sides"][difference[end]] for end in ("first", "second"))
        if "fpr95" in difference and first["score"] == second["score"] == score:
            found[str(difference["ood"])] = (difference, first["runs"] == [before])
    return found


def _set_lines(record: Mapping[str, Any], before: Trial, after: Trial, scores: Sequence[str]) -> Iterator[list[str]]:
    pairs = {score: _of_pair(record, before.run, score) for score in scores}
    titles = {row["ood"]: str(row.get("title") or row["ood"]) for row in before.entry["rows"]}
    for ood in dict.fromkeys(ood for pair in pairs.values() for ood in pair if ood != "id"):
        cells = ["**mean**" if ood == MEAN else titles.get(ood, ood)]
        for score in scores:
            difference, forward = pairs[score][ood]
            over = difference.get("over") or [ood]
            for trial in (before, after):
                rows = [row for row in trial.entry["rows"] if row["score"] == score and row["ood"] in over]
                value = mean_of_votes(rows, "fpr95")
                cells.append("-" if value is None else f"{100 * value:.1f}")
            cells.append(in_points(difference["fpr95"], other_way=forward))
        yield cells


def _id_lines(record: Mapping[str, Any], before: Trial, after: Trial) -> list[str]:
    """Accuracy and ECE of both, in a sentence."""
    found = [difference for difference in record["differences"] if difference["ood"] == "id"]
    if not found:
        return []
    forward = record["sides"][found[0]["first"]]["runs"] == [before.run]
    said = []
    for key, name in (("accuracy", "accuracy"), ("ece", "ECE")):
        values = " and ".join(f"{100 * trial.entry['id'][key]:.2f} %" for trial in (before, after))
        said.append(f"{name} {values}, difference {in_points(found[0][key], other_way=forward)}")
    return [f"On ID images: {'; '.join(said)}.", ""]
