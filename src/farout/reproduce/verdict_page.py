"""Verdicts as Markdown and for the terminal: a matrix of claims and scales, and a line for each with its figures."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from farout.papers import load
from farout.papers.claims import SCALES, Claim
from farout.report.blocks import pipe_table
from farout.report.records import trunk_of
from farout.reproduce.result_tables import LINK, PAPERS
from farout.reproduce.rows import usual_id
from farout.reproduce.trials import LITERATURE
from farout.reproduce.verdicts import MIXED, NO_INTERVAL, NOT_RUN, REPRODUCED, Found, Verdict

SHORT = {
    "full": "full",
    "medium": "medium",
    "small": "small",
    "from_others": "small, from others' weights",
    "from_trained": "small from one trained network",
    "demo": "demo",
}
SHORT[LITERATURE] = "networks of the literature"


def matrix(verdicts: Sequence[Verdict]) -> str:
    """Claims by scale, a word in each cell; "-" where a claim cannot be tested at a scale."""
    scales = [scale for scale in SCALES if any(v.scale == scale and v.found for v in verdicts)]
    rows = []
    for claim in dict.fromkeys(v.claim.key for v in verdicts):
        mine = [v for v in verdicts if v.claim.key == claim]
        cells = [_cell([v for v in mine if v.scale == scale]) for scale in scales]
        rows.append([f"{PAPERS[mine[0].claim.paper]}: {mine[0].claim.says}", *cells])
    return pipe_table(["claim", *(SHORT[scale] for scale in scales)], rows)


def _cell(verdicts: Sequence[Verdict]) -> str:
    """Words by ID set, which is named where there are several or another than usual."""
    words = []
    for verdict in verdicts:
        told = len(verdicts) > 1 or (verdict.found and verdict.id_data != usual_id(verdict.scale))
        words.append(f"{_word(verdict)} ({verdict.id_data})" if told else _word(verdict))
    return "<br>".join(words) or "-"


def _word(verdict: Verdict) -> str:
    """The word; where several disagree how many reproduce the claim; without an interval where it points."""
    if verdict.word == NO_INTERVAL:
        return _pointing(verdict)
    if verdict.word != MIXED or len(verdict.found) < 2:
        return verdict.word
    count = sum(found.verdict == REPRODUCED for found in verdict.found)
    return f"{verdict.word}: reproduced on {count} of {len(verdict.found)}"


def _pointing(verdict: Verdict) -> str:
    """No verdict, but a direction."""
    towards = {_towards(verdict.claim, found) for found in verdict.found}
    word = {True: "points that way", False: "points the other way"}.get(towards.pop()) if len(towards) == 1 else None
    return f"{word or 'points both ways'}; no interval"


def _towards(claim: Claim, found: Found) -> bool:
    bound = -claim.margin if claim.direction == "kept" else 0.0
    return found.difference < bound if claim.direction == "less" else found.difference > bound


def details(verdicts: Sequence[Verdict]) -> str:
    """The claims of each paper under a heading of its own."""
    parts = []
    for name in dict.fromkeys(v.claim.paper for v in verdicts):
        mine = [v for v in verdicts if v.claim.paper == name]
        parts += [f"### {load(name).reference}", "", claim_details(mine)]
    return "\n".join(parts)


def claim_details(verdicts: Sequence[Verdict], folder: str = "../results") -> str:
    """A table for each claim: scale, verdict, figures with interval, seeds, records; `folder` is where links lead."""
    parts = []
    for claim in dict.fromkeys(v.claim.key for v in verdicts):
        own = [v for v in verdicts if v.claim.key == claim]
        parts += [*_claim_lines(own[0].claim), "", _lines(own), ""]
    return "\n".join(parts).replace(LINK, folder)


def _claim_lines(claim: Claim) -> list[str]:
    """The claim, where the paper has it, and what would show it."""
    source = f" ({', '.join(claim.source)})" if claim.source else ""
    over = {"mean": " in the mean over the sets", "each": " on every set"}
    where = over.get(claim.over, "") if isinstance(claim.over, str) else f" in the mean over {', '.join(claim.over)}"
    measure = claim.measure.upper() if claim.measure in UPPER else claim.measure
    detection = claim.measure in ("fpr95", "auroc", "aupr")
    way = {"less": "is lower than", "more": "is higher than", "kept": f"is at most {claim.margin:g} below"}
    seconds = " or ".join(second.label for second in claim.second)
    shown = f"{MEASURES.get(claim.measure, measure)} of {claim.first.label} {way[claim.direction]} that of {seconds}"
    reported = "; ".join(f"{name} {a:.2f} against {b:.2f}" for name, (a, b) in claim.reported.items())
    return [
        f"**{claim.says}** (`{claim.key}`)",
        "",
        f"The paper: {claim.table}, {claim.certainty}{source}{f': {reported}' if reported else ''}. "
        f"Shown where {shown}{where if detection else ''}.",
    ]


UPPER = ("fpr95", "auroc", "aupr", "ece")
MEASURES = {
    "linf 8": "accuracy under PGD of L-infinity 8/255",
    "rms": "RMS calibration error over ID and OOD images, at the tuned temperature where a holdout tuned one,",
    "separability": "mean separability",
}


def _lines(verdicts: Sequence[Verdict]) -> str:
    """A line for each scale and ID set; scales without runs share one."""
    rows = []
    for verdict in (v for v in verdicts if v.found):
        where = f"{SCALES[verdict.scale]}, {verdict.id_data}"
        figures = "<br>".join(_figures(found, _namesakes(found, verdict)) for found in verdict.found)
        runs = "<br>".join(_records(found) for found in verdict.found)
        rows.append([where, f"**{_word(verdict)}**", figures, runs])
    absent = [SCALES[v.scale] for v in verdicts if not v.found]
    if absent:
        rows.append([", ".join(absent), NOT_RUN, "", ""])
    return pipe_table(["scale, ID set", "verdict", "first, second, difference [95 % interval]", "records"], rows)


def _namesakes(found: Found, verdict: Verdict) -> bool:
    """Whether another comparison of the verdict is of the same network, evaluated alike: of other settings."""
    trunks = [(_trunk(other), other.case.first[0].conditions) for other in verdict.found]
    return trunks.count((_trunk(found), found.case.first[0].conditions)) > 1


def _trunk(found: Found) -> str:
    return trunk_of(found.case.first[0].identity["backbone"])


def _figures(found: Found, told: bool) -> str:
    """Network, both sides, their difference with its interval, and what kind of interval that is.

    `told`: with the codes of the settings' folders, which tell it from others of the same network.
    """
    trial = found.case.first[0]
    a, b = found.values
    codes = f", {trial.code} against {found.case.second[0].code}" if told else ""
    text = f"{_trunk(found)}{codes}: {a:.2f}, {b:.2f}, {found.difference:+z.2f}"
    if found.interval is not None:
        text += f" [{found.interval[0]:+z.2f}, {found.interval[1]:+z.2f}]"
    aside = f"; {found.aside}" if found.aside else ""
    name, sets, limit = trial.conditions
    where = f"{name} protocol on {sets}" + (f", at most {limit} images of each" if limit else "")
    return f"{text} ({found.how}; {_how_many(found)}; {where}{aside})"


def _how_many(found: Found) -> str:
    first, second = found.case.first, found.case.second
    if all(trial.imported for trial in first):
        return "one network"
    text = f"seed{'s' if len(first) > 1 else ''} {', '.join(str(trial.seed) for trial in first)}"
    return text if len(first) == len(second) else f"{text} against {len(second)} network"


def _records(found: Found) -> str:
    files = dict.fromkeys(str(trial.record.get("file", f"{trial.run}.json")) for trial in found.case.trials)
    return ", ".join(f"[{file.removesuffix('.json')}]({LINK}/{file})" for file in files)


def to_terminal(verdicts: Sequence[Verdict]) -> Table:
    """For `rich.console.Console().print`: a line for every claim, scale and ID set that was run."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("paper", "claim", "scale", "ID", "verdict", "first", "second", "difference", "95 % interval", "how"):
        grid.add_column(column, justify="right" if column in ("first", "second", "difference") else "left")
    for verdict in (v for v in verdicts if v.found):
        for found in verdict.found:
            bounds = found.interval
            interval = "" if bounds is None else f"{bounds[0]:+.2f} to {bounds[1]:+.2f}"
            figures = (f"{found.values[0]:.2f}", f"{found.values[1]:.2f}", f"{found.difference:+.2f}", interval)
            place = (verdict.claim.paper, verdict.claim.key, verdict.scale, verdict.id_data)
            grid.add_row(*place, found.verdict, *figures, " ".join(filter(None, (found.how, found.aside))))
    return grid
