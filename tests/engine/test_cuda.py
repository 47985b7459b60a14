"""What only a GPU can show; skipped without one."""

import pytest
import torch

from farout.backbones.cifar_resnet import CifarResNet
from farout.data.streams import EndlessShuffle, EpochShuffle
from farout.data.transform import Transform
from farout.engine.batches import DeviceBatches, Stream
from farout.engine.fit import Audience, Optimisation, fit
from farout.methods import EnergyFineTuning

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

TRANSFORM = Transform([0.5] * 3, [0.25] * 3, flip=True, crop_padding=4)


def _batches(device: torch.device) -> DeviceBatches:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (256, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (256,), generator=generator)
    streams = {
        "labelled": Stream(images, labels, None, EpochShuffle(256, 64, 1, "labelled", device)),
        "outliers": Stream(images, None, None, EndlessShuffle(256, 128, 1, "outliers", device), outliers=True),
    }
    return DeviceBatches(streams, TRANSFORM, 1, device, channels_last=True)


@pytest.mark.parametrize("compiled", [False, True])
def test_energy_fine_tuning_runs_in_bf16_and_lowers_its_loss(compiled: bool) -> None:
    device = torch.device("cuda")
    torch.manual_seed(0)
    model = CifarResNet(20, 10).to(device).to(memory_format=torch.channels_last)
    if compiled:
        model.compile_trunk()
    seen: list[float] = []
    with model.precision(torch.bfloat16):
        fit(
            model,
            EnergyFineTuning(-25, -7, 0.1, 1.0),
            _batches(device),
            Optimisation(lr=0.01),
            40,
            audience=Audience(log=lambda step, values: seen.append(values["train/total"]), log_every=10),
        )
    assert model(torch.zeros(2, 3, 32, 32, device=device)).dtype == torch.float32
    assert seen[-1] < seen[0]


def test_batches_see_the_same_images_as_on_the_cpu() -> None:
    here, there = _batches(torch.device("cpu")), _batches(torch.device("cuda"))
    for step in (0, 5):
        assert torch.equal(here(step)["labelled"].targets, there(step)["labelled"].targets.cpu())
