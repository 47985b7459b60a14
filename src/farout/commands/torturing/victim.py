"""One subject: its end when left alone, and the end after interruptions, which must be the same."""

import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from farout.commands.torturing.disks import SmallDisk
from farout.commands.torturing.ends import ends, held_locks, size_of, temporary_files
from farout.commands.torturing.process import Command, FromWithin
from farout.commands.torturing.subjects import Subject
from farout.commands.torturing.tally import Tally
from farout.engine.progress import say
from farout.files import new_file, set_aside


@dataclass
class Victim:
    """A subject in a folder of its own: uninterrupted in `whole`, interrupted in `hit` or on a small disk.

    Attributes:
        given: a folder with what lies there before the command.
        start_up: seconds until the work begins; working: seconds of it; changes: how often it changes its folder.
        commands: those begun since the last comparison; pending: the interruptions since then.
    """

    subject: Subject
    folder: Path
    given: Path
    moments: random.Random
    tally: Tally
    start_up: float = 0.0
    working: float = 0.0
    changes: int = 0
    whole: dict[str, str] = field(default_factory=dict)
    disk: SmallDisk | None = None
    commands: list[Command] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)

    def learn(self) -> None:
        """Its end when nothing interrupts it. Raises FaroutError."""
        whole, began = self.folder / "whole", time.monotonic()
        self._furnish(whole)
        command = self.start(FromWithin(), whole)
        command.until(self.subject.begins)
        worked = time.monotonic()
        command.succeeded()
        self.start_up, self.working = worked - began, time.monotonic() - worked
        self.changes, self.whole = command.changes(), ends(whole)
        took = f"{self.start_up + self.working:.0f} s, {self.changes} changes of its folder"
        say(f"{self.subject.name}: {len(self.whole)} files in {took}")
        self.begin()

    def product(self) -> int:
        """Bytes that it writes."""
        return size_of(self.folder / "whole") - size_of(self.given)

    def begin(self) -> None:
        """A folder without what was interrupted before."""
        self.end()
        self.commands, self.pending = [], []
        shutil.rmtree(self.folder / "hit", ignore_errors=True)
        self._furnish(self.folder / "hit")

    def end(self) -> None:
        """No command of it is left to run."""
        for command in self.commands:
            command.process.kill()

    def start(self, within: FromWithin | None = None, folder: Path | None = None) -> Command:
        """Begin the command."""
        place, inside = folder or self.folder / "hit", self.disk.inside if self.disk else []
        if self.disk is not None:
            place = self.disk.place
        said = self.folder / f"said-{len(self.commands)}.txt"
        self.commands.append(Command(self.subject.words(place), place, said, within, inside))
        return self.commands[-1]

    def struck(self, stage: str, how: str) -> None:
        """An interruption took place, whose end will be compared."""
        self.pending.append(how)
        say(f"  {stage}, {self.subject.name}: {how}; {self.commands[-1].last_words()}")

    def settle(self, stage: str, repeat: bool = True) -> None:
        """Let it come to its end, unless it has, and compare; then all begins anew. Raises FaroutError."""
        if repeat:
            self.start().succeeded()
        place = self.disk.seen_from_here if self.disk else self.folder / "hit"
        found = ends(place)
        differing = sorted(name for name in self.whole if self.whole[name] != found.get(name))
        self.tally.add(stage, self.pending, equal=not differing)
        self.tally.leave(stage, "files", sorted({*(found.keys() - self.whole.keys()), *temporary_files(place)}))
        self.tally.leave(stage, "locks", held_locks(place))
        alive = [command.last_words() for command in self.commands if command.left_processes()]
        self.tally.leave(stage, "processes", alive)
        if differing:
            self.condemn(stage, f"differs in {', '.join(differing)}")
        elif self.pending:
            say(f"  {stage}, {self.subject.name}: the same end")
        self.begin()

    def condemn(self, stage: str, why: str) -> None:
        """Note a fault, and keep what it left."""
        if self.disk is None and (self.folder / "hit").is_dir():
            why += f"; kept in {set_aside(self.folder / 'hit', 'differs')}"
        said = [str(set_aside(command.file, "differs")) for command in self.commands if command.file.exists()]
        why += f"; what was said in {', '.join(said)}" if said else ""
        self.tally.faults.append(f"{stage}, {self.subject.name}: {why}")
        say(f"  FAULT: {self.tally.faults[-1]}")

    @contextmanager
    def moved_to(self, disk: SmallDisk) -> Iterator[None]:
        """On a small disk for a while, with what is given."""
        self._furnish(disk.seen_from_here)
        self.disk = disk
        try:
            yield
        finally:
            self.disk = None

    def _furnish(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.given.rglob("*")):
            name = path.relative_to(self.given)
            target = folder / name
            if any(name.match(pattern) for pattern in self.subject.without):
                continue
            if path.is_dir():
                target.mkdir(exist_ok=True)
            else:
                with new_file(target) as file:
                    file.write(path.read_bytes())
