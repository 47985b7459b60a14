"""The lines of the benchmark's table: ours beside a baseline that does the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from farout.errors import FaroutError

T = TypeVar("T")
Size = Literal["quick", "cpu", "cuda"]


@dataclass(frozen=True)
class Place:
    """Where it is measured, and how large.

    Attributes:
        size: "quick" tries everything in half a minute and measures nothing worth keeping.
        rounds: turns that every task takes.
        compiled: whether our training steps have their trunk compiled, as long runs on CUDA have.
    """

    device: torch.device
    size: Size
    rounds: int
    compiled: bool = False

    def pick(self, quick: T, cpu: T, cuda: T) -> T:
        """The value for this size."""
        return {"quick": quick, "cpu": cpu, "cuda": cuda}[self.size]


@dataclass(frozen=True)
class Side:
    """What was done, and the least and the median that it took."""

    what: str
    least: float
    middle: float

    @classmethod
    def of(cls, what: str, values: Sequence[float]) -> "Side":
        """Of the values of all turns."""
        return cls(what, min(values), median(values))

    def record(self) -> dict[str, Any]:
        return {"what": self.what, "min": self.least, "median": self.middle}


@dataclass(frozen=True)
class Line:
    """One comparison.

    Attributes:
        part: the part of the benchmark that it belongs to.
        name, scale: what was done, and how much of it.
        agreement: how both were found to do the same.
        turns: that each took.
        unit: of both sides, seconds or MiB.
    """

    part: str
    name: str
    scale: str
    ours: Side
    baseline: Side
    agreement: str
    turns: int
    unit: Literal["s", "MiB"] = "s"

    @property
    def ratio(self) -> float:
        """Baseline by ours, of the least values: above 1 where ours takes less."""
        return self.baseline.least / self.ours.least

    def record(self) -> dict[str, Any]:
        """As it stands in results/bench-DEVICE.json."""
        return {
            "part": self.part,
            "name": self.name,
            "scale": self.scale,
            "ours": self.ours.record(),
            "baseline": self.baseline.record(),
            "ratio": self.ratio,
            "unit": self.unit,
            "turns": self.turns,
            "agreement": self.agreement,
        }


@dataclass(frozen=True)
class Unmeasured:
    """A comparison that could not be made here, and why."""

    part: str
    name: str
    reason: str

    def record(self) -> dict[str, Any]:
        """As it stands in results/bench-DEVICE.json."""
        return {"part": self.part, "name": self.name, "not_measured": self.reason}


@dataclass(frozen=True)
class Growth:
    """How the seconds of one thing grow with its size.

    Attributes:
        part, name, scale: as of a `Line`.
        by: what grew.
        seconds: size -> the seconds that it took, sizes ascending.
        turns: that each size took.
    """

    part: str
    name: str
    scale: str
    by: str
    seconds: Mapping[int, Side]
    turns: int

    @property
    def slope(self) -> float:
        """Of log seconds over log size, by least squares: 1 is linear."""
        return _slope(self.seconds)

    @property
    def last_slope(self) -> float:
        """The same over the two largest sizes alone, where what any size costs weighs least."""
        return _slope(dict(list(self.seconds.items())[-2:]))

    def record(self) -> dict[str, Any]:
        """As it stands in results/bench-DEVICE.json."""
        return {
            "part": self.part,
            "name": self.name,
            "scale": self.scale,
            "by": self.by,
            "points": [{"size": n, "min": side.least, "median": side.middle} for n, side in self.seconds.items()],
            "slope": self.slope,
            "last_slope": self.last_slope,
            "unit": "s",
            "turns": self.turns,
        }


def _slope(seconds: Mapping[int, Side]) -> float:
    sizes = np.log(list(seconds))
    return float(np.polyfit(sizes, np.log([side.least for side in seconds.values()]), 1)[0])


AnyLine = Line | Growth | Unmeasured


def not_installed(part: str, name: str, package: str) -> Unmeasured:
    """The line of a baseline whose package is absent."""
    return Unmeasured(part, name, f"{package} is not installed: pip install {package}")


class Different(FaroutError):
    """Ours and the baseline do not do the same, so that their times mean nothing."""


def require_close(what: str, ours: Any, baseline: Any, tolerance: float) -> str:
    """Raise Different unless numbers or arrays agree to `tolerance` of the baseline's largest; says so otherwise."""
    a, b = (
        np.asarray(side.detach().cpu() if torch.is_tensor(side) else side, dtype=np.float64)
        for side in (ours, baseline)
    )
    if a.shape != b.shape:
        raise Different(f"{what}: ours has shape {a.shape}, the baseline {b.shape}: nothing is compared")
    apart = float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) if b.size else 0.0
    if not apart <= tolerance:
        raise Different(
            f"{what}: ours and the baseline differ by {apart:.1e}, more than {tolerance:g}: nothing is compared"
        )
    return f"{what} equal to {tolerance:g}"
