"""What stages of a table cost on a device, from a moment's timing of untrained networks of the same size."""

import time
from dataclasses import replace

import torch
from torch import Tensor, nn

from farout.config.settings import Settings
from farout.data import open_dataset
from farout.engine.evaluate import collect
from farout.runs.inputs import ImageSets, capped
from farout.runs.robustness import REFINE, AttackPlan
from farout.runs.run import build_backbone
from farout.runs.samples import CHAINS, PER_CLASS
from farout.runs.training import TrainingJob

METRICS_AND_PLOTS = 15.0  # seconds of an evaluation besides the forward passes; a guess on the safe side
FEATURE_PASSES = 3  # over the test images, or fewer, for Frechet distances: samples, noise, and the images themselves


def training_cost(settings: Settings, device: torch.device) -> tuple[int, float]:
    """(updates in all, seconds of one), timed in the precision that the run will have, uncompiled."""
    job = TrainingJob.of(settings, device)
    return job.total_steps, job.step_seconds()


def evaluation_seconds(settings: Settings, device: torch.device) -> float:
    """The time of an evaluation, from one timed batch of the ID test set through an untrained network."""
    paths, limit = settings.paths.data_paths(), settings.max_eval_images
    id_test = open_dataset(settings.id_data.name, "test", paths)
    sets = ImageSets(settings)
    names = [name for name in settings.ood_data.sets if sets.absence(name) is None]
    counts = [len(capped(open_dataset(name, "test", paths), limit)) for name in names]
    images = sum(counts) + 3 * len(capped(id_test, limit))  # ID itself and its two controls
    images += settings.geometry_images or 0
    return METRICS_AND_PLOTS + images * _forward_seconds(settings, device)


def sampling_seconds(settings: Settings, device: torch.device, chain_steps: int) -> float:
    """The time of chains by class and step by step, and of features; the Inception network's is not in it."""
    test = capped(open_dataset(settings.id_data.name, "test", settings.paths.data_paths()), settings.max_eval_images)
    gradients = chain_steps * (PER_CLASS * settings.id_data.num_classes + CHAINS)
    passes = FEATURE_PASSES * len(test) * _forward_seconds(settings, device)
    return gradients * _gradient_seconds(settings, device) + passes


def attack_seconds(settings: Settings, device: torch.device, plan: AttackPlan) -> float:
    """The most that the longest curve of an attack takes, where every image withstands it: it pauses between curves."""
    refine = REFINE if plan.refine is None else plan.refine
    looks = max(plan.copies * (1 + k) for k in refine) if refine else 1
    radii = max(len(epsilons) for epsilons in plan.epsilons.values())
    return plan.images * radii * plan.restarts * plan.steps * looks * _gradient_seconds(settings, device)


def _forward_seconds(settings: Settings, device: torch.device) -> float:
    """An image's forward pass."""
    id_test = open_dataset(settings.id_data.name, "test", settings.paths.data_paths())
    size = settings.trainer.eval_batch(device.type == "cuda")
    sample = replace(capped(id_test, size), name="timing")
    model = build_backbone(settings.backbone, settings.id_data.num_classes).to(device)
    transform = settings.transform.build()
    collect(model, transform, sample, device, size)  # warm-up
    start = time.monotonic()
    collect(model, transform, sample, device, size)
    return (time.monotonic() - start) / len(sample)


def _gradient_seconds(settings: Settings, device: torch.device) -> float:
    """A forward and a backward pass to an image."""
    id_test = open_dataset(settings.id_data.name, "test", settings.paths.data_paths())
    images = settings.transform.build()(id_test.images[:50]).to(device)
    model = build_backbone(settings.backbone, settings.id_data.num_classes).to(device).eval().requires_grad_(False)
    _gradient(model, images)  # warm-up
    start = time.monotonic()
    _gradient(model, images)
    return (time.monotonic() - start) / len(images)


def _gradient(model: nn.Module, images: Tensor) -> float:
    """Read back, so that the device has done its work."""
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf).logsumexp(dim=1).sum(), leaf)
    return float(gradient.sum())
