"""Train a run: find or train its parent, resume what was interrupted, validate on the holdout, export the weights.

From `train.py` to the first gradient step: `train.py` starts the command, `farout/commands/entry.py` listens to signals
and imports what is heavy, `farout/commands/cli.py` lets Hydra compose and checks (`Settings`), `train` below makes a
`TrainingJob` of that, and `fit` in `farout/engine/fit.py` has the loop, with the step itself in `Loop.update`.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any, cast

import torch
from torch import Tensor

from farout.backbones import Backbone
from farout.config.compose import parent_settings
from farout.config.composition import composition_record, summary
from farout.config.settings import Precision, Settings
from farout.data import ImageSet
from farout.data.streams import EpochShuffle, outlier_stream, steps_per_epoch
from farout.engine.allocator import keep_freed_memory
from farout.engine.batches import PASS_SIZE, DeviceBatches, Stream, repeated
from farout.engine.checkpoint import weights_content
from farout.engine.evaluate import share_correct
from farout.engine.fit import Batches, Callbacks, Checkpointing, FitResult, Loop, Select, fit
from farout.engine.fit import follow as follow_fit
from farout.engine.precision import allow_tf32, has_bf16_instructions
from farout.engine.processes import ALONE, Processes
from farout.engine.profiling import StepProfiler
from farout.engine.progress import say
from farout.engine.restarts import Restart
from farout.engine.states import has_states, remove_states
from farout.engine.stopping import told_as
from farout.engine.timing import Trial, in_turns, random_states_kept, seconds_per_step
from farout.errors import OutOfBudget, UnwritableError
from farout.files import write_bytes
from farout.methods import Method
from farout.runs.checks import Checks
from farout.runs.compiling import CompileChoice
from farout.runs.devices import as_launched, device_of, follow, several_devices
from farout.runs.environment import choose_device, conditions, stamp
from farout.runs.evaluation import EvaluationJob
from farout.runs.evaluation_files import complete_overview
from farout.runs.image_log import ImageLog
from farout.runs.inputs import TrainingData, training_data
from farout.runs.logger import RunLogger, require_packages, run_logger
from farout.runs.overrides import evaluation_record
from farout.runs.precision import TIME_FROM_STEPS, remember, remembered, undecided
from farout.runs.recovery import recover
from farout.runs.run import Run, build_backbone, parent_run, run_in, run_of, targets_of
from farout.runs.validation import Report, accuracy_watch, logged, validate, validation_steps
from farout.runs.wandb_log import under_an_agent


def train(settings: Settings, deadline: float | None = None, report: Report | None = None) -> float | None:
    """Train (or resume, or find finished) the run of these settings, then evaluate it.

    `report` gets the figure of a sweep while training goes on, as often as `validations` says.

    Returns the validation figure for sweepers, to be minimised: mean FPR95 of the method's own score on the holdout
    against the validation corruptions; None where there is no holdout.
    """
    device = choose_device(settings.trainer.device)
    require_packages(settings.logger)
    if device.type == "cpu":
        keep_freed_memory()
    if deadline is None and settings.trainer.budget_minutes is not None:
        deadline = time.monotonic() + 60 * settings.trainer.budget_minutes
    settings = replace(settings, trainer=as_launched(settings.trainer))
    with several_devices(settings.trainer, device) as processes:
        own = device_of(processes, device)
        if processes.rank == 0:
            return _train(settings, own, deadline, processes, report)
        follow(processes, own)
        return None


def _train(
    settings: Settings, device: torch.device, deadline: float | None, processes: Processes, report: Report | None
) -> float | None:
    job = replace(TrainingJob.of(settings, device, deadline), processes=processes, report=report)
    if not job.run.finished:
        if settings.composition is not None:
            say(summary(job.run.name, settings.composition))
        Checks(settings).training(job.data)
    with job.run.locked():
        job.carry_out()
    validation = job.run.record.get("validation")
    return None if validation is None else float(validation["fpr95"])


@dataclass(frozen=True)
class TrainingJob:
    """One run to train: where it lies, what was asked for, on which images and device, and until when.

    Attributes:
        deadline: `time.monotonic()` at which training pauses; None: never.
        asked: whether a command asked for this very run. Such a run keeps how its command evaluates; a parent's own
            command may yet say otherwise.
        processes: those that train together, of which this one leads.
        report: what hears the figure on the holdout while training goes on.
    """

    run: Run
    settings: Settings
    data: TrainingData
    device: torch.device
    deadline: float | None = None
    asked: bool = True
    processes: Processes = ALONE
    report: Report | None = None

    @classmethod
    def of(cls, settings: Settings, device: torch.device, deadline: float | None = None) -> "TrainingJob":
        """The job that these settings mean, its images opened; raises what `training_data` and `run_of` raise.

        What its precision shall be is settled first, and its parent's before, because both are part of its name.
        """
        if settings.init_from == "auto":
            cls._settle_precision(parent_settings(settings), device)
        cls._settle_precision(settings, device)
        data = training_data(settings)
        return cls(run_of(settings, device), settings, data, device, deadline)

    @classmethod
    def _settle_precision(cls, settings: Settings, device: torch.device) -> None:
        """Time a long run that has not begun in both precisions, where nothing else tells which one auto means."""
        if not undecided(settings, device):
            return
        data = training_data(settings)
        if run_of(settings, device).begun:
            return
        parent = parent_run(settings, device)
        either: tuple[Precision, ...] = ("fp32", "bf16")
        jobs = {each: cls(run_in(settings, each, parent), settings, data, device) for each in either}
        if jobs["fp32"].total_steps >= TIME_FROM_STEPS:
            with random_states_kept():
                seconds = in_turns({precision: job.trial() for precision, job in jobs.items()})
            remember(settings, device, {precision: seconds[precision] for precision in either})

    def carry_out(self) -> None:
        """What is left to do; the caller holds the run's lock. The parent comes first, in a log of its own."""
        run, settings = self.run, self.settings
        recover(run, settings, self.data)
        evaluation = EvaluationJob(run, settings, self.device, self.processes)
        if run.finished:
            with suppress(UnwritableError):  # whoever can only read a finished run loses nothing by what is left
                remove_states(run.checkpoint)  # killed between the weights and this
            say(f"{run.name} is finished: {run.folder}")
            if not settings.evaluate or evaluation.done():
                if settings.evaluate:
                    complete_overview(run, settings.paths)
                say(f"nothing left to do; results: {run.results}")
                self._tell_agent()
                return
        parent = None if run.finished else self._trained_parent()
        self._begin_record()
        with run_logger(run, settings, "train", self.asked) as logger:
            if not run.finished:
                self._train(parent, logger)
            else:
                self._tell_agent(logger)
            if settings.evaluate:
                with told_as(f"while {run.name}, which is trained, was evaluated: repeat the command to evaluate it"):
                    evaluation.carry_out(logger)

    def _tell_agent(self, logger: RunLogger | None = None) -> None:
        """The agent of a W&B sweep that asks for a run which is there already: its figure on the holdout, once more."""
        validation = self.run.record.get("validation")
        if validation is None or not (self.asked and under_an_agent()):
            return
        if logger is None:
            with run_logger(self.run, self.settings, "evaluate") as own:
                self._tell_agent(own)
        elif logger.wandb is not None:
            logger.wandb.log(self.total_steps, logged(validation))

    def _begin_record(self) -> None:
        run = self.run
        run.folder.mkdir(parents=True, exist_ok=True)
        if not (run.folder / "run.json").exists():
            known = {"scale": self.settings.scale, "targets": targets_of(self.settings), "data": self.data.record()}
            run.write_record(**known, total_steps=self.total_steps, **self._precision_timing())
        if self.asked and "evaluation" not in run.record:
            run.write_record(evaluation=evaluation_record(self.settings))
        if self.asked and "composition" not in run.record and self.settings.composition is not None:
            run.write_record(composition=composition_record(self.settings.composition))

    def _precision_timing(self) -> dict[str, Any]:
        """What the precision was chosen by, where a timing chose it."""
        seen = remembered(self.settings, self.device) if self.settings.trainer.precision == "auto" else None
        return {} if seen is None else {"timing": {"precision": seen}}

    def _trained_parent(self) -> Run | None:
        """The run whose weights training starts from, trained first where init_from=auto finds none."""
        settings, parent = self.settings, parent_run(self.settings, self.device)
        if parent is not None and settings.holdout > 0 and parent.identity["holdout"] != settings.holdout:
            kept_out = f"pretrain.holdout={settings.holdout:g} keeps it out"
            named = "figures on it flatter: to choose a setting, start from a run that kept it out"
            remedy = kept_out if settings.init_from == "auto" else named
            say(f"note: {parent.name} was trained on the holdout too; {remedy}")
        if parent is None or settings.init_from != "auto":
            return parent
        own = replace(parent_settings(settings), evaluate=False, validations=0)
        with parent.locked():
            job = replace(self, run=parent, settings=own, data=training_data(own), asked=False)
            recover(parent, own, job.data)
            if parent.finished:
                say(f"starts from {parent.name}")
            else:
                say(f"needs {parent.name}, which {job.prospect()}")
                job.carry_out()
        return parent

    def prospect(self) -> str:
        """What training will take: estimated from a few steps on a copy, where there are many to come."""
        if has_states(self.run.checkpoint):
            return "was interrupted and goes on first"
        if self.total_steps < 100:
            return f"is trained first ({self.total_steps} steps)"
        minutes = self.total_steps * self.step_seconds() / 60
        return f"is trained first: {self.total_steps} steps, about {minutes:.0f} min on this device"

    def step_seconds(self) -> float:
        """Seconds per update, from a short timing on throwaway networks."""
        with random_states_kept():
            return seconds_per_step(self.trial())

    def trial(self) -> Trial:
        """Updates as training makes them, on networks and batches of their own."""
        model, method = self.networks()
        model.autocast_dtype = self.dtype
        return Trial(model, method, self.batches(), self.settings.schedule.optimisation())

    @cached_property
    def steps_per_epoch(self) -> int:
        """Updates per epoch of labelled images."""
        drop_last = self.settings.method.kind.drop_last
        return steps_per_epoch(len(self.data.train_rows), self.settings.schedule.batch_size, drop_last)

    @property
    def total_steps(self) -> int:
        """Updates in all."""
        return self.settings.schedule.total_steps(self.steps_per_epoch)

    @property
    def dtype(self) -> torch.dtype | None:
        """What the network's trunk computes in, as `Backbone.precision` takes it."""
        return torch.bfloat16 if self.run.identity["precision"] == "bf16" else None

    def batches(self) -> DeviceBatches:
        """The streams that the method wants, on the device."""
        data, method, images = self.data, self.settings.method.kind, self.data.labelled.images
        streams = {"labelled": Stream(images, data.labelled.labels, data.train_rows, self._shuffled("labelled"))}
        if "unlabelled" in method.streams:
            streams["unlabelled"] = Stream(images, None, data.train_rows, self._shuffled("unlabelled"))
        if data.outliers is not None and data.outlier_rows is not None:
            streams["outliers"] = self._outlier_stream(data.outliers, data.outlier_rows)
        transform, seed = self.settings.transform.build(), self.settings.seed
        channels_last = self.settings.trainer.channels_last
        return DeviceBatches(streams, transform, seed, self.device, channels_last, self.processes)

    def _shuffled(self, name: str) -> EpochShuffle:
        rows, size = len(self.data.train_rows), self.settings.schedule.batch_size
        drop_last = self.settings.method.kind.drop_last
        return EpochShuffle(rows, size, self.settings.seed, name, self.device, drop_last)

    def _outlier_stream(self, images: ImageSet, rows: Tensor) -> Stream:
        size, order = self.settings.schedule.outliers_per_update(), self.settings.outlier_order
        stream = outlier_stream(len(rows), size, self.settings.seed, order, self.steps_per_epoch, self.device)
        return Stream(images.images, None, rows, stream, outliers=True, raw=images.raw)

    def networks(self, parent: Run | None = None) -> tuple[Backbone, Method]:
        """Network and method on the device: initialised from the seed, or with the parent's weights."""
        torch.manual_seed(self.settings.seed)
        model = build_backbone(self.settings.backbone, self.settings.id_data.num_classes)
        method: Method = self.settings.method.build()
        if parent is not None:
            parent.start(model)
        model.to(self.device)
        if self.settings.trainer.channels_last:
            model.to_channels_last()
        return model, method.to(self.device)

    def _train(self, parent: Run | None, logger: RunLogger) -> None:
        """All updates that are left, then the export. Raises OutOfBudget at the deadline."""
        run = self.run
        allow_tf32(run.identity["precision"] == "tf32")
        model, method = self.networks(parent)
        resumed = "resumes" if has_states(run.checkpoint) else "trains"
        say(f"{run.name} {resumed}: {self.total_steps} steps in {run.identity['precision']} on {self.device}")
        self._warn_of_emulation()
        with model.precision(self.dtype):
            result = self._fit(model, method, model.load_pretrained if parent is None else None, logger)
        if not result.finished:
            where = f"step {result.step} of {self.total_steps} of {run.name}"
            raise OutOfBudget(f"the time budget is spent at {where}: repeat to go on")
        allow_tf32(False)  # what follows measures
        again = "goes on from its last checkpoint" if has_states(run.checkpoint) else "starts it afresh"
        with told_as(f"after the last step of {run.name}, before its weights were written: the same command {again}"):
            self._finish(model, method, result, logger)

    def _warn_of_emulation(self) -> None:
        """Whoever asks for bf16 on a processor without it should know."""
        knobs = {"trainer.precision": self.run.identity["precision"], **self.settings.method.arguments}
        slow = [f"{name}=bf16" for name, value in knobs.items() if value == "bf16"]
        if slow and self.device.type == "cpu" and not has_bf16_instructions():
            say(f"note: this processor has no bf16 instructions, so {' and '.join(slow)} is slower than fp32 here")

    def _fit(self, model: Backbone, method: Method, start: Callable[[], None] | None, logger: RunLogger) -> FitResult:
        """The training loop; `start` reads weights of others where no state is resumed."""
        schedule, batches = self.settings.schedule, self.batches()
        callbacks = replace(self._callbacks(batches, logger), on_update=self._validating(model, method, logger))
        compiled = self._compiles()
        if compiled:
            model.compile_trunk()
        self.processes.send(TrainingOrder(self.run, self.settings))
        with self._debugged(batches) as seen:
            return fit(
                model,
                method,
                seen,
                schedule.optimisation(),
                self.total_steps,
                steps_per_epoch=self.steps_per_epoch,
                seed=self.settings.seed,
                checkpointing=self._checkpointing(compiled),
                start=start,
                train_images=batches.train_images,
                restart_policy=schedule.restart_policy(),
                select=self._selection(),
                graphs=self.settings.trainer.compile is not False and not self.processes.several,
                callbacks=callbacks,
                processes=self.processes,
            )

    def follow(self) -> None:
        """A follower's part in `_fit`."""
        allow_tf32(self.run.identity["precision"] == "tf32")
        model, method = self.networks()
        schedule, epoch = self.settings.schedule, self.steps_per_epoch
        rule, policy = Checkpointing(), schedule.restart_policy()
        loop = Loop(model, method, schedule.optimisation(), self.total_steps, rule, epoch, policy)
        loop.processes = self.processes
        with model.precision(self.dtype):
            follow_fit(loop, repeated(self.batches(), schedule.overfit_batches), self.settings.seed)
        allow_tf32(False)

    def _callbacks(self, batches: DeviceBatches, logger: RunLogger) -> Callbacks:
        every = self.settings.trainer.log_every
        image_log = ImageLog(self.run.folder / "samples", batches.transform, self.total_steps, every, logger.picture)
        tell = partial(_tell, self.run, logger)
        watch = accuracy_watch(self.settings, self.data, self.device, self.total_steps)
        title, name = self.settings.method.name, self.run.name
        return Callbacks(title, logger.log, every, image_log, tell, name=name, measure=watch)

    def _validating(self, model: Backbone, method: Method, logger: RunLogger) -> Callable[[int], None] | None:
        """Looks at the holdout after some updates; nothing that it does changes what is trained."""
        due = validation_steps(self.total_steps, self.settings.validations)
        if not due:
            return None

        def look(step: int) -> None:
            if step in due:
                found = validate(model, method, self.settings, self.data, self.device)
                model.train()
                logger.log(step, logged(found))
                if self.report is not None:
                    self.report(due[step], found["fpr95"])

        return look

    @contextmanager
    def _debugged(self, batches: DeviceBatches) -> Iterator[Batches]:
        """The batches that training gets, while that is watched as the files of conf/debug/ ask for it."""
        trainer, seen = self.settings.trainer, repeated(batches, self.settings.schedule.overfit_batches)
        with ExitStack() as stack:
            if trainer.detect_anomaly:
                stack.enter_context(torch.autograd.set_detect_anomaly(True))
            if trainer.profile:
                seen = stack.enter_context(StepProfiler(self.run.folder / "profile", self.device)).watched(seen)
            yield seen

    def _compiles(self) -> bool:
        """Whether torch.compile of the trunk pays, or was asked for; on several devices updates are launched singly."""
        if self.processes.several:
            return False
        asked, steps = self.settings.trainer.compile, self.total_steps
        return CompileChoice(self.run, asked, self.device, steps, self.deadline, self.trial).compiled()

    def _selection(self) -> Select | None:
        """Accuracy on the whole holdout, where the best weights are kept; batches are of one size on every machine."""
        if self.settings.keep == "last":
            return None
        transform, holdout = self.settings.transform.build(), self.data.labelled.subset(self.data.holdout_rows)
        return lambda model: share_correct(cast(Backbone, model), transform, holdout, self.device, PASS_SIZE)

    def _checkpointing(self, compiled: bool) -> Checkpointing:
        run, trainer = self.run, self.settings.trainer
        identity = hashlib.sha256(json.dumps(run.identity, sort_keys=True).encode()).hexdigest()
        return Checkpointing(
            run.checkpoint,
            trainer.checkpoint_minutes,
            trainer.checkpoint_steps,
            self.deadline,
            tag=self.data.tag,
            owner=f"{run.name} {identity}",
            conditions={**conditions(self.device, trainer.channels_last, compiled), "devices": self.processes.size},
        )

    def _finish(self, model: Backbone, method: Method, result: FitResult, logger: RunLogger) -> None:
        """Validate, record, export. The weights come last: their presence means that the run is whole."""
        run = self.run
        model.eval()
        parts: dict[str, Any] = {"trained": _trained(self.device, result)}
        if not method.trains_classifier:
            parts["classifier_trained"] = False
        if len(self.data.holdout_rows):
            parts["validation"] = validate(model, method, self.settings, self.data, self.device)
            logger.log(result.step, logged(parts["validation"]))
        contents = {run.method_state: weights_content(method)} if method.state_dict() else {}
        contents[run.weights] = weights_content(model)
        files = {path.name: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
        run.write_record(**parts, files=files)
        for path, content in contents.items():
            write_bytes(path, content)
        remove_states(run.checkpoint)
        say(f"{run.name} finished: {result.step} steps in {result.seconds / 60:.1f} min")


@dataclass(frozen=True)
class TrainingOrder:
    """What followers are sent when their leader begins to train a run."""

    run: Run
    settings: Settings

    def carry_out(self, processes: Processes, device: torch.device) -> None:
        """Train with the leader."""
        TrainingJob(self.run, self.settings, training_data(self.settings), device, processes=processes).follow()


def _tell(run: Run, logger: RunLogger, restart: Restart) -> None:
    """A divergence that training survived, for whoever watches."""
    say(f"{run.name}: {restart.reason}; on from step {restart.resumed_from} with other random numbers")
    logger.alert(restart.diverged_at, "training diverged", restart.reason, {"resumed_from": restart.resumed_from})


def _trained(device: torch.device, result: FitResult) -> dict[str, Any]:
    """How training went, for the record."""
    best = None if result.best is None else dict(result.best)
    return {
        **stamp(device),
        "seconds": round(result.seconds, 1),
        "steps": result.step,
        "losses": result.losses,
        "conditions": [dict(entry) for entry in result.conditions],
        **({"restarts": [asdict(restart) for restart in result.restarts]} if result.restarts else {}),
        **({} if best is None else {"kept": {"accuracy": best.pop("figure"), **best}}),
    }
