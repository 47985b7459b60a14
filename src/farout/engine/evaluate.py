"""ONE forward pass per data set; every output-based score is read off its outputs."""

import torch
from torch import Tensor

from farout.backbones import Backbone
from farout.data import ImageSet
from farout.data.transform import Transform
from farout.engine.host import HostRows, to_device
from farout.engine.precision import full_fp32
from farout.engine.processes import ALONE, Processes
from farout.engine.progress import Bar
from farout.scores import Outputs


@torch.inference_mode()
def collect(
    model: Backbone,
    transform: Transform,
    image_set: ImageSet,
    device: torch.device,
    batch_size: int = 500,
    processes: Processes = ALONE,
) -> Outputs:
    """Logits (N, C) and penultimate features (N, D) of a data set, fp32, on the CPU, in the set's order.

    Of several `processes`, which are in `serve`, each takes whole batches, so that the outputs are those of one.

    A GPU is waited for once a set, not once a batch. Evaluation never runs in reduced precision: bf16 logits collapse
    energies to a few hundred values. That includes TF32.
    """
    with full_fp32(), model.precision(None):
        return _collect(model, transform, image_set, device, batch_size, processes)


def _collect(
    model: Backbone,
    transform: Transform,
    image_set: ImageSet,
    device: torch.device,
    batch_size: int,
    processes: Processes,
) -> Outputs:
    model.eval()
    logits, features = HostRows(), HostRows()
    at_once = batch_size * processes.size
    with Bar(f"  {image_set.name}", len(image_set)) as bar:
        for start in range(0, len(image_set), at_once):
            images = transform(to_device(image_set.images[start : start + at_once], device), raw=image_set.raw)
            processes.send_images(images, batch_size)
            for some in processes.in_turn(model.features, images, batch_size).split(batch_size):
                logits.add(model.classify(some))
                features.add(some)
            bar.advance(len(images))
    processes.send_images(None, batch_size)
    return Outputs(logits.all(), features.all(), image_set.labels)


@torch.inference_mode()
def serve(model: Backbone, processes: Processes, device: torch.device) -> None:
    """A follower's part in the leader's `collect`."""
    model.eval()
    with full_fp32(), model.precision(None):
        while (sent := processes.receive_images(device)) is not None:
            processes.in_turn(model.features, *sent)


@torch.inference_mode()
def share_correct(
    model: Backbone, transform: Transform, image_set: ImageSet, device: torch.device, batch_size: int
) -> float:
    """Accuracy on a labelled set and nothing else: no bar, no outputs kept; leaves the network in evaluation mode."""
    assert image_set.labels is not None
    model.eval()
    right = torch.zeros((), dtype=torch.int64, device=device)
    with full_fp32(), model.precision(None):
        for start in range(0, len(image_set), batch_size):
            images = transform(to_device(image_set.images[start : start + batch_size], device), raw=image_set.raw)
            labels = to_device(image_set.labels[start : start + batch_size], device)
            right += (model.classify(model.features(images)).argmax(1) == labels).sum()
    return int(right) / len(image_set)


def accuracy(outputs: Outputs) -> float:
    """Share of images whose largest logit is their label's."""
    if outputs.labels is None:
        raise ValueError("accuracy needs labels")
    return correct(outputs).double().mean().item()


def correct(outputs: Outputs) -> Tensor:
    """(N,) bool."""
    assert outputs.labels is not None
    return outputs.logits.argmax(1) == outputs.labels
