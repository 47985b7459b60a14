"""The files that training goes on from: which is the furthest, which to trust, and where a divergence returns to.

`checkpoint.pt` is the latest state. Where restarts are granted, two more hold the states that a divergence returns to,
in turn: the last and the one before. Each state says all that decides what happens next, so any one file will do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from farout.engine.checkpoint import DamagedState, read_state
from farout.engine.progress import say
from farout.errors import FaroutError
from farout.files import set_aside, writing

CPU = torch.device("cpu")


@dataclass(frozen=True)
class RestartPoint:
    """A state that a divergence may return to: in which file, and where of training (restarts so far, update)."""

    slot: int
    restarts: int
    step: int

    @property
    def position(self) -> tuple[int, int]:
        return self.restarts, self.step


def point_file(path: Path, slot: int) -> Path:
    """Where slot 0 or 1 of the checkpoint `path` lies."""
    return path.with_suffix(f".back{slot}{path.suffix}")


def state_files(path: Path) -> list[Path]:
    """Every file that may belong to the checkpoint `path`."""
    return [path, point_file(path, 0), point_file(path, 1)]


def remove_states(path: Path) -> None:
    """Remove the states of a run that needs them no more, also those of versions before. Raises UnwritableError."""
    for file in (*state_files(path), path.with_suffix(".earlier.pt")):
        with writing(file):
            file.unlink(missing_ok=True)


def has_states(path: Path) -> bool:
    """Whether there is any state to go on from."""
    return any(file.exists() for file in state_files(path))


def position(state: Mapping[str, Any]) -> tuple[int, int]:
    """(restarts, update) of a state: it only ever grows, so the larger one is further."""
    return len(state.get("restarts", ())), int(state["step"])


def furthest(path: Path) -> tuple[int, int] | None:
    """How far the states of a run reach; None where no file of them can be read."""
    found = []
    for file in filter(Path.exists, state_files(path)):
        try:
            found.append(position(read_state(file, CPU)[0]))
        except (DamagedState, KeyError, TypeError, ValueError):
            continue
    return max(found, default=None)


def latest_conditions(path: Path) -> dict[str, Any] | None:
    """Under what the last session of a run trained, by its furthest state; None where no file can be read."""
    found = []
    for file in filter(Path.exists, state_files(path)):
        try:
            state = read_state(file, CPU)[0]
            found.append((position(state), dict((state.get("conditions") or [{}])[-1])))
        except (DamagedState, KeyError, TypeError, ValueError):
            continue
    return max(found, key=lambda each: each[0])[1] if found else None


@dataclass
class States:
    """The states beside `path` that belong to this run; whatever else lies there is named and moved aside.

    Args:
        owner: the run's full identity; a state of another one is moved aside. Empty: not looked at.
        tag, total: the images and the length; a state of others is an error, because they are part of what was asked.
    """

    path: Path
    owner: str
    tag: str
    total: int
    moved: list[str] = field(default_factory=list)

    def latest(self) -> dict[str, Any] | None:
        """The furthest state that can be trusted, or None; what was moved aside, and what follows, in one line."""
        known = [state for file in state_files(self.path) if (state := self._trusted(file)) is not None]
        state = max(known, key=position, default=None)
        follows = "training starts afresh" if state is None else f"training goes on from step {state['step']}"
        self._tell(follows)
        return state

    def at(self, point: RestartPoint) -> dict[str, Any] | None:
        """The state of a point; None where its file is gone or holds something else."""
        state = self._trusted(point_file(self.path, point.slot))
        self._tell("training returns to an earlier state")
        return state if state is not None and position(state) == point.position else None

    def _tell(self, follows: str) -> None:
        if self.moved:
            say(f"note: {'; '.join(self.moved)}: {follows}")
            self.moved.clear()

    def _trusted(self, file: Path) -> dict[str, Any] | None:
        if not file.exists():
            return None
        try:
            state, checked = read_state(file, CPU)
            owner = state.get("owner")
            if owner is not None and not checked:
                raise DamagedState(f"{file} has lost its checksum")
            position(state)
        except (DamagedState, KeyError, TypeError, ValueError):
            self._move(file, "is damaged", "damaged")
            return None
        if owner and self.owner and owner != self.owner:
            self._move(file, f"belongs to another run ({owner.partition(' ')[0]})", "foreign")
            return None
        if state.get("tag") != self.tag or state.get("total") != self.total:
            raise FaroutError(f"{file} belongs to other data or another schedule: remove it to start this run afresh")
        if not checked:
            say(f"note: {file} was written before states had checksums; only its archive's own were looked at")
        return state

    def _move(self, file: Path, what: str, suffix: str) -> None:
        self.moved.append(f"{file} {what} and was moved to {set_aside(file, suffix).name}")
