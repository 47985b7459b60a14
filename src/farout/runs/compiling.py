"""Whether a run's trunk is compiled: as asked, as the run began, or by what is quicker here."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from farout.engine.progress import say
from farout.engine.states import has_states, latest_conditions
from farout.engine.timing import CompileTiming, Trial, compile_problem, random_states_kept, time_compiling
from farout.runs.run import Run

COMPILE_FROM_STEPS = 2000  # torch.compile takes a minute or two; shorter runs never earn it back
WORTH_TRYING = 900.0  # seconds of work: with less before it, the minutes of a compiler on a CPU are not risked


@dataclass(frozen=True)
class CompileChoice:
    """The question for one session of a run.

    Attributes:
        asked: trainer.compile.
        updates: of the whole run.
        deadline: `time.monotonic()` at which the session ends.
        trial: makes throwaway networks to try the compiler on.
    """

    run: Run
    asked: Literal["auto", "graphs", True, False]
    device: torch.device
    updates: int
    deadline: float | None
    trial: Callable[[], Trial]

    def compiled(self) -> bool:
        """The answer. On a CPU only what works: where compiling fails, one line says so, and training does without.

        On a CPU auto goes by a short timing at the start of a long run, and by its outcome whenever that run goes on:
        compiled or not differs in the last digits. On other accelerators it is not tried.
        """
        if self.device.type == "cuda":
            return self.asked is True or (self.asked == "auto" and self.updates >= COMPILE_FROM_STEPS)
        if self.device.type != "cpu":
            return self.asked is True and self._works()
        if self.asked == "auto":
            begun = self._begun()
            return self._timed() if begun is None else begun and self._works()
        return self.asked is True and self._works()

    def _begun(self) -> bool | None:
        """What the run began with; None where it has not."""
        if has_states(self.run.checkpoint):
            known = latest_conditions(self.run.checkpoint)
            if known is not None:  # a GPU's runs are compiled by a rule that says nothing of this processor
                return bool(known.get("compiled")) and "instructions" in known
        seen = self._timings().get("compile")
        return None if seen is None else bool(seen["chosen"])

    def _timings(self) -> dict[str, Any]:
        known = self.run.record if (self.run.folder / "run.json").exists() else {}
        return dict(known.get("timing") or {})

    def _timed(self) -> bool:
        if self.updates < COMPILE_FROM_STEPS or self._session(float("inf")) < WORTH_TRYING:
            return False
        with random_states_kept():
            found = time_compiling(self.trial, lambda seconds: self._session(seconds) >= WORTH_TRYING)
        left = self._session(found.eager)
        chosen = found.pays(left)
        seen = {"chosen": chosen, "updates": self.updates, "seconds_left": round(left, 1), **asdict(found)}
        self.run.write_record(timing={**self._timings(), "compile": seen})
        if found.compiled is not None or found.problem is not None:
            say(_told(found, chosen, left))
        return chosen

    def _session(self, seconds: float) -> float:
        """Seconds of work before the end of the run or of the session, at so many an update."""
        rest = float("inf") if self.deadline is None else self.deadline - time.monotonic()
        return min(self.updates * seconds, rest)

    def _works(self) -> bool:
        with random_states_kept():
            problem = compile_problem(self.trial())
        if problem is not None:
            say(f"note: the trunk is not compiled, because torch.compile fails here: {problem}")
        return problem is None


def _told(found: CompileTiming, chosen: bool, left: float) -> str:
    if found.compiled is None:
        return f"the trunk is not compiled, because torch.compile fails here: {found.problem}"
    sides = f"an update takes {1000 * found.compiled:.0f} ms compiled, {1000 * found.eager:.0f} ms without"
    spent = f"torch.compile took {found.compiling:.0f} s of about {left / 60:.0f} min of work"
    return f"the trunk is {'' if chosen else 'not '}compiled: {sides}; {spent}"
