"""The study of an Optuna sweep: a journal in the sweep's folder, which any process can tell of a trial."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from farout.commands.arguments import plain
from farout.engine.progress import say
from farout.errors import FaroutError, Pruned

if TYPE_CHECKING:
    from farout.runs.validation import Report

JOURNAL, STUDY = "study.journal", "sweep"
SWEEPER = "OptunaSweeper"


@contextmanager
def study_of(folder: Path, sweeper: DictConfig) -> Iterator[Any]:
    """The study in a sweep's folder, made where there is none, for one process at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{JOURNAL}.lock"):
        yield _study(folder, sweeper)


def _study(folder: Path, sweeper: DictConfig) -> Any:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # job lines and the summary say what its lines would
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    startup = sweeper.startup_trials
    pruners: dict[str | None, Callable[[], Any]] = {
        "median": partial(optuna.pruners.MedianPruner, n_startup_trials=startup),
        "halving": optuna.pruners.SuccessiveHalvingPruner,
        None: optuna.pruners.NopPruner,
    }
    pruner = pruners[sweeper.pruner]()
    return optuna.create_study(storage=storage, study_name=STUDY, pruner=pruner, load_if_exists=True)


def reporter(folder: Path, here: Any) -> "Report | None":
    """What a job of this sweeper tells the study while it trains, from whatever process; None for other sweepers'."""
    if not str(here.sweeper._target_).endswith(f".{SWEEPER}"):
        return None
    import optuna

    study = _study(folder, here.sweeper)
    trial = optuna.trial.Trial(study, study.trials[here.job.num]._trial_id)

    def report(look: int, figure: float) -> None:
        trial.report(figure, look)
        if trial.should_prune():
            raise Pruned(f"validation FPR95 {100 * figure:.2f} % at look {look}, when others did better")

    return report


def ended(study: Any) -> list[Any]:
    from optuna.trial import TrialState

    return list(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))


def take_up(study: Any) -> None:
    """Trials of a process that was killed have failed; what failed comes again first, with the values that it had."""
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    waiting = [each.system_attrs.get("fixed_params") for each in study.get_trials(states=(TrialState.WAITING,))]
    known = [*waiting, *(trial.params for trial in ended(study))]
    for trial in study.get_trials(states=(TrialState.FAIL,)):
        if trial.params not in known:
            study.enqueue_trial(trial.params)
            known.append(trial.params)


def told(study: Any, trial: Any, returned: JobReturn) -> str | None:
    """Let the study know what became of a trial; why it failed, if it did."""
    from optuna.trial import TrialState

    value = returned._return_value  # the property would print a report of Hydra's
    if returned.status == JobStatus.COMPLETED and value is not None:
        study.tell(trial, float(value))
        return None
    if isinstance(value, Pruned):
        study.tell(trial, state=TrialState.PRUNED)
        return None
    study.tell(trial, state=TrialState.FAIL)
    if isinstance(value, Exception) and not isinstance(value, FaroutError | OSError):
        raise value  # a mistake of ours, with its traceback
    return plain(value) if isinstance(value, Exception) else "it has no figure on a holdout"


def summarise(study: Any) -> None:
    from optuna.trial import TrialState

    if study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        best = study.best_trial
        values = " ".join(f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in best.params.items())
        figure = f"validation FPR95 {100 * best.value:.2f} %"
        say(f"best of {len(ended(study))} trials: #{best.number} {values}, {figure}")
