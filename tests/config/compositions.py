"""What commands composed at commit 7758c60, before conf/ had other files: compositions.json, and how it was written.

Written with a checkout of that commit on the path, where the modules lay in PACKAGE:

    PYTHONPATH=CHECKOUT/src python tests/config/compositions.py > tests/config/compositions.json
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

FILE = Path(__file__).with_suffix(".json")
PACKAGE = "launch"
METHODS = ("ce", "energy", "oe", "oe_scratch", "cider", "supcon", "jem")
SCALES = ("full", "small", "demo", "smoke")
ID_DATA = ("cifar100", "digits", "fashion_mnist", "imagenet100", "mnist")
OUTLIERS = ("caltech", "cifar100", "flower_patches", "random_images_300k", "tiny_imagenet", "tiny_imagenet_jpeg32")
SCALARS = (
    "method_score",
    "outliers",
    "outlier_order",
    "scale",
    "seed",
    "holdout",
    "holdout_rule",
    "keep",
    "init_from",
    "pretrain",
    "evaluate",
    "max_eval_images",
    "max_fit_images",
    "max_tune_images",
    "geometry_images",
    "linear_probe",
    "allow_batch_norm",
    "run",
)


def commands(experiments: list[str]) -> list[str]:
    """Every experiment, every scale with every method, and data sets, outliers and parents that differ."""
    words = [f"experiment={name}" for name in experiments]
    words += [f"scale={scale} method={method}" for scale in SCALES for method in METHODS]
    words += [f"scale=svhn id_data=svhn method={method}" for method in METHODS[:4]]
    words += [f"scale={scale} id_data=svhn method=oe" for scale in ("small", "smoke")]
    words += [f"id_data={name} method={method}" for name in ID_DATA for method in ("ce", "energy")]
    words += [f"method=oe outliers={name}" for name in OUTLIERS]
    words += [
        "method=ce outliers=cifar100 outlier_batch_size=3",
        "method=energy scale=small pretrain.epochs=2 pretrain.lr=0.05 pretrain.holdout=0.1",
        "method=oe scale=demo id_data=digits init_from=null lr_schedule=steps milestones=[2]",
        "method=jem scale=small loss_bound=null max_restarts=0",
        "method=ce optimizer=adam nesterov=false warm_up_steps=3 lr_schedule=epoch_cosine",
    ]
    return words


def facts(settings: Any) -> dict[str, Any]:
    """Everything that settings say, in plain values; of a class its name without the module."""
    schedule = asdict(settings.schedule)
    if not settings.uses_outliers:
        schedule.pop("outlier_batch_size")
    return {
        **{group: _component(getattr(settings, group)) for group in ("method", "backbone", "transform")},
        "scores": [_component(score) for score in settings.scores],
        "schedule": schedule,
        **{name: asdict(getattr(settings, name)) for name in ("id_data", "ood_data", "protocol", "trainer", "logger")},
        "paths": asdict(settings.paths),
        "scalars": {name: getattr(settings, name) for name in SCALARS},
    }


def _component(found: Any) -> dict[str, Any]:
    return {"name": found.name, "class": found.target.rpartition(".")[2], **found.arguments}


def record(compose: Callable[[list[str]], Any], name: Callable[[Any], str], words: list[str]) -> dict[str, Any]:
    """The run of every command and, by number in the lists of `values`, what it composes."""
    values: dict[str, list[Any]] = {}
    cases = {}
    for line in words:
        settings = compose(line.split())
        numbers = []
        for part, value in json.loads(json.dumps(facts(settings))).items():
            known = values.setdefault(part, [])
            if value not in known:
                known.append(value)
            numbers.append(known.index(value))
        cases[line] = [name(settings), *numbers]
    return {"parts": list(values), "values": values, "cases": cases}


def main() -> None:
    """Print the record of this checkout."""
    compose, runs, settings = (import_module(f"farout.{PACKAGE}.{name}") for name in ("compose", "runs", "settings"))
    folder = settings.ROOT / "conf/experiment"
    experiments = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    found = record(
        compose.compose_settings, lambda known: runs.run_of(known, torch.device("cpu")).name, commands(experiments)
    )
    shown = [f'"parts": {json.dumps(found["parts"])}']
    for key in ("values", "cases"):
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in found[key].items()]
        shown.append(f'"{key}": {{\n' + ",\n".join(lines) + "\n}")
    sys.stdout.write("{" + ",\n".join(shown) + "}\n")


if __name__ == "__main__":
    main()
