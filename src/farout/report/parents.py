"""The run that a run started from, found beside it: a record names it only by a fingerprint or by its weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farout.errors import FaroutError
from farout.files import load_object

WEIGHTS = "weights-"  # begins the mark of a parent that was named by its folder; the rest is the weights' SHA-256


def parent_of(run: Path, identity: Mapping[str, Any]) -> str | None:
    """The name of the folder beside `run` that the identity's `parent` means; None where it has none, or it is gone."""
    mark = identity.get("parent")
    if not isinstance(mark, str) or not mark:
        return None
    others = sorted(path for path in run.absolute().parent.glob("*/") if path.name != run.absolute().name)
    if mark.startswith(WEIGHTS):
        found = (path for path in others if _weights_of(path).startswith(mark.removeprefix(WEIGHTS)))
    else:  # the folder's name ends in fingerprint and seed
        found = (path for path in others if path.name.endswith(f"-{mark}-s{identity.get('seed')}"))
    return next((path.name for path in found), None)


def _weights_of(run: Path) -> str:
    """The SHA-256 of a run's weights as training wrote it down, or none."""
    try:
        return str((load_object(run / "run.json").get("files") or {}).get("weights.safetensors") or " ")
    except (FaroutError, AttributeError):
        return " "
