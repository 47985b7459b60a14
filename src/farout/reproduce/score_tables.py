"""Every score of several networks in one table, and what energy has more than each of the others."""

from collections.abc import Iterable, Sequence

from farout.metrics.paired import MEAN
from farout.papers.claims import SCALES
from farout.report.blocks import pipe_table
from farout.report.records import Record, name_of
from farout.report.tables.cells import mean_of_votes
from farout.reproduce.result_tables import LINK, each_of, limit_of, stamp_of
from farout.reproduce.trials import Trial, largest, trials_of

WITH_OUTLIERS = "*"
MARKED = f"{WITH_OUTLIERS} fine-tuned by others with outliers."
PAIRED = "95 % paired bootstrap interval over images"


def score_tables(records: Iterable[Record], scale: str = "full", folder: str = "../results") -> str:
    """Markdown: every score, and calibration, of all networks of ours at a scale; a table for each list of OOD sets.

    Under its paper's protocol; `folder` is where links to records lead.
    """
    everything = trials_of(records)
    calibrated = largest(everything)
    groups: dict[tuple[object, ...], dict[str, Trial]] = {}
    for trial in everything:
        if trial.scale == scale and trial.entry["protocol"]["name"] != "plain":
            groups.setdefault((*trial.network, *trial.conditions), {})[trial.run] = trial
    parts: list[str] = []
    for by_run in groups.values():
        trials = list(by_run.values())
        first = trials[0]
        network = "".join(first.network[:2])
        where = f"{title_of(first)}, {network}, sets of `{first.entry.get('ood_data')}`{limit_of(first)}"
        parts += by_score(f"Every score: scale {SCALES[scale]}, {where}", trials)
        parts += calibration_table(
            f"Calibration: scale {SCALES[scale]}, {where}", [t for t in trials if t in calibrated]
        )
    return "\n".join(parts).replace(LINK, folder)


def calibration_table(heading: str, trials: Sequence[Trial]) -> list[str]:
    """Calibration errors of every network, on ID images alone and with those of each OOD set among them, in percent."""
    known = {trial.run: trial.entry["calibration"] for trial in trials if trial.entry.get("calibration")}
    if not known:
        return []
    own = [trial for trial in trials if trial.run in known]
    temperatures = [known[trial.run]["temperature"] for trial in own]
    shown = " and ".join("1, none was tuned" if t is None else f"{t:.2f}" for t in dict.fromkeys(temperatures))
    caption = (
        "RMS calibration error over bins of 100 images / soft F1 of finding errors by doubt, percent; OOD images count "
        f"as errors (Hendrycks et al., ICLR 2019). Temperature {shown}."
    )
    sets = {row["ood"]: row.get("title") or row["ood"] for trial in own for row in trial.entry["rows"]}
    lines = [["ID images alone", *(_errors(known[trial.run]["id"]) for trial in own)]]
    for ood, title in sets.items():
        rows = [{row["ood"]: row for row in known[trial.run]["rows"]}.get(ood) for trial in own]
        lines.append([f"with {title}", *("-" if row is None else _errors(row) for row in rows)])
    return [f"### {heading}", "", caption, "", pipe_table(["", *(map(name_of_trial, own))], lines, 1), ""]


def _errors(measures: dict[str, float | None]) -> str:
    values = [measures[key] for key in ("rms", "soft_f1")]
    return " / ".join("-" if value is None else f"{100 * value:.1f}" for value in values)


def by_score(heading: str, trials: Sequence[Trial]) -> list[str]:
    """Mean FPR95 / AUROC of every network under every score; under it what energy has more than the others."""
    scores = list(dict.fromkeys(row["score"] for trial in trials for row in trial.entry["rows"]))
    titles = {row["ood"]: str(row.get("title") or row["ood"]) for row in trials[0].entry["rows"]}
    sets = [ood for ood in titles if all(any(row["ood"] == ood for row in t.entry["rows"]) for t in trials)]
    protocol = trials[0].entry["protocol"]["name"]
    caption = (
        f"Mean FPR95 / AUROC, percent, one network each, protocol {protocol}, over "
        f"{', '.join(titles[ood] for ood in sets)} (sets of one kind share a vote). "
        f"{each_of('Evaluated on', (stamp_of(t.entry) for t in trials))}."
    )
    caption += f" {MARKED}" if any(t.outliers_of_others for t in trials) else ""
    lines = [[_network(trial), *(_of_score(trial, score, sets) for score in scores)] for trial in trials]
    parts = [f"### {heading}", "", caption, "", pipe_table(["network", *scores], lines, 1), ""]
    others = [score for score in scores if score != "energy" and any(_lead(trial, score) for trial in trials)]
    if others:
        leads = [[name_of_trial(trial), *(_lead(trial, score) or "-" for score in others)] for trial in trials]
        parts += [
            f"Mean FPR95 of energy less that of each other score, over all sets of a network, points [{PAIRED}]:",
            "",
            pipe_table(["network", *others], leads, 1),
            "",
        ]
    return parts


def title_of(trial: Trial) -> str:
    """The ID set."""
    return str((trial.entry["id"].get("info") or {}).get("title") or trial.id_data)


def name_of_trial(trial: Trial) -> str:
    """A network of others by its file, marked where it saw outliers; one of ours by method and seed."""
    if not trial.imported:
        return f"{name_of(trial.identity['method'])}, seed {trial.seed}"
    return trial.run.removeprefix("imported-") + (f" {WITH_OUTLIERS}" if trial.outliers_of_others else "")


def _network(trial: Trial) -> str:
    facts = trial.entry["id"]
    known = [
        f"{100 * facts[key]:.2f} % {name}" for key, name in (("accuracy", "right"), ("ece", "ECE")) if facts.get(key)
    ]
    file = trial.record.get("file", trial.run)
    return f"[{name_of_trial(trial)}]({LINK}/{file}) ({', '.join(known)})"


def _of_score(trial: Trial, score: str, sets: Sequence[str]) -> str:
    rows = [row for row in trial.entry["rows"] if row["score"] == score and row["ood"] in sets]
    means = [mean_of_votes(rows, metric) for metric in ("fpr95", "auroc")]
    return " / ".join(f"{100 * mean:.1f}" for mean in means if mean is not None) or "-"


def _lead(trial: Trial, score: str) -> str | None:
    """Mean FPR95 of energy less the score's, with its interval, where it is recorded."""
    for found in (trial.entry.get("paired") or {}).get("differences", ()):
        if found["ood"] == MEAN and {found["first"], found["second"]} == {"energy", score}:
            return in_points(found["fpr95"], other_way=found["second"] == "energy")
    return None


def in_points(figures: Sequence[float], other_way: bool) -> str:
    """[difference, low, high] of fractions in points; of the other difference where it is that."""
    difference, low, high = (100 * value for value in figures)
    if other_way:
        difference, low, high = -difference, -high, -low
    return f"{difference:+z.1f} [{low:+z.1f}, {high:+z.1f}]"
