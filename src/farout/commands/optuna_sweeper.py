"""`hydra/sweeper=optuna`: Hydra's launchers run the trials that Optuna asks for, and each may be pruned as it trains.

The study is a journal in the sweep's folder. So a trial can be told of from any process, and the same command goes on
where the last one ended: a trial's number is its job's, and its values follow from the seed, its number, and the trials
before it. docs/scale.md says why this is not Hydra's own plugin.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Transformer
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from farout.commands.optuna_study import ended, study_of, summarise, take_up, told
from farout.errors import ConfigError, FaroutError

SAMPLERS, PRUNERS = ("tpe", "random"), ("median", "halving", None)


class OptunaSweeper(Sweeper):
    """One study; the options are those of conf/hydra/sweeper/optuna.yaml."""

    def __init__(self, n_trials: int, n_jobs: int, seed: int, params: Mapping[str, str], **search: Any) -> None:
        self.n_trials, self.n_jobs, self.seed, self.params, self.search = n_trials, n_jobs, seed, params, search

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's: before the sweep."""
        self.config, self.hydra_context = config, hydra_context
        self._config, self._folder, self._loader = config, Path(config.hydra.sweep.dir), hydra_context.config_loader
        _check(config.hydra.sweeper)
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run what is missing of `n_trials`; raises FaroutError at the end where one failed, ConfigError at once."""
        words = [f"{key}={value}" for key, value in self.params.items()] + arguments
        every = OverridesParser.create(config_loader=self._loader).parse_overrides(words)
        parsed = list({each.get_key_element(): each for each in every}.values())  # the last one counts
        spaces = {each.get_key_element(): distribution_of(each) for each in parsed if each.is_sweep_override()}
        fixed = [str(each.input_line) for each in parsed if not each.is_sweep_override()]
        if not spaces:
            raise ConfigError("there is nothing to search: give an option a range, e.g. m_in=interval(-30,-10)")
        if not any(word.startswith("validations=") for word in fixed) and self.search["pruner"] is not None:
            fixed.append(f"validations={self.search['validations']}")
        self._require_holdout(fixed)
        with study_of(self._folder, self._config.hydra.sweeper) as study:
            take_up(study)
            failed = [why for trials in self._batches(study, spaces) for why in self._run(study, trials, fixed)]
            summarise(study)
        if failed:
            raise FaroutError(f"{len(failed)} of the trials failed, the first one because: {failed[0]}")

    def _require_holdout(self, fixed: Sequence[str]) -> None:
        held_out = [word for word in fixed if not word.startswith("validations=")]  # which would be refused without
        config = self._loader.load_sweep_config(self._config, held_out)
        if self._config.hydra.job.config_name != "train" or not config.holdout:
            raise ConfigError("hydra/sweeper=optuna minimises the figure on the holdout of a training: add holdout=0.1")

    def _batches(self, study: Any, spaces: Mapping[str, Any]) -> Iterator[list[Any]]:
        """Trials asked for, as many at a time as the launcher gets, until there are enough."""
        left = self.n_trials - len(ended(study))
        while left > 0:
            trials = []
            for _ in range(min(self.n_jobs, left)):
                study.sampler = self._sampler(len(study.trials))
                trials.append(study.ask(dict(spaces)))
            yield trials
            left -= len(trials)

    def _sampler(self, number: int) -> Any:
        import optuna

        from farout.data.streams import stable_seed

        seed = stable_seed(self.seed, "trial", number) % 2**32
        if self.search["sampler"] == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        startup, several = self.search["startup_trials"], self.n_jobs > 1
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, constant_liar=several)

    def _run(self, study: Any, trials: Sequence[Any], fixed: Sequence[str]) -> list[str]:
        """Launch a batch and tell the study how it went; why those failed that did."""
        jobs = [[*fixed, *(f"{key}={_said(value)}" for key, value in trial.params.items())] for trial in trials]
        returned = self._launcher.launch(jobs, initial_job_idx=trials[0].number)
        return [why for pair in zip(trials, returned, strict=True) if (why := told(study, *pair))]


def _said(value: Any) -> str:
    """As an override has it: six digits of a number tell trials apart, and people can read them."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def distribution_of(override: Override) -> Any:
    """Optuna's search space of an option: interval(a,b), range(a,b,step), choice(...) or values with commas."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, IntervalSweep):
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        kind: Any = IntDistribution if whole else FloatDistribution
        return kind(value.start, value.end, log="log" in value.tags)
    if isinstance(value, RangeSweep) and not value.shuffle:
        values = list(value.range())
        even = len(values) > 1 and all(isinstance(each, int) for each in values) and values[0] < values[-1]
        step = values[1] - values[0] if even else 0
        return IntDistribution(values[0], values[-1], step=step) if even else CategoricalDistribution(values)
    assert isinstance(value, ChoiceSweep | RangeSweep)
    choices: Any = list(override.sweep_iterator(transformer=Transformer.encode))
    return CategoricalDistribution(choices)


def _check(options: DictConfig) -> None:
    """Raise ConfigError for options that mean nothing, FaroutError where Optuna is absent."""
    for key, choices in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        if options[key] not in choices:
            known = ", ".join(map(str, choices)).replace("None", "null")
            raise ConfigError(f"hydra.sweeper.{key}={options[key]} is not there: choose from {known}")
    for key in ("n_trials", "n_jobs", "startup_trials", "validations"):
        if not isinstance(options[key], int) or options[key] < (key in ("n_trials", "n_jobs")):
            raise ConfigError(f"hydra.sweeper.{key}={options[key]} is no number of trials or times")
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise FaroutError("hydra/sweeper=optuna needs Optuna: pip install farout[optuna]") from None
