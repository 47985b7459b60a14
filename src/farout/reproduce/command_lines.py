"""What to type to make a recorded run again: as it was typed, else by its experiment; with what files have changed."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from farout.config.compose import compose_settings
from farout.errors import ConfigError
from farout.places import conf_file, conf_folders
from farout.report.records import flatten, name_of
from farout.reproduce.trials import Trial

# Method -> the end of its experiment's name, by the folder of conf/experiment that a protocol's rows lie in.
EXPERIMENTS = {
    "energy": {"ce": "softmax", "energy": "energy_ft", "oe": "oe_ft"},
    "oe": {"ce": "baseline", "oe": "oe_tune", "oe_scratch": "oe_scratch"},
    "cider": {"ce": "ce", "cider": "cider", "supcon": "supcon"},
    "jem": {"ce": "ce", "jem": "jem"},
}
AT_TOP = ("method.", "schedule.")  # their values are typed without the group


def command_of(trial: Trial) -> str:
    """The command that makes such a run and its evaluation today.

    It is the one recorded, else that of the run's experiment in conf/. Where a file has been changed since, the values
    that the run was trained with are added, so that the command means this very run.
    """
    tail = f"ood_data={trial.entry.get('ood_data')}"
    composition = trial.record.get("composition")
    if trial.imported and not composition:
        file = (trial.record.get("trained") or {}).get("file", "FILE")
        return f"scripts/import_checkpoint.py {file} --id {trial.id_data}; eval.py run=outputs/runs/{trial.run} {tail}"
    words = _recorded(composition, trial.seed) if composition else _of_experiment(trial, tail)
    return " ".join(["train.py", *words, *_changed_since(words, trial.identity)])


def _recorded(composition: Mapping[str, Any], seed: int) -> list[str]:
    """The overrides by which a run was composed; where its files and logs went is left out."""
    files, changed = composition["files"], composition["changed"]
    experiment = [file.removeprefix("experiment/") for file in files if file.startswith("experiment/")]
    groups = ("method", "id_data", "backbone", "scale", "ood_data")
    chosen = [f"{group}={name}" for group in groups for name in _chosen(files, group)]
    words = [f"experiment={experiment[-1]}"] if experiment else chosen  # the last one builds on those before it
    others = {key: new for key, (_, new) in changed.items() if not key.startswith(("paths.", "logger", "seed"))}
    return [*words, f"seed={seed}", *(f"{key}={override_value(new)}" for key, new in others.items())]


def _chosen(files: Sequence[str], group: str) -> list[str]:
    return [file.removeprefix(f"{group}/") for file in files if file.startswith(f"{group}/")]


def _of_experiment(trial: Trial, tail: str) -> list[str]:
    """Of a run whose overrides nobody recorded: its experiment, by protocol, scale, ID set and method."""
    identity = trial.identity
    protocols = [other["protocol"]["name"] for other in trial.record["evaluations"]]
    method, scale = str(name_of(identity["method"])), str(identity.get("scale"))
    for paper in dict.fromkeys([*protocols, *EXPERIMENTS]):
        row = EXPERIMENTS.get(paper, {}).get(method)
        name = f"{paper}/{scale}/{trial.id_data}_{row}"
        if row is not None and conf_file(f"experiment/{name}").is_file():
            words = [f"experiment={name}", f"seed={trial.seed}"]
            words += [f"outliers={name_of(identity['outliers'])}"] if identity.get("outliers") else []
            return [*words, tail, *(["init_from=RUN"] if trial.from_others else [])]
    chosen = (("method", method), ("id_data", trial.id_data), ("scale", scale))
    return [*(f"{key}={value}" for key, value in chosen), f"seed={trial.seed}", tail]


def _changed_since(words: Sequence[str], identity: Mapping[str, Any]) -> list[str]:
    """Overrides for what these words mean otherwise today: files of another name first, then single values.

    None where they mean nothing any more: an experiment that is gone, a key that has another name.
    """
    try:
        files = [f"{key.removesuffix('.name')}={new}" for key, new in _apart(words, identity) if key.endswith(".name")]
        left = _apart([*words, *files], identity)
    except ConfigError:
        return []
    return [*files, *(f"{_typed(key)}={override_value(new)}" for key, new in left if not key.endswith(".name"))]


def _apart(words: Sequence[str], identity: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(key, what the record has) of each value that these words give otherwise; keys that a record lacks came later."""
    recorded = dict(flatten(identity))
    both = [(key, recorded[key], value) for key, value in _today(tuple(words), conf_folders()) if key in recorded]
    return [(key, known) for key, known, value in both if json.dumps(known) != json.dumps(value)]


@cache
def _today(words: tuple[str, ...], folders: tuple[Path, ...]) -> tuple[tuple[str, Any], ...]:
    """What these words mean, by the files of these folders: composed once, though several pages name each run."""
    settings = compose_settings(words)
    parts = {group: getattr(settings, group).record() for group in ("method", "backbone", "transform", "schedule")}
    return tuple(flatten({**parts, "holdout": settings.holdout}))


def _typed(key: str) -> str:
    group = next((group for group in AT_TOP if key.startswith(group)), "")
    return key.removeprefix(group)


def override_value(value: Any) -> str:
    """A value as Hydra's command line has it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value).replace(" ", "").replace("'", "")
