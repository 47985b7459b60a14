"""The count: tried, equal and left over, by stage and signal."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

COLUMNS = ("SIGKILL", "SIGTERM", "SIGUSR1", "disk")
KINDS = ("files", "locks", "processes")


@dataclass
class Tally:
    """Of all interruptions; `disk` is one without a signal."""

    tried: Counter[tuple[str, str]] = field(default_factory=Counter)
    equal: Counter[tuple[str, str]] = field(default_factory=Counter)
    left: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: dict[str, str] = field(default_factory=dict)  # stage -> why it was not tried
    faults: list[str] = field(default_factory=list)

    def add(self, stage: str, interruptions: Sequence[str], equal: bool) -> None:
        """Those of one end that was compared."""
        for how in interruptions:
            self.tried[stage, how] += 1
            self.equal[stage, how] += equal

    def leave(self, stage: str, kind: str, names: Sequence[str]) -> None:
        """What was left over."""
        self.left[stage, kind] += len(names)
        if names:
            self.faults.append(f"{stage}: {kind} left over: {', '.join(names)}")

    def lines(self, stages: Iterable[str]) -> list[str]:
        """A table in Markdown: `equal/tried` for each signal, and what was left over."""
        stages = list(stages)
        lines = ["| stage: equal of tried | " + " | ".join([*COLUMNS, *(f"left-over {kind}" for kind in KINDS)]) + " |"]
        lines.append("|---" * (1 + len(COLUMNS) + len(KINDS)) + "|")
        for stage in stages:
            if stage in self.refused:
                lines.append(f"| {stage} | {self.refused[stage]} |" + " |" * (len(COLUMNS) + len(KINDS) - 1))
            else:
                lines.append(self._line(stage, [stage]))
        return [*lines, self._line("all", stages)]

    def _line(self, title: str, stages: Iterable[str]) -> str:
        stages = list(stages)
        cells = []
        for how in COLUMNS:
            tried = sum(self.tried[stage, how] for stage in stages)
            cells.append(f"{sum(self.equal[stage, how] for stage in stages)} of {tried}" if tried else "")
        cells += [str(sum(self.left[stage, kind] for stage in stages)) for kind in KINDS]
        return f"| {title} | " + " | ".join(cells) + " |"
