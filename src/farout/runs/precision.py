"""What trainer.precision=auto means: a fixed rule, or on CPUs that have bf16 instructions what was quicker there.

The precision is part of a run's name, so every command must read the same answer: a timing is made once, before the
first long run of a network in the batches of a method begins, and kept beside the runs. Who only asks never times.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from farout.config.settings import Precision, Settings
from farout.engine.precision import has_bf16_instructions
from farout.engine.progress import say
from farout.errors import FaroutError
from farout.files import load_object, save_json, writing
from farout.runs.environment import conditions
from farout.shapes import NUMBER, misfit

TIME_FROM_STEPS = 500  # a timing takes about ten updates; shorter runs train in fp32
ENTRY = {"precision": str, "seconds": {"fp32": NUMBER, "bf16": NUMBER}}


def resolve_precision(settings: Settings, device: torch.device) -> Precision:
    """What a new run of these settings would train in.

    As asked; for auto bf16 on GPUs that have it, fp32 for methods that want it and on CPUs without bf16 instructions,
    on other CPUs what `remember` was told, and fp32 before that.
    """
    asked = settings.trainer.precision
    if asked != "auto":
        return asked
    if settings.method.kind.full_precision:
        return "fp32"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    seen = remembered(settings, device) if has_bf16_instructions() else None
    return "bf16" if seen is not None and seen["precision"] == "bf16" else "fp32"


def undecided(settings: Settings, device: torch.device) -> bool:
    """Whether only a timing can tell what auto shall be."""
    free = settings.trainer.precision == "auto" and not settings.method.kind.full_precision
    return free and device.type == "cpu" and has_bf16_instructions() and remembered(settings, device) is None


def remembered(settings: Settings, device: torch.device) -> Mapping[str, Any] | None:
    """What a timing saw of this network and method on this machine; None where there was none, and on a GPU."""
    if device.type != "cpu":
        return None
    entry = _entries(_file(settings)).get(_key(settings, device))
    return None if entry is None or misfit(entry, ENTRY) else dict(entry)


def remember(settings: Settings, device: torch.device, seconds: Mapping[Precision, float]) -> None:
    """Keep what a timing saw (seconds of an update), and say what follows; an answer that is there stays."""
    path = _file(settings)
    chosen = min(seconds, key=lambda precision: seconds[precision])
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            known = _entries(path)
            save_json(path, {_key(settings, device): {"precision": chosen, "seconds": dict(seconds)}, **known})
    sides = ", ".join(f"{1000 * spent:.0f} ms in {precision}" for precision, spent in seconds.items())
    say(f"{settings.method.name} on {settings.backbone.name} trains in {chosen}: an update takes {sides} ({path})")


def _file(settings: Settings) -> Path:
    return Path(settings.paths.outputs) / "precision.json"


def _entries(path: Path) -> dict[str, Any]:
    """All answers; a damaged file is as good as none."""
    try:
        return load_object(path)
    except FaroutError:
        return {}


def _key(settings: Settings, device: torch.device) -> str:
    """What an update's time depends on."""
    schedule = settings.schedule
    machine = conditions(device, settings.trainer.channels_last, False)
    facts = {
        **{name: machine[name] for name in ("device", "instructions", "threads", "torch", "channels_last")},
        "method": settings.method.name,
        "backbone": settings.backbone.record(),
        "id_data": settings.id_data.name,
        "batch": [schedule.batch_size, schedule.outlier_batch_size if settings.uses_outliers else None],
    }
    return json.dumps(facts, sort_keys=True)
