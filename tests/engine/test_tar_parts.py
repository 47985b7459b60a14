"""States in parts: cut at the size, vouched for byte by byte, whole at every moment."""

import hashlib
import json
from pathlib import Path

import pytest

from farout.engine import tar_parts
from farout.errors import FaroutError

PART = 100_000


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Two files that need three parts of 100 kB."""
    monkeypatch.setattr(tar_parts, "PART_BYTES", PART)
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a").write_bytes(bytes(range(256)) * 700)
    (folder / "b").write_bytes(b"small")
    return {"run/a": folder / "a", "run/b": folder / "b"}


def unpacked(state: Path, to: Path) -> dict[str, bytes]:
    manifest = tar_parts.read_manifest(state, "campaign")
    assert manifest is not None
    tar_parts.unpack(state, manifest, lambda name: to / name)
    return {str(path.relative_to(to)): path.read_bytes() for path in to.rglob("*") if path.is_file()}


def test_parts_are_cut_at_the_size_and_come_back_whole(files: dict[str, Path], tmp_path: Path) -> None:
    state = tmp_path / "state"
    manifest = tar_parts.pack(state, "campaign", files, {"commit": "abc"})
    assert [part["name"] for part in manifest["parts"]] == [f"campaign.tar.{i:03d}" for i in range(2)]
    assert [part["bytes"] for part in manifest["parts"]] == [PART, manifest["bytes"] - PART]
    assert {path.name for path in state.iterdir()} == {"campaign.json", "campaign.tar.000", "campaign.tar.001"}
    assert json.loads((state / "campaign.json").read_text())["commit"] == "abc"
    assert unpacked(state, tmp_path / "out") == {name: path.read_bytes() for name, path in files.items()}


def test_the_same_files_give_the_same_parts(files: dict[str, Path], tmp_path: Path) -> None:
    first = tar_parts.pack(tmp_path / "one", "campaign", files, {})
    for path in files.values():
        path.touch()
    assert tar_parts.pack(tmp_path / "two", "campaign", files, {}) == first


@pytest.mark.parametrize("harm", ["flipped", "cut", "missing"])
def test_a_damaged_part_is_refused_before_anything_is_written(
    files: dict[str, Path], tmp_path: Path, harm: str
) -> None:
    state, out = tmp_path / "state", tmp_path / "out"
    tar_parts.pack(state, "campaign", files, {})
    part = state / "campaign.tar.001"
    content = part.read_bytes()
    if harm == "flipped":
        part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "cut":
        part.write_bytes(content[:-1])
    else:
        part.unlink()
    with pytest.raises(FaroutError, match=r"campaign\.tar\.001 is (damaged|missing).*nothing was unpacked"):
        unpacked(state, out)
    assert not out.exists()


def test_an_interrupted_packing_leaves_the_earlier_state_whole(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    tar_parts.pack(state, "campaign", files, {})
    earlier = {name: path.read_bytes() for name, path in files.items()}
    files["run/a"].write_bytes(b"new" * 60_000)

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tar_parts, "save_json", killed)
        tar_parts.pack(state, "campaign", files, {})
    assert unpacked(state, tmp_path / "out") == earlier


def test_earlier_parts_go_once_the_new_manifest_is_there(files: dict[str, Path], tmp_path: Path) -> None:
    state = tmp_path / "state"
    for numbers in [(0, 1), (500, 501), (0, 1)]:
        tar_parts.pack(state, "campaign", files, {})
        names = {f"campaign.tar.{number:03d}" for number in numbers}
        assert {path.name for path in state.iterdir()} == names | {"campaign.json"}


def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    digest = hashlib.sha256(b"x").hexdigest()
    state = tmp_path / "state"
    state.mkdir()
    entry = {"name": "../secret", "bytes": 1, "sha256": digest}
    (state / "campaign.json").write_text(json.dumps({"bytes": 1, "parts": [entry]}))
    with pytest.raises(FaroutError, match="no manifest"):
        tar_parts.read_manifest(state, "campaign")
