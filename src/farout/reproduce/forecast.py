"""How long what is left of a table takes here, stage by stage."""

from dataclasses import dataclass

from farout.reproduce.costs import training_cost
from farout.reproduce.slices import progress_of
from farout.reproduce.stages import Stage, Train


@dataclass(frozen=True)
class Forecast:
    """What is left of a stage: its state in words, updates still to do (training only), seconds."""

    state: str
    steps: int | None
    seconds: float


class Forecaster:
    """Forecasts from one short timing of each row's stage on this device, shared by the seeds."""

    def __init__(self) -> None:
        self.updates: dict[str, tuple[int, float]] = {}
        self.others: dict[tuple[str, str], float] = {}

    def __call__(self, stage: Stage) -> Forecast:
        """Time what has not been timed; a stage that is done needs no timing."""
        if stage.done:
            return Forecast("done", None, 0.0)
        if isinstance(stage, Train):
            return self._training(stage)
        key = (stage.kind, stage.row)
        if key not in self.others:
            self.others[key] = stage.seconds()
        return Forecast("to do", None, self.others[key])

    def _training(self, stage: Train) -> Forecast:
        if stage.row not in self.updates:
            self.updates[stage.row] = training_cost(stage.settings, stage.device)
        total, seconds = self.updates[stage.row]
        progress = progress_of(stage.run)
        step = 0 if progress is None else progress.step
        return Forecast(f"step {step:,} of {total:,}" if step else "to do", total - step, (total - step) * seconds)
