"""Ways to interrupt: at a moment, from within at a change of the folder, beside another process, by a disk.

Each tries once; it returns how many interruptions took place (0: the command was faster), and raises FaroutError where
a command ends as it should not.
"""

from collections.abc import Callable

from farout.commands.torturing.disks import small_disk
from farout.commands.torturing.ends import temporary_files
from farout.commands.torturing.process import Command, FromWithin
from farout.commands.torturing.victim import Victim
from farout.errors import FaroutError

Interrupt = Callable[[Victim, str, str], int]  # victim, stage, signal

WHILE_IT_STARTS = 0.15  # share of the moments, where the beginning of the work can be told
ROOM = "size=1g"


class NotPermitted(FaroutError):
    """The system does not let us make a disk."""


def at_a_moment(victim: Victim, stage: str, sent: str) -> int:
    """While it works, now and then while it starts."""
    return _outcome(victim, stage, sent, _struck_at_a_moment(victim, sent))


def at_a_change(victim: Victim, stage: str, sent: str) -> int:
    """Before or amid the writing, renaming, linking or removing of one of its files."""
    command = victim.start(FromWithin.drawn(victim.moments, victim.changes, sent))
    return _outcome(victim, stage, sent, command)


def at_either(victim: Victim, stage: str, sent: str) -> int:
    """One of the two."""
    return victim.moments.choice([at_a_moment, at_a_change])(victim, stage, sent)


def beside_another(victim: Victim, stage: str, sent: str) -> int:
    """Two processes with the same command at once: one is hit, the other goes on and must succeed."""
    other = victim.start()
    if victim.moments.random() < 0.5:
        command = victim.start(FromWithin.drawn(victim.moments, victim.changes, sent))
    else:
        command = _struck_at_a_moment(victim, sent)
    hit = command.was_hit(sent)
    other.succeeded()
    if hit:
        victim.struck(stage, f"SIG{sent}")
    victim.settle(stage)
    return int(hit)


def on_a_full_disk(victim: Victim, stage: str, sent: str) -> int:
    """Somewhere between nothing and all of it there is no more room; refused in a line, it goes on with room."""
    with small_disk(victim.folder / "disk") as disk:
        if disk is None:
            raise NotPermitted("not permitted here")
        with victim.moved_to(disk):
            disk.leave_room(victim.moments.random() * victim.product())
            refused = _refused(victim, stage, "disk is full", "cannot be written (the disk is full)")
            disk.remount(ROOM)
            victim.settle(stage)
    return refused


def on_a_read_only_disk(victim: Victim, stage: str, sent: str) -> int:
    """Killed somewhere, it finds the disk read-only; refused in a line, it goes on when that is over."""
    with small_disk(victim.folder / "disk") as disk:
        if disk is None:
            raise NotPermitted("not permitted here")
        with victim.moved_to(disk):
            _struck_at_a_moment(victim, "KILL").was_hit("KILL")
            disk.remount("ro")
            refused = _refused(victim, stage, "read-only disk", "read-only")
            disk.remount("rw")
            victim.settle(stage)
    return refused


def _struck_at_a_moment(victim: Victim, sent: str) -> Command:
    command, wait = victim.start(), victim.moments.random()
    if victim.subject.begins and victim.moments.random() > WHILE_IT_STARTS:
        command.until(victim.subject.begins)
        command.sent_after(wait * victim.working, sent)
    else:
        command.sent_after(wait * (victim.start_up or victim.working), sent)
    return command


def _outcome(victim: Victim, stage: str, sent: str, command: Command) -> int:
    if command.was_hit(sent):
        victim.struck(stage, f"SIG{sent}")
        return 1
    victim.settle(stage, repeat=False)
    return 0


def _refused(victim: Victim, stage: str, how: str, why: str) -> int:
    """Whether the disk stopped the command: then in one line with status 2, and nothing half written."""
    command = victim.start()
    status, said = command.status(), command.said()
    if status == 0:
        return 0
    if status != 2 or why not in said or "Traceback" in said:
        raise FaroutError(f"status {status} on a {how}: {said.strip()[-300:]}")
    victim.tally.leave(stage, "files", temporary_files(victim.disk.seen_from_here) if victim.disk else [])
    victim.struck(stage, "disk")
    return 1
