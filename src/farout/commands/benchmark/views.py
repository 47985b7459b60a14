"""What two random views of a batch cost beside the training step that they feed: interleaved minima of one run.

    python scripts/benchmark/views.py                          512 images, ResNet-18 of width 64
    python scripts/benchmark/views.py --width 16               a narrow network, whose step leaves less to hide behind
    python scripts/benchmark/views.py --batch 64 --rounds 3    where a full step takes long

Timed in turn: gathering the images and making CIDER's views of them, as training does (crop, flip, jitter, grayscale,
normalisation, memory layout); the same with crop and flip alone; forward, backward and update of the network on ready
views; and torchvision's transforms on Pillow images, one after the other in this process, on some of the images.
Views and step both cost about so much an image, so small batches show nearly the share that large ones have.
"""

import argparse
import platform
from collections.abc import Callable, Sequence
from datetime import date

import torch
import torch.nn.functional as F
from torchvision import transforms
from torchvision.transforms import functional as vision

from farout.backbones.resnet import ResNet18
from farout.commands.arguments import Parser, guarded, whole
from farout.commands.benchmark.timing import interleaved
from farout.config.compose import compose_settings
from farout.data.streams import EpochShuffle
from farout.data.views import ViewTransform
from farout.engine.batches import DeviceBatches, Stream
from farout.runs.environment import choose_device, device_name

LIGHT = ["transform.jitter_probability=0", "transform.grayscale_probability=0"]
ONE_BY_ONE = 128  # images that torchvision gets


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Print each task's milliseconds and its share of the network's; 2 after a wrong option."""
    options = _options(arguments)
    device = choose_device(options.device, "--device")
    images = torch.randint(0, 256, (options.batch, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    images = F.avg_pool2d(images.float(), 5, 1, 2).to(torch.uint8)  # neighbouring pixels are alike, as in photographs
    heavy, light = (batches_of(images, changes, device) for changes in ([], LIGHT))
    step = training_step(options.width, options.precision, heavy, device)
    tasks = {
        "views": lambda: heavy(1),
        "crop and flip alone": lambda: light(1),
        "network": step,
        f"torchvision ({ONE_BY_ONE} views)": one_by_one(images),
    }
    times = interleaved(tasks, options.rounds, device)
    name = device_name(device) if device.type != "cpu" else platform.processor() or platform.machine()
    print(f"{date.today()}, {name}, {torch.get_num_threads()} thread(s), {options.precision}")
    print(
        f"2 x {options.batch} views of 32 x 32, ResNet-18 of width {options.width}, minima of {options.rounds} rounds"
    )
    for task, seconds in times.items():
        print(f"  {task:26} {1000 * seconds:10.2f} ms")
    for task in ("views", "crop and flip alone"):
        print(f"  {task}: {100 * times[task] / times['network']:.2f} % of the network's time")
    official = times[f"torchvision ({ONE_BY_ONE} views)"] / ONE_BY_ONE
    print(f"  per view torchvision takes {official * 2 * options.batch / times['views']:.1f} times as long")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--batch", type=whole(), default=512, help="images, of which two views are made (512)")
    parser.add_argument("--width", type=whole(), default=64, help="channels of the network's first stage (64)")
    parser.add_argument("--rounds", type=whole(), default=5, help="turns that each task takes (5)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (auto)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of the network (fp32)")
    return parser.parse_args(arguments)


def batches_of(images: torch.Tensor, changes: list[str], device: torch.device) -> DeviceBatches:
    """Batches of all `images` through conf/transform/cider_views.yaml with some values changed."""
    transform = compose_settings(["transform=cider_views", *changes]).transform.build()
    assert isinstance(transform, ViewTransform)
    order = EpochShuffle(len(images), len(images), 0, "labelled", device)
    stream = Stream(images, torch.arange(len(images)) % 10, None, order)
    return DeviceBatches({"labelled": stream}, transform, 0, device, channels_last=True)


def training_step(width: int, precision: str, batches: DeviceBatches, device: torch.device) -> Callable[[], object]:
    """Forward, backward and update on the same ready views every time."""
    torch.manual_seed(0)
    model = ResNet18(10, width).to(device).to_channels_last()
    dtype = torch.bfloat16 if precision == "bf16" else None
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)
    ready = batches(0)["labelled"]

    def step() -> None:
        with model.precision(dtype):
            loss = F.cross_entropy(model(ready.images), ready.targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def one_by_one(images: torch.Tensor) -> Callable[[], object]:
    """The published chain of torchvision's transforms on Pillow images, for the first of `images`, repeated if few."""
    chain = transforms.Compose(
        [
            transforms.RandomResizedCrop(32, scale=(0.2, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.ToTensor(),
            transforms.Normalize((0.491, 0.482, 0.447), (0.247, 0.244, 0.262)),
        ]
    )
    pictures = [vision.to_pil_image(images[i % len(images)]) for i in range(ONE_BY_ONE)]
    return lambda: torch.stack([chain(picture) for picture in pictures])
