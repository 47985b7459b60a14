"""The one writer of files: whole or absent, one line where the disk refuses, the umask's modes, no litter."""

import errno
import os
import stat
import subprocess
import sys

import pytest
import torch
from torch import nn

from farout import files
from farout.engine.checkpoint import save_state, save_weights
from farout.errors import FaroutError, MissingDataError, UnwritableError
from farout.files import (
    load_json,
    load_object,
    remove_leftovers,
    save_json,
    set_aside,
    temporary_name,
    write_bytes,
    write_text,
)


def test_json_round_trip(tmp_path):
    path = tmp_path / "deep" / "run.json"
    value = {"lr": 1e-6, "name": "ä", "file": os.fsdecode(b"caf\xe9.png")}
    save_json(path, value)
    assert load_json(path) == value, "a name that is no UTF-8 too"


@pytest.mark.parametrize(
    "content",
    [b'{"lr": 1', b"", b"\xff\xfe", b"[" * 200_000, b"9" * 5000],
    ids=["cut", "empty", "bytes", "deep", "long"],
)
def test_damaged_json_is_one_line(tmp_path, content):
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(FaroutError, match=r"run\.json is not valid JSON .*: copy it again$") as caught:
        load_json(path, "copy it again")
    assert "\n" not in str(caught.value)


def test_json_that_is_absent_a_folder_or_of_another_shape(tmp_path):
    with pytest.raises(MissingDataError, match="is not there"):
        load_json(tmp_path / "none.json")
    with pytest.raises(FaroutError, match="cannot be read"):
        load_json(tmp_path)
    save_json(tmp_path / "list.json", [1])
    with pytest.raises(FaroutError, match="holds no JSON object"):
        load_object(tmp_path / "list.json")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full[)]: make room"),
        (errno.EROFS, "the disk is read-only[)]: give a folder"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "Input/output error"),
    ],
)
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_what_the_disk_refuses_is_one_line_and_the_old_content_stays(tmp_path, monkeypatch, number, said, where):
    path = tmp_path / "state.pt"
    write_text(path, "old")

    def refuse(*given):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, where, refuse)
    for write in (lambda: write_text(path, "new"), lambda: save_state(path, {"step": torch.zeros(3)})):
        with pytest.raises(UnwritableError, match=f"state.pt cannot be written [(]{said}") as caught:
            write()
        assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["state.pt"]


def test_a_state_that_is_not_written_leaves_no_view_of_a_buffer(tmp_path, monkeypatch):
    """The collection of one ends Python 3.12.1 at once."""
    views = []

    def refuse(path, content):
        views.append(content)
        raise UnwritableError("full")

    monkeypatch.setattr("farout.engine.checkpoint.write_bytes", refuse)
    with pytest.raises(UnwritableError):
        save_state(tmp_path / "state.pt", {"step": torch.zeros(3)})
    with pytest.raises(ValueError, match="released"):
        bytes(views[0])


def test_a_file_where_a_folder_should_be_is_one_line(tmp_path):
    (tmp_path / "runs").write_text("")
    for path in (tmp_path / "runs" / "run.json", tmp_path / "runs" / "deep" / "run.json"):
        with pytest.raises(UnwritableError, match="a file stands where its folder should be"):
            write_text(path, "")
    with pytest.raises(UnwritableError, match="name is too long"):
        write_text(tmp_path / ("n" * 250), "")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_files_are_readable_as_the_umask_says(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        save_weights(tmp_path / "weights.safetensors", nn.Linear(2, 2))
        save_json(tmp_path / "run.json", {})
        with files.whole_file(tmp_path / "own") as own:
            own.write_text("x")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {mode}


@pytest.fixture(scope="module")
def dead() -> int:
    """The number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    return ended.pid


def test_only_what_a_dead_process_left_is_removed(tmp_path, dead):
    live, host = os.getppid(), temporary_name(tmp_path / "x").name.rpartition("@")[2].removesuffix(".tmp")
    gone = [f".a.json.{dead}@{host}.tmp", f".b@c.npz.{dead}.tmp", f".own.{os.getpid()}@{host}.tmp"]
    stays = [f".d.npz.{live}@{host}.tmp", f".e.npz.{dead}@other.tmp", "notes.tmp", ".f.tmp", f"g.{dead}.tmp"]
    old = [f".h.{live}@{host}.tmp", f".i.{dead}@other.tmp"]
    for name in [*gone, *stays, *old]:
        (tmp_path / name).touch()
    for name in old:
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / f".j.npz.{live}.tmp").touch()
    remove_leftovers([tmp_path, tmp_path / "absent"])
    assert sorted(os.listdir(tmp_path)) == sorted([*stays, f".j.npz.{live}.tmp"])
    remove_leftovers([tmp_path], sole_writer=True)
    assert sorted(os.listdir(tmp_path)) == sorted(stays), "the lock settles it where no machine is named"


def test_a_file_that_is_written_again_removes_what_dead_processes_left_of_it(tmp_path, dead):
    host = temporary_name(tmp_path / "x").name.rpartition("@")[2].removesuffix(".tmp")
    stays = [f".a.json.{os.getppid()}@{host}.tmp", f".b.json.{dead}@{host}.tmp", f".a.json.sum.{dead}@{host}.tmp"]
    for name in [*stays, f".a.json.{dead}@{host}.tmp"]:
        (tmp_path / name).touch()
    save_json(tmp_path / "a.json", {})
    assert sorted(os.listdir(tmp_path)) == sorted([*stays, "a.json"])


def test_what_is_damaged_is_kept_under_other_names(tmp_path):
    path = tmp_path / "run.json"
    for content in (b"1", b"2", b"3"):
        write_bytes(path, content)
        set_aside(path)
    found = {entry.name: entry.read_text() for entry in tmp_path.iterdir()}
    assert found == {"run.json.damaged": "1", "run.json.damaged-2": "2", "run.json.damaged-3": "3"}
