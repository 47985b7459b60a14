"""How long the recorded runs trained, on what: a table for docs/."""

from collections.abc import Iterable

from farout.papers.claims import SCALES
from farout.report.blocks import pipe_table
from farout.report.records import Record, name_of, size_of
from farout.reproduce.trials import Trial

METHODS = {"ce": "cross-entropy", "oe": "OE", "energy": "energy", "cider": "CIDER", "supcon": "SupCon", "jem": "JEM"}


def times_table(records: Iterable[Record]) -> str:
    """A line for each setting that was trained here, its seeds' times together; the parents' are lines of their own."""
    found: dict[tuple[str, ...], list[Trial]] = {}
    for record in records:
        trial = Trial(record, record["evaluations"][-1])
        if not trial.imported:
            found.setdefault(_where(trial), []).append(trial)
    order = sorted(found, key=lambda key: (list(SCALES).index(key[0]), key[1:]))
    rows = [[SCALES[key[0]], *key[1:3], _times(found[key]), *key[3:]] for key in order]
    return pipe_table(["scale", "what", "updates", "training", "precision", "device, date"], rows)


def _where(trial: Trial) -> tuple[str, ...]:
    """What two runs share whose times stand together: scale, what, updates, precision, device and day."""
    identity, trained = trial.identity, trial.record["trained"]
    network = f"{name_of(identity['backbone'])}{size_of(identity['backbone'])}"
    what = f"{METHODS[name_of(identity['method'])]}, {network}, {trial.id_data}"
    precision = identity.get("precision") or "fp32"
    if (chains := identity["method"].get("sgld_precision")) and chains != precision:
        precision = f"{precision}, chains {chains}"
    return trial.scale, what, f"{trained['steps']:,}", precision, f"{trained['device']}, {str(trained['date'])[:10]}"


def _times(trials: Iterable[Trial]) -> str:
    times = sorted(float(trial.record["trained"]["seconds"]) for trial in trials)
    return " and ".join(f"{seconds / 60:.1f}" for seconds in times) + " minutes"
