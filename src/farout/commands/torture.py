"""Interrupt the commands at random, repeat them until they end, and compare: the same bits as if nothing had happened.

    python scripts/torture.py                                    200 interruptions over all stages and methods
    python scripts/torture.py --interruptions 5 --stages train save --methods jem_restarts --seed 7

Every command is run once without an interruption, on digits at smoke scale, then again and again with SIGKILL, SIGTERM
and SIGUSR1: at random moments and while it changes files, alone and beside a second process, on a disk that is full or
read-only (a small tmpfs, where the system permits one). Every file must be equal in the end, but for dates and
durations, and no file, lock or process may be left over. The count is printed as a table.
"""

import argparse
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from farout.commands.arguments import Parser, folder_to_write, guarded, require_checkout, whole
from farout.commands.torturing import interruptions
from farout.commands.torturing.interruptions import Interrupt, NotPermitted
from farout.commands.torturing.process import SIGNALS, Command
from farout.commands.torturing.subjects import METHODS, OTHERS, Subject, filled, trainings
from farout.commands.torturing.tally import Tally
from farout.commands.torturing.victim import Victim
from farout.engine.progress import say
from farout.errors import ConfigError, FaroutError

TRAININGS = "trainings"  # stands for one subject a method
# Stage -> its share of all interruptions, what is interrupted, and how.
STAGES: dict[str, tuple[float, list[str], Interrupt]] = {
    "train": (0.26, [TRAININGS], interruptions.at_a_moment),
    "save": (0.18, [TRAININGS], interruptions.at_a_change),
    "evaluate": (0.12, ["evaluate"], interruptions.at_either),
    "build": (0.09, ["build"], interruptions.at_either),
    "pack": (0.05, ["pack"], interruptions.at_either),
    "report": (0.05, ["report"], interruptions.at_either),
    "page": (0.05, ["page"], interruptions.at_either),
    "two on one run": (0.07, [TRAININGS, "evaluate"], interruptions.beside_another),
    "two on one store": (0.05, ["build"], interruptions.beside_another),
    "full disk": (0.05, [TRAININGS, "evaluate", "build", "pack", "page"], interruptions.on_a_full_disk),
    "read-only disk": (0.03, [TRAININGS, "build", "pack"], interruptions.on_a_read_only_disk),
}
NAMES = {stage.replace(" ", "-"): stage for stage in STAGES}
WEIGHTS = {"KILL": 2, "TERM": 1, "USR1": 1}
MISSES = 20  # tries one after the other that came too late


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--interruptions", type=whole(1), default=200, help="in all (default: %(default)s)")
    add("--stages", nargs="+", choices=NAMES, default=list(NAMES), help="default: all")
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="that are trained (default: all)")
    add("--signals", nargs="+", choices=SIGNALS, default=list(SIGNALS), help="default: all")
    add("--seed", type=whole(0), help="of the moments (default: another every time; it is printed)")
    add("--folder", type=Path, help="keep the outputs here (default: a temporary folder)")
    return parser.parse_args(arguments)


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Interrupt and compare; 1 where something differs or is left over."""
    options = parse(arguments)
    require_checkout("this test of all commands")
    folder_to_write("--folder", options.folder)
    if options.folder is not None and options.folder.is_dir() and any(options.folder.iterdir()):
        raise ConfigError(f"--folder {options.folder} is not empty: finished runs would not be trained again")
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    stages = [NAMES[name] for name in options.stages]
    say(f"{options.interruptions} interruptions over {', '.join(stages)}; the same moments again: --seed {seed}")
    with tempfile.TemporaryDirectory(prefix="torture-") as scratch:
        torture = Torture((options.folder or Path(scratch)).absolute(), random.Random(seed), options)
        try:
            torture.carry_out(shares(stages, options.interruptions))
        finally:  # also where somebody has seen enough
            for line in torture.tally.lines(stages):
                say(line)
    return verdict(torture.tally, seed)


def verdict(tally: Tally, seed: int) -> int:
    """Say how it went; the exit status."""
    for fault in tally.faults:
        say(f"DIFFERENT: {fault}")
    if tally.faults:
        say(f"{len(tally.faults)} faults (--seed {seed})")
        return 1
    say(f"all {tally.tried.total()} ended bit-equal to uninterrupted commands, and nothing was left over")
    return 0


def shares(stages: Sequence[str], count: int) -> dict[str, int]:
    """How many interruptions each stage gets: by its share, and one each as long as there are any."""
    whole_share = sum(STAGES[stage][0] for stage in stages)
    wanted = {stage: count * STAGES[stage][0] / whole_share for stage in stages}
    found = dict.fromkeys(stages, 0)
    for _ in range(count):  # the next goes where most is missing, to a stage without any first
        neediest = max(stages, key=lambda stage: (found[stage] == 0, wanted[stage] - found[stage]))
        found[neediest] += 1
    return found


class Torture:
    """Subjects with their uninterrupted ends, made when they are wanted, and the count."""

    def __init__(self, folder: Path, moments: random.Random, options: argparse.Namespace) -> None:
        self.folder, self.moments, self.options = folder, moments, options
        self.tally = Tally()
        self.victims: dict[str, Victim] = {}
        self.given: dict[tuple[str, ...], Path] = {}

    def carry_out(self, counts: dict[str, int]) -> None:
        """All stages; in each the subjects take turns, beginning with another one than the stage before."""
        try:
            self._carry_out(counts)
        finally:
            for victim in self.victims.values():
                victim.end()

    def _carry_out(self, counts: dict[str, int]) -> None:
        for number, (stage, count) in enumerate(counts.items()):
            subjects = self._subjects(stage)
            for turn in range(min(count, len(subjects))):
                share = count // len(subjects) + (turn < count % len(subjects))
                try:
                    self._interrupt(stage, self._victim(subjects[(number + turn) % len(subjects)]), share)
                except NotPermitted as problem:
                    self.tally.refused[stage] = str(problem)
                    say(f"{stage}: {problem}")
                    break

    def _subjects(self, stage: str) -> list[Subject]:
        chosen = trainings(self.options.methods)
        return [each for name in STAGES[stage][1] for each in (chosen if name == TRAININGS else [OTHERS[name]])]

    def _victim(self, subject: Subject) -> Victim:
        if subject.name not in self.victims:
            folder = self.folder / subject.name
            victim = Victim(subject, folder, self._given(subject), self.moments, self.tally)
            self.victims[subject.name] = victim
            victim.learn()
        return self.victims[subject.name]

    def _given(self, subject: Subject) -> Path:
        """A folder with the end of the commands that come before the subject's."""
        if subject.given not in self.given:
            folder = self.folder / "given" / str(len(self.given))
            folder.mkdir(parents=True)
            for command in subject.given:
                Command(filled(command, folder), folder, folder.with_suffix(".txt")).succeeded()
            self.given[subject.given] = folder
        return self.given[subject.given]

    def _interrupt(self, stage: str, victim: Victim, count: int) -> None:
        interrupt, done, missed = STAGES[stage][2], 0, 0
        while done < count:
            sent = self._signal()
            try:
                hits = interrupt(victim, stage, sent)
            except NotPermitted:
                raise
            except FaroutError as fault:
                hits = self._fault(stage, victim, fault, "disk" if stage.endswith("disk") else f"SIG{sent}")
            done, missed = done + hits, 0 if hits else missed + 1
            if missed > MISSES:
                raise FaroutError(f"{stage}, {victim.subject.name}: {MISSES} tries came too late, one after the other")
        try:
            if victim.pending:
                victim.settle(stage)
        except FaroutError as fault:
            self._fault(stage, victim, fault, victim.pending[-1])

    def _fault(self, stage: str, victim: Victim, fault: FaroutError, how: str) -> int:
        """A command that ended as it should not: what led there counts as different."""
        self.tally.add(stage, victim.pending or [how], equal=False)
        victim.condemn(stage, str(fault))
        victim.begin()
        return 1

    def _signal(self) -> str:
        names = self.options.signals
        return str(self.moments.choices(names, [WEIGHTS[name] for name in names])[0])
