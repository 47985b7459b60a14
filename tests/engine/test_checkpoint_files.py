"""Files are whole or absent."""

import os

import pytest
import torch
from torch import nn

from farout import files
from farout.engine.checkpoint import (
    DamagedState,
    load_state,
    load_weights,
    read_state,
    save_state,
    save_weights,
    state_hash,
)
from farout.errors import FaroutError
from farout.files import write_atomically
from state_dicts import tensors_equal

CPU = torch.device("cpu")


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "state.pt"
    save_state(path, {"step": 1})

    def half(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, half)
    assert load_state(path, CPU) == {"step": 1}
    assert os.listdir(tmp_path) == ["state.pt"]


def test_the_file_appears_only_by_renaming(tmp_path, monkeypatch):
    path, seen = tmp_path / "deep" / "state.pt", []
    real = os.replace

    def replace(source, target):
        seen.append((path.exists(), load_state(source, CPU)))
        real(source, target)

    monkeypatch.setattr(files.os, "replace", replace)
    save_state(path, {"step": 2})
    assert seen == [(False, {"step": 2})], "whole before it takes its name"
    assert load_state(path, CPU) == {"step": 2}


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 truncated"])
def test_a_damaged_state_is_one_line(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(FaroutError, match=r"checkpoint\.pt cannot be read .*remove it") as caught:
        load_state(path, CPU)
    assert "\n" not in str(caught.value)


def test_a_truncated_state_is_one_line(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_state(path, {"weights": torch.randn(1000)})
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(FaroutError, match="cannot be read"):
        load_state(path, CPU)


def test_states_never_unpickle_code(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"step": nn.Linear(1, 1)}, path)
    with pytest.raises(FaroutError, match="cannot be read"):
        load_state(path, CPU)


def test_weights_round_trip_also_from_channels_last(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    save_weights(tmp_path / "w.safetensors", model)
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    load_weights(tmp_path / "w.safetensors", other)
    assert tensors_equal(model.state_dict(), other.state_dict())
    with pytest.raises(FaroutError, match="does not fit this network") as caught:
        load_weights(tmp_path / "w.safetensors", nn.Linear(2, 2))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"junk junk junk"])
def test_damaged_weights_are_one_line(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(FaroutError, match=r"weights\.safetensors") as caught:
        load_weights(path, nn.Linear(2, 2))
    assert "\n" not in str(caught.value)


def test_tensors_equal():
    a = {"x": torch.zeros(2)}
    assert tensors_equal(a, {"x": torch.zeros(2)})
    assert not tensors_equal(a, {"x": torch.tensor([0.0, 1e-30])})
    assert not tensors_equal(a, {"x": torch.zeros(2), "y": torch.zeros(1)})


STATE = {"step": 3, "model": {"w": torch.arange(60.0).reshape(3, 20)}, "rates": [(0.1, 1e-6), None, True], "name": "x"}


def test_a_flipped_bit_anywhere_is_noticed_or_changes_nothing(tmp_path):
    path, noticed = tmp_path / "state.pt", 0
    save_state(path, STATE)
    content = path.read_bytes()
    for place in range(0, len(content), 11):
        flipped = bytearray(content)
        flipped[place] ^= 0x10
        path.write_bytes(flipped)
        try:
            loaded = load_state(path, CPU)
        except DamagedState:
            noticed += 1
            continue
        assert state_hash(loaded) == state_hash(STATE), place
    assert noticed > 20


@pytest.mark.parametrize(
    "change",
    [
        {"step": 4},
        {"name": "y"},
        {"rates": [(0.1, 1e-6), None, 1]},
        {"model": {"v": STATE["model"]["w"]}},
        {"model": {"w": STATE["model"]["w"].reshape(20, 3)}},
        {"model": {"w": STATE["model"]["w"].double()}},
        {"model": {"w": STATE["model"]["w"].nextafter(torch.tensor(9e9))}},
    ],
)
def test_the_hash_of_a_state_is_of_all_that_it_says(change):
    assert state_hash({**STATE, **change}) != state_hash(STATE)
    same = {**STATE, "model": {"w": STATE["model"]["w"].t().contiguous().t()}}
    assert state_hash(same) == state_hash(STATE), "layout in memory is no content"


def test_states_of_before_hashes_are_read_and_their_archives_checked(tmp_path):
    path = tmp_path / "state.pt"
    torch.save(STATE, path)
    assert read_state(path, CPU)[1] is False
    content = bytearray(path.read_bytes())
    content[content.index(STATE["model"]["w"].numpy().tobytes()) + 9] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedState, match="is damaged"):
        read_state(path, CPU)
