"""The rows of every paper's table, and what one table is asked for with: the same for one go and for slices of time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from farout.config.compose import compose_settings, parent_settings
from farout.config.settings import Settings
from farout.errors import ConfigError
from farout.places import conf_file, conf_names
from farout.runs.run import Run, open_run

# Paper -> its rows, most valuable first: each is a file of conf/experiment, as `TableRequest.experiment` names it.
ROWS = {
    "energy": ("softmax", "energy_ft", "oe_ft"),
    "oe": ("baseline", "oe_tune", "oe_scratch"),
    "cider": ("ce", "cider", "supcon"),
    "jem": ("ce", "jem", "ce_plain"),
}
AT_FULL_SCALE = ("ce_plain",)  # at other scales JEM's `ce` has a network without a norm already
SCALES = ("demo", "full", "medium", "small")
FINE_TUNING = ("energy", "oe")  # papers whose methods go on from a trained network anyhow
UNTOUCHED = "untouched"  # the network itself, where every other row goes on from it


def rows_of(paper: str, scale: str, init: str | None = None) -> tuple[str, ...]:
    """The rows of a paper's table at a scale, from scratch or from a trained network."""
    rows = tuple(row for row in ROWS[paper] if scale == "full" or row not in AT_FULL_SCALE)
    return rows if init is None or paper in FINE_TUNING else (UNTOUCHED, *rows)


def usual_id(scale: str) -> str:
    """The in-distribution set of a table that names none: the demonstrations have digits alone."""
    return "digits" if scale == "demo" else "cifar10"


def refuse_own(overrides: Sequence[str], own: Mapping[str, str]) -> None:
    """Raise ConfigError for an override of what an option of the command decides; `own`: override -> option."""
    for word in overrides:
        key = word.lstrip("+~").partition("=")[0]
        if key in own:
            raise ConfigError(f"{word} would change every row: use {own[key]}")


@dataclass(frozen=True)
class TableRequest:
    """Which rows of which table, for which seeds, with which overrides.

    Args:
        scale: one of SCALES: whose files of conf/experiment are the rows, and how long samples and attacks take.
        rows, seeds: in the order in which they are worked on.
        recipe: another folder of conf/experiment for the rows; None: PAPER/SCALE.
        steps: another `scale` for every row than its file has.
        outputs: the folder for runs; None: as `paths.outputs` says.
        init: the folder of a finished run, which fine-tuning starts from and which is the cross-entropy row itself; of
            papers that train from scratch the row UNTOUCHED, beside a cross-entropy row that goes on from it like all
            others. "auto" is the run that init_from=auto of the rows' files means.
        overrides: added to every row.
    """

    paper: str
    scale: str
    id_data: str
    rows: tuple[str, ...]
    seeds: tuple[int, ...]
    recipe: str | None = None
    steps: str | None = None
    outputs: Path | None = None
    init: str | None = None
    overrides: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """The folder of conf/experiment that holds the rows."""
        own = f"{self.paper}/{self.scale}{'_from_trained' if self.all_go_on else ''}"
        return own if self.recipe is None else self.recipe

    @property
    def all_go_on(self) -> bool:
        """Whether every row goes on from a trained network, also those that the paper trains from scratch."""
        return self.init is not None and self.paper not in FINE_TUNING

    @property
    def label(self) -> str:
        """What files of the table are called by: the paper at full scale, else the scale (and the paper)."""
        if self.recipe is not None:
            return self.recipe.replace("/", "_")
        shorter = self.scale if self.paper == "energy" else f"{self.scale}_{self.paper}"
        return (self.paper if self.scale == "full" else shorter) + ("_from_trained" if self.init else "")

    def experiment(self, row: str) -> str:
        """The name of a row's file of conf/experiment."""
        return f"{self.folder}/{self.id_data}_{'ce' if row == UNTOUCHED else row}"

    def check(self, table: str) -> None:
        """Raise ConfigError, in one line, where the table, by the name that was given for it, has no such row."""
        for row in self.rows:
            if not conf_file(f"experiment/{self.experiment(row)}").is_file():
                there = ", ".join(conf_names(f"experiment/{self.folder}"))
                raise ConfigError(f"{table} has no row {self.id_data}_{row}: choose --id and --rows from {there}")

    def settings(self, row: str, seed: int) -> Settings:
        """One row's settings, composed as `python train.py experiment=PAPER/SCALE/ID_ROW seed=SEED ...` would."""
        words = [f"experiment={self.experiment(row)}", f"seed={seed}"]
        words += [] if self.steps is None else [f"scale={self.steps}"]
        settings = self._composed(words)
        if self.all_go_on:
            return self._going_on(row, words)
        if self.init in (None, "auto"):
            return settings
        start = open_run(self.init)
        words += [f"{group}={start.identity[group]['name']}" for group in ("backbone", "transform")]
        if settings.init_from == "auto":
            return replace(self._composed(words), init_from=self.init)
        return replace(self._composed(words), run=self.init) if settings.method.name == "ce" else settings

    def _going_on(self, row: str, words: Sequence[str]) -> Settings:
        """A row that starts from `init`: with its trunk and normalisation, and the row's own head and augmentation."""
        settings = self._composed(words)
        if self.init == "auto":
            if settings.init_from != "auto":
                raise ConfigError(f"--init auto: {self.folder} has no classifier of its own to start from: name a run")
            return replace(parent_settings(settings), composition=None) if row == UNTOUCHED else settings
        start = open_run(str(self.init))
        settings = self._composed([*words, *_words_of(start, settings.method.kind.embeds)])
        if row == UNTOUCHED:
            return replace(settings, run=self.init, init_from=None)
        return replace(settings, init_from=self.init)

    def _composed(self, words: Sequence[str]) -> Settings:
        settings = compose_settings([*words, *self.overrides])
        if self.outputs is None:
            return settings
        return replace(settings, paths=replace(settings.paths, outputs=str(self.outputs)))


def _words_of(start: Run, embeds: bool) -> list[str]:
    """Overrides that give a row the trunk and the normalisation of the run that it starts from.

    Raises ConfigError where a projection head is needed and conf/backbone has no such network with one.
    """
    theirs, transform = start.identity["backbone"], start.identity["transform"]
    name = f"{theirs['name']}_cider" if embeds and "projection" not in theirs else str(theirs["name"])
    if not conf_file(f"backbone/{name}").is_file():
        there = ", ".join(each for each in conf_names("backbone") if each.endswith("_cider"))
        raise ConfigError(f"{start.name} is a {theirs['name']}, and there is no backbone={name}: choose of {there}")
    width = [f"backbone.width={theirs['width']}"] if "width" in theirs else []
    return [f"backbone={name}", *width, *(f"transform.{key}={transform[key]}" for key in ("mean", "std"))]
