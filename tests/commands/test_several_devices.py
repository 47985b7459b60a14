"""trainer.devices=2: one command, two processes, the same run."""

import json
import multiprocessing
import os
import signal
import sys

import pytest
import torch
from safetensors.torch import load_file

from farout.config.settings import TrainerSettings
from farout.engine.processes import ALONE
from farout.errors import ConfigError, FaroutError
from farout.methods import EnergyFineTuning
from farout.runs.devices import as_launched, several_devices
from farout.runs.environment import choose_device

WORDS = ["method=energy", "max_steps=4", "outlier_batch_size=12", "trainer.precision=fp32"]


@pytest.fixture
def run_of(tmp_path):
    """The child's folder, and its last evaluation without what says when and where."""

    def read():
        (folder,) = (tmp_path / "outputs/runs").glob("energy-*")
        return folder, json.loads((folder / "results.json").read_text())["evaluations"]

    return read


def test_two_devices_are_stopped_and_one_goes_on(command, run_of, monkeypatch):
    real, seen = EnergyFineTuning.loss, []

    def loss(self, model, batches):
        seen.append(1)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, model, batches)

    with monkeypatch.context() as patch:
        patch.setattr(EnergyFineTuning, "loss", loss)
        stopped = command("train", *WORDS, "trainer.devices=2")
    assert stopped.status == 143 and "the same command goes on from step 3" in stopped.err
    assert not multiprocessing.active_children()
    done = command("train", *WORDS)
    assert done.status == 0, done.err
    folder, (first, *_) = run_of()
    assert [
        entry.get("devices") for entry in json.loads((folder / "run.json").read_text())["trained"]["conditions"]
    ] == [2, 1]
    weights = load_file(folder / "weights.safetensors")

    again = command("eval", *WORDS, "trainer.devices=2", "trainer.cache_gib=0")
    assert again.status == 0, again.err
    assert not multiprocessing.active_children()
    _, evaluations = run_of()
    assert evaluations[-2]["rows"] == first["rows"] and evaluations[-2]["id"] == first["id"]

    (folder / "weights.safetensors").unlink()
    assert command("train", *WORDS, "evaluate=false").status == 0
    alone = load_file(folder / "weights.safetensors")
    for key, value in alone.items():
        assert torch.allclose(weights[key], value, rtol=1e-3, atol=1e-3), (key, (weights[key] - value).abs().max())


class _Dies:
    """What a follower is sent, and does not survive."""

    def carry_out(self, processes, device):
        sys.exit(3)


def test_a_process_that_ends_is_said_in_one_line():
    ended = pytest.raises(FaroutError, match="a process of another device has ended, see above")
    with ended, several_devices(TrainerSettings(devices=2), torch.device("cpu")) as processes:
        processes.send(_Dies())
        processes.whole(torch.zeros(2), 4)
    assert not multiprocessing.active_children()


def test_what_is_asked_must_be_there(monkeypatch):
    with several_devices(TrainerSettings(), torch.device("cpu")) as processes:
        assert processes is ALONE
    several = several_devices(TrainerSettings(devices=2), torch.device("cuda:1"))
    with pytest.raises(ConfigError, match="cuda:1 is one device, trainer"), several:
        pass
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    several = several_devices(TrainerSettings(devices=4), torch.device("cuda"))
    with pytest.raises(ConfigError, match="there are 2 CUDA devices here: ask for at most 2"), several:
        pass
    monkeypatch.setattr(torch.xpu, "device_count", lambda: 1)
    assert choose_device("xpu") == torch.device("xpu")
    with pytest.raises(ConfigError, match="there is 1 XPU device here"):
        choose_device("xpu:1")
    monkeypatch.setattr(torch.mps, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="there is no MPS device here"):
        choose_device("mps")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert as_launched(TrainerSettings()).devices == 4
    with pytest.raises(ConfigError, match="torchrun has started 4 processes"):
        as_launched(TrainerSettings(devices=2))
