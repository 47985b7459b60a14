"""To a GPU and back: the host waits once a set, whatever the number of batches. Tensors of the device "meta" stand for
a GPU's, which have shapes and no values."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from farout.backbones.cifar_resnet import CifarResNet
from farout.data import ImageSet
from farout.data.transform import Transform
from farout.engine.evaluate import collect
from farout.engine.host import HostRows, to_device

META = torch.device("meta")
TRANSFORM = Transform((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), flip=False, crop_padding=0)


class Plain(CifarResNet):
    """Its last layer asks nothing of autocast, which does not know the device."""

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(features)


class CopiesToHost(TorchDispatchMode):
    """Counts copies from the device to the host, each of which would wait for it, and makes zeros of them."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.name().split(".")[0]
        assert name not in ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"), "a value is read"
        copies = name in ("aten::_to_copy", "aten::to")  # in inference mode the latter is seen whole
        if copies and args[0].is_meta and (kwargs or {}).get("device") == torch.device("cpu"):
            self.rows.append(len(args[0]))
            return torch.zeros(args[0].shape)
        return function(*args, **(kwargs or {}))


def _images(count: int) -> ImageSet:
    pixels = torch.zeros(count, 3, 32, 32, dtype=torch.uint8)
    return ImageSet("some", "test", pixels, None, (), raw=False, info={})


@pytest.mark.parametrize(("count", "batch_size"), [(3, 4), (23, 4)])
def test_outputs_come_back_once_a_set_and_not_once_a_batch(count: int, batch_size: int) -> None:
    model = Plain(depth=8, num_classes=5, width=4).to(META)
    with CopiesToHost() as copies:
        outputs = collect(model, TRANSFORM, _images(count), META, batch_size)
    assert copies.rows == [count, count], "logits and features"
    assert (len(outputs.logits), len(outputs.features)) == (count, count)


def test_what_a_gpu_holds_is_bounded() -> None:
    rows = HostRows(block_bytes=100)
    with CopiesToHost() as copies:
        for count in (1, 2, 3, 4):
            rows.add(torch.empty(count, 5, device=META))  # 20 bytes a row
        assert copies.rows == [6], "1 + 2 + 3 rows are 120 bytes"
        assert len(rows.all()) == 10
    assert copies.rows == [6, 4]


def test_on_a_cpu_nothing_moves_and_the_order_stays() -> None:
    images = torch.arange(6)
    assert to_device(images, torch.device("cpu")) is images
    rows = HostRows()
    for some in images.split(4):
        rows.add(some)
    assert torch.equal(rows.all(), images)


def test_no_rows_at_all_are_an_error() -> None:
    with pytest.raises(ValueError, match="the set is empty"):
        HostRows().all()
