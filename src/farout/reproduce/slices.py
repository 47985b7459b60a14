"""What a campaign carries from slice to slice: its run folders, in one flat folder of parts.

Only what is needed to go on and to make tables travels: records (also of samples and attacks), curves, finished
weights, and of a run that is under way the checkpoint with the states that a divergence returns to (a finished run has
none). No W&B files, per-image scores, samples themselves or plots.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import total_ordering
from pathlib import Path
from typing import Any

from farout.engine.progress import say
from farout.engine.states import furthest, remove_states, state_files
from farout.engine.tar_parts import Manifest, pack, read_manifest, unpack
from farout.errors import FaroutError
from farout.files import load_json
from farout.runs.records import DamagedResults, is_run_name, read_results
from farout.runs.recovery import set_aside_damage
from farout.runs.run import Run
from farout.shapes import misfit

NAME = "campaign"
# In this order they are unpacked too: weights come last, because their presence means that a run is whole.
STATES = tuple(file.name for file in state_files(Path("checkpoint.pt")))
SIDE_FILES = ("samples/samples.json", "robustness.json")
CARRIED = (
    "run.json",
    "metrics.jsonl",
    "results.json",
    *SIDE_FILES,
    *STATES,
    "method.safetensors",
    "weights.safetensors",
)
MANY_PARTS = 8
PROGRESS = {"finished": bool, "step": int, "evaluations": int, "restarts?": int, "measured?": int}


@total_ordering
@dataclass(frozen=True)
class Progress:
    """How far a run is; the larger one is further. Training that diverged is further than before, at a smaller step."""

    finished: bool
    step: int
    evaluations: int
    restarts: int = 0
    measured: int = 0  # besides evaluations: samples, and every curve of an attack

    def __lt__(self, other: "Progress") -> bool:
        return self._rank() < other._rank()

    def _rank(self) -> tuple[bool, int, int, int, int]:
        return self.finished, self.restarts, self.step, self.evaluations, self.measured

    def record(self) -> dict[str, Any]:
        """For the manifest; what came later only where there is any, as versions before wrote it."""
        return {key: value for key, value in asdict(self).items() if key not in ("restarts", "measured") or value}


def progress_of(run: Run) -> Progress | None:
    """Where a run stands; None where it has not begun."""
    if not (run.folder / "run.json").exists():
        return None
    evaluations = _evaluations(run)
    if run.finished:
        steps = int(run.record.get("trained", {}).get("steps", 0))
        return Progress(True, steps, evaluations, measured=_measured(run))
    restarts, step = furthest(run.checkpoint) or (0, 0)
    return Progress(False, step, evaluations, restarts)


def _evaluations(run: Run) -> int:
    """How many the run has; a damaged results.json has none, and is moved aside when the run is evaluated again."""
    try:
        return len(read_results(run.folder)["evaluations"])
    except DamagedResults:
        return 0


def _measured(run: Run) -> int:
    """Samples and curves of attacks that the run has; a damaged file of them has none."""
    sampled, attacked = (run.folder / file for file in SIDE_FILES)
    try:
        curves = load_json(attacked)["curves"] if attacked.exists() else []
    except (FaroutError, KeyError, TypeError):
        curves = []
    return sampled.exists() + len(curves)


def save(state: Path, runs: Iterable[Run], runs_folder: Path, facts: Mapping[str, Any]) -> None:
    """Pack these runs, and the others that the state folder already carries, for the next slice."""
    old = read_manifest(state, NAME)
    names = {run.name for run in runs} | set(_packed_runs(old, state) if old else ())
    known = {name: progress_of(Run(runs_folder / name, {})) for name in sorted(names)}
    begun = {name: progress.record() for name, progress in known.items() if progress is not None}
    if not begun:
        return
    files = {f"{name}/{file}": path for name in begun for file, path in _carried(Run(runs_folder / name, {}))}
    manifest = pack(state, NAME, files, {**facts, "runs": begun})
    parts, size = len(manifest["parts"]), manifest["bytes"] / 1e6
    say(f"state for the next slice: {state}, {len(begun)} runs, {size:.0f} MB in {parts} parts")
    if parts > MANY_PARTS:
        say(f"warning: more than {MANY_PARTS} parts; a state folder for each seed (--seeds, --state) keeps them fewer")


def _carried(run: Run) -> list[tuple[str, Path]]:
    """The files of a run that travel."""
    wanted = [file for file in CARRIED if not (file in STATES and run.finished)]
    return [(file, run.folder / file) for file in wanted if (run.folder / file).exists()]


def restore(state: Path, runs_folder: Path) -> None:
    """Unpack the runs of a state folder that are further there than here; others stay as they are.

    Raises:
        FaroutError: the manifest or a part is damaged or missing; nothing has been unpacked.
    """
    manifest = read_manifest(state, NAME)
    if manifest is None:
        return
    packed = _packed_runs(manifest, state)
    further = {}
    for name, progress in packed.items():
        set_aside_damage(Run(runs_folder / name, {}))
        here = progress_of(Run(runs_folder / name, {}))
        if here is None or progress > here:
            further[name] = Run(runs_folder / name, {})

    def place(member: str) -> Path | None:
        name, _, file = member.partition("/")
        return further[name].folder / file if name in further and file in CARRIED else None

    unpack(state, manifest, place)
    for run in further.values():
        if run.finished:
            remove_states(run.checkpoint)  # of an earlier slice here
    kept = len(packed) - len(further)
    say(f"picked up {len(further)} runs from {state}" + (f"; {kept} are as far or further here" if kept else ""))


def _packed_runs(manifest: Manifest, state: Path) -> dict[str, Progress]:
    """The runs that a manifest names, and how far they are; their names become folders, so they are checked."""
    runs = manifest.get("runs")
    sound = isinstance(runs, dict) and misfit(runs, dict.fromkeys(runs, PROGRESS)) is None
    try:
        packed = {name: Progress(**progress) for name, progress in runs.items()} if runs and sound else {}
    except TypeError:
        packed = {}
    if not packed or not all(is_run_name(name) for name in packed):
        raise FaroutError(f"{state} holds no campaign's state: give another folder")
    return packed
