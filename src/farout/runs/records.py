"""run.json, read with distrust: a run's folder may have been copied from anywhere, cut short, or written by hand."""

import re
from pathlib import Path
from typing import Any

from farout.data.paths import is_set_name
from farout.errors import ConfigError, FaroutError
from farout.files import load_json
from farout.report.records import ENTRY, RECORD
from farout.shapes import NUMBER, misfit

Record = dict[str, Any]

_NAMED = {"name": str}
IDENTITY = {
    "method": _NAMED,
    "backbone": _NAMED,
    "transform": _NAMED,
    "id_data": {"name": str, "num_classes": int, "train_split": str},
    "outliers": (str, None),
    "schedule?": dict,
    "holdout?": NUMBER,
    "holdout_rule?": str,
    "precision?": str,
    "parent": (str, None),
    "seed": int,
}
_IMAGES = {"sha256?": str, "side?": int}
SHAPE = {
    "identity": IDENTITY,
    "scale?": (str, None),
    "targets?": {"backbone": str, "transform": str, "method?": str},
    "trained?": {"steps?": int},
    "data?": (dict, None),
    "validation?": (dict, None),
    "evaluation?": dict,
    "composition?": RECORD["composition?"],
    "classifier_trained?": bool,
    "files?": dict,
    "wandb?": {"id": str, "project?": str, "entity?": str},
    "total_steps?": int,
    "adopted?": RECORD["adopted?"],
}


class DamagedRun(FaroutError):
    """A file of a run that is not what was written there; the message says how to have it made anew.

    Attributes:
        path: the file.
        reason: what is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        own = "scripts/import_checkpoint.py" if path.parent.name.startswith("imported-") else "train.py"
        again = f"repeat the `python {own}` command that made it, which moves it aside and makes it anew"
        super().__init__(f"{path} is damaged ({reason}): {again}")
        self.path, self.reason = path, reason


def read_record(folder: Path) -> Record:
    """A run's record, of the right shape throughout; raises DamagedRun where it is absent, cut or of another shape."""
    path = folder / "run.json"
    try:
        record = load_json(path, "")
    except FaroutError as error:
        raise DamagedRun(path, str(error).removeprefix(f"{path} ").removesuffix(": ")) from None
    wrong = misfit(record, SHAPE) or _wrong_data(record.get("data") or {}) or _wrong_values(record["identity"])
    if wrong:
        raise DamagedRun(path, wrong)
    return dict(record)


def _wrong_data(data: dict[str, Any]) -> str | None:
    shapes = {name: _IMAGES for name in ("labelled", "outliers") if data.get(name) is not None}
    return misfit(data, {**shapes, "duplicates_dropped?": dict, "rows_sha256?": str}, "data")


def _wrong_values(identity: dict[str, Any]) -> str | None:
    if identity["id_data"]["num_classes"] < 1:
        return "identity.id_data.num_classes is below 1"
    names = [identity["id_data"]["name"], identity["outliers"] or "none"]
    strange = [name for name in names if not is_set_name(name)]
    return f"{strange[0]!r} is no name of a data set" if strange else None


class DamagedResults(FaroutError):
    """A results.json that holds no evaluations."""


# What a later command looks at in an evaluation of results.json.
KEPT = {**ENTRY, "ood_data": (str, None), "max_eval_images": (int, None)}


def read_results(folder: Path) -> Record:
    """What a run's results.json holds; one without evaluations where there is none. Raises DamagedResults."""
    path = folder / "results.json"
    if not path.exists():
        return {"evaluations": []}
    try:
        known = load_json(path, "")
    except FaroutError as problem:
        raise DamagedResults(str(problem).removesuffix(": ")) from None
    wrong = misfit(known, {"evaluations": [KEPT]})
    if wrong:
        raise DamagedResults(f"{path} is damaged ({wrong})")
    return dict(known)


def is_run_name(name: str) -> bool:
    """Whether this can name a run's folder: one folder, not hidden, and short enough for every file system."""
    return re.fullmatch(r"[\w@+][\w.@+-]*", name) is not None and len(name.encode()) <= 200


def check_run_name(name: str, option: str) -> None:
    """Raise ConfigError, naming the option that gave it, where a run's folder cannot have this name."""
    if not is_run_name(name):
        raise ConfigError(f"{option}: {name!r} is no name of a run's folder: use letters, digits and _ . @ + - alone")
