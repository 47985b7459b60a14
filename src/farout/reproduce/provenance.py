"""Under a table of ours: the commands that made it, and what keeps its levels from being the paper's."""

from collections.abc import Sequence

from farout.papers import Paper
from farout.report.records import name_of
from farout.reproduce.command_lines import command_of
from farout.reproduce.ledger import rounded_to
from farout.reproduce.trials import FROM_OTHERS, FROM_TRAINED, Trial

WITHDRAWN = {"energy": "80 Million Tiny Images", "oe": "80 Million Tiny Images"}  # what the papers took as outliers
DIFFERENCES = "#where-this-differs-from-the-official-code-and-the-paper-and-why"
USUAL_SIZE = ("", " of width 64")  # of a network that is as large as the paper's
DEMO = "demo"


def made_by(trials: Sequence[Trial]) -> str:
    """A line for each run, the first seed of several."""
    first: dict[str, list[int]] = {}
    for trial in trials:
        command = command_of(trial).replace(f"seed={trial.seed}", "seed={}")
        seeds = first.setdefault(command, [])
        seeds += [] if trial.seed in seeds or trial.imported else [trial.seed]
    lines = [_line(command, seeds) for command, seeds in first.items()]
    return f"Made by<br>{'<br>'.join(lines)}"


def _line(command: str, seeds: Sequence[int]) -> str:
    typed = "; ".join(f"python {part}" for part in command.split("; ")).format(*seeds[:1])
    others = f", and with {' and '.join(f'seed={seed}' for seed in seeds[1:])}" if len(seeds) > 1 else ""
    return f"`{typed}`{others}"


def reasons(paper: Paper, trials: Sequence[Trial], docs: str) -> str:
    """What of the runs is not as the paper has it; `docs` is where links to docs/ lead."""
    if trials[0].scale == DEMO:
        return "A demonstration on digits: the paper has no such table."
    found = [*_sets(trials, docs), *_outliers(paper, trials), *_network(paper, trials), *_training(trials)]
    return f"Why its levels are not the paper's: {'; '.join(found)}; [all differences, and why]({DIFFERENCES})."


def _sets(trials: Sequence[Trial], docs: str) -> list[str]:
    rows = [row for trial in trials for row in trial.entry["rows"]]
    stand_ins = any(row.get("stand_in_for") for row in rows)
    return [f"other OOD sets ([what stands in, and why]({docs}stand_ins.md))" if stand_ins else "another list of sets"]


def _outliers(paper: Paper, trials: Sequence[Trial]) -> list[str]:
    """The paper's were withdrawn, and not every substitute is at hand."""
    ours = dict.fromkeys(str(name_of(t.identity["outliers"])) for t in trials if t.identity.get("outliers"))
    theirs = WITHDRAWN.get(paper.name)
    return [f"outliers {' and '.join(ours)}, the paper's are {theirs}, withdrawn"] if ours and theirs else []


def _network(paper: Paper, trials: Sequence[Trial]) -> list[str]:
    trunk, size, id_data = trials[0].network
    theirs = paper.backbones.get(id_data)
    same = theirs is not None and _plain(trunk) == _plain(theirs) and size in USUAL_SIZE
    if theirs is None or same:
        return []
    return [f"{trunk}{size}, the paper's is {theirs}"]


def _plain(name: str) -> str:
    return "".join(char for char in name.lower() if char.isalnum())


def _training(trials: Sequence[Trial]) -> list[str]:
    """A shorter schedule, the network that fine-tuning began from, one seed, and rounded weights."""
    ours = [trial for trial in trials if not trial.imported]
    epochs = {f"{name_of(t.identity['method'])} {t.identity['schedule']['epochs']}": None for t in ours}
    scale = str(ours[0].identity.get("scale")) if ours else "full"
    parts = [] if scale == "full" else [f"the schedule of scale {scale} (epochs: {', '.join(epochs)})"]
    scales = {trial.scale for trial in trials}
    parts += ["fine-tuned from a network that others trained"] if FROM_OTHERS in scales else []
    parts += ["every row goes on from one trained network"] if FROM_TRAINED in scales else []
    parts += ["one seed"] if len({trial.seed for trial in ours}) == 1 else []
    kinds = dict.fromkeys(kind for trial in trials for kind in rounded_to(trial.record))
    return parts + [f"weights rounded to {kind} before evaluation" for kind in kinds]
