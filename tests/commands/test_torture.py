"""The torture itself: what it does not forgive, when a process strikes itself, how interruptions are shared out."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from farout.commands.torture import STAGES, shares, verdict
from farout.commands.torturing import strike
from farout.commands.torturing.ends import ends
from farout.commands.torturing.interruptions import NotPermitted, on_a_full_disk
from farout.commands.torturing.subjects import Subject
from farout.commands.torturing.tally import Tally
from farout.commands.torturing.victim import Victim

COMMITS = {"whole": "commit 0123456789ab+", "hit": "commit ba9876543210"}  # somebody commits meanwhile


@pytest.fixture
def victim(tmp_path: Path) -> Victim:
    """One that was interrupted once, and whose folder holds what it should."""
    (tmp_path / "given").mkdir()
    for folder in ("whole", "hit"):
        place = tmp_path / folder / "runs/ce"
        place.mkdir(parents=True)
        (place / "weights.safetensors").write_bytes(b"weights")
        (place / "run.json").write_text(f'{{"losses": [1.5], "seconds": {len(folder)}, "date": "{folder}"}}')
        (place / "report.html").write_text(f"2026-11-{len(folder):02d} 10:00, {COMMITS[folder]}, AUROC 91.2")
        lines = ['{"step": 1, "train/total": 0.5}', '{"step": 2, "train/total": 0.25}']
        (place / "metrics.jsonl").write_text("\n".join(lines[: 1 + (folder == "hit")] + lines) + "\n")
    subject = Subject("ce", "train.py")
    return Victim(subject, tmp_path, tmp_path / "given", random.Random(0), Tally(), whole=ends(tmp_path / "whole"))


def counted(victim: Victim) -> list[str]:
    victim.pending.append("SIGKILL")
    victim.settle("train", repeat=False)
    return [cell.strip() for cell in victim.tally.lines(["train"])[2].split("|")[2:-1]]


def test_dates_commits_durations_and_steps_that_were_logged_twice_are_no_difference(victim: Victim) -> None:
    assert counted(victim) == ["1 of 1", "", "", "", "0", "0", "0"]
    assert verdict(victim.tally, 0) == 0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("weights.safetensors", b"weightz"),
        ("run.json", b'{"losses": [1.25]}'),
        ("report.html", f"2026-11-03 10:00, {COMMITS['hit']}, AUROC 91.3".encode()),
        ("metrics.jsonl", b'{"step": 1, "train/total": 0.5}\n'),
    ],
)
def test_what_differs_is_told_and_kept(victim: Victim, name: str, content: bytes) -> None:
    (victim.folder / "hit/runs/ce" / name).write_bytes(content)
    assert counted(victim) == ["0 of 1", "", "", "", "0", "0", "0"]
    assert verdict(victim.tally, 0) == 1
    assert f"differs in runs/ce/{name}" in victim.tally.faults[0]
    assert (victim.folder / "hit.differs/runs/ce" / name).read_bytes() == content


def test_what_was_said_is_kept_beside_what_differs(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Subject, "words", lambda subject, folder: ["train.py", "method=nonsense"])
    command = victim.start()
    assert command.status() == 2
    said = command.said()
    assert "nonsense" in said
    victim.condemn("train", "it does not end")
    (kept,) = victim.folder.glob("said-*.txt.differs*")
    assert kept.read_text() == said and str(kept) in victim.tally.faults[0]


@pytest.mark.parametrize(
    "name", ["runs/ce/.weights.safetensors.7@here.tmp", "cache/.a.7@b.tmp", "runs/ce/run.json.damaged"]
)
def test_a_file_that_is_left_over_is_a_fault(victim: Victim, name: str) -> None:
    path = victim.folder / "hit" / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert counted(victim) == ["1 of 1", "", "", "", "1", "0", "0"]
    assert verdict(victim.tally, 0) == 1


def test_a_lock_that_is_held_is_a_fault(victim: Victim) -> None:
    with FileLock(victim.folder / "hit/runs/ce.lock"):
        assert counted(victim) == ["1 of 1", "", "", "", "0", "1", "0"]
    assert verdict(victim.tally, 0) == 1


SCRIPT = """
import sys
from pathlib import Path
folder = Path(sys.argv[1])
(folder / "one").write_text("1")
(folder.parent / "elsewhere").write_text("no change of the folder")
(folder / "one").read_text()
(folder / "one").rename(folder / "two")
print("done")
"""


@pytest.mark.parametrize(("number", "left"), [(1, set()), (2, {"one"}), (3, {"two"})])
def test_a_process_strikes_itself_before_its_nth_change(tmp_path: Path, number: int, left: set[str]) -> None:
    folder, script = tmp_path / "folder", tmp_path / "script.py"
    folder.mkdir()
    script.write_text(SCRIPT)
    words = [strike.__file__, str(number), "SIGKILL", "0", str(folder), str(script), str(folder)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert {path.name for path in folder.iterdir()} == left
    if number > 2:
        assert (done.returncode, done.stdout) == (0, "done\n\nchanges: 2\n")
    else:
        assert done.returncode == -signal.SIGKILL


def test_where_no_disk_may_be_made_that_is_said(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotPermitted, match="not permitted here"):
        on_a_full_disk(victim, "full disk", "KILL")


@pytest.mark.parametrize("count", [3, 12, 200])
def test_interruptions_are_shared_out_to_every_stage_as_far_as_they_go(count: int) -> None:
    found = shares(list(STAGES), count)
    assert sum(found.values()) == count and len(found) == len(STAGES)
    assert sum(number > 0 for number in found.values()) == min(count, len(STAGES))
    assert max(found, key=found.__getitem__) == "train"
    assert sum(share for share, *_ in STAGES.values()) == pytest.approx(1)
