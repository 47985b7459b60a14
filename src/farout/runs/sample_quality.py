"""How good generated images are: IS and FID as JEM's successors measure them, and a distance on our own features."""

import hashlib
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from farout.data import DataPaths, ImageSet, open_dataset
from farout.data.streams import stable_seed
from farout.engine.evaluate import collect
from farout.engine.progress import Bar
from farout.errors import FaroutError
from farout.metrics.generation import Inception, frechet_distance, inception_score, load_inception
from farout.runs.inputs import capped
from farout.runs.run import Run
from farout.runs.samples import Samples

IS_SHARE, FID_SHARE = 0.1, 0.9  # of each predicted class, the surest first (JEM++, SADA-JEM)
PER_SPLIT = 5000  # images of one split of the Inception score
BATCH_SIZE = 100
PAIRS = ("samples", "uniform_noise", "halves_of_test", "as_many_of_test")


def surest(samples: Samples, share: float) -> Tensor:
    """Rows of this share of each predicted class, rounded up, the surest first."""
    groups = [samples.by_class(int(label)) for label in samples.predictions.unique()]
    return torch.cat([rows[: math.ceil(share * len(rows) - 1e-9)] for rows in groups])


def inception_facts(
    samples: Samples, run: Run, paths: DataPaths, weights: Path, device: torch.device, limit: int | None, seed: int
) -> dict[str, Any]:
    """{"inception_score": ..., "fid": ...}, each with its subset and how many images; or {"reason": why neither}.

    The two come from different subsets, as published figures of JEM's successors do; what JEM itself used is unknown.
    The reference is training and test images together, `limit` of each where given.
    """
    try:
        network = load_inception(weights, device)
        references = [capped(image_set, limit) for image_set in _training_and_test(run, paths)]
    except FaroutError as error:
        return {"reason": str(error)}
    features, probabilities = _observed(network, samples.images, "samples")
    chosen = surest(samples, IS_SHARE)
    order = torch.randperm(len(chosen), generator=_generator(seed, "splits"))
    splits = max(1, len(chosen) // PER_SPLIT)
    mean, deviation = inception_score(probabilities[chosen[order]], splits)
    best = surest(samples, FID_SHARE)
    real = torch.cat([_observed(network, reference.images, reference.name)[0] for reference in references])
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    return {
        "inception_score": {**_subset(IS_SHARE, chosen), "mean": mean, "std": deviation, "splits": splits},
        "fid": {
            **_subset(FID_SHARE, best),
            "value": frechet_distance(features[best], real),
            "reference": " and ".join(f"{len(one):,} {one.name} {one.split}" for one in references),
        },
        "inception_weights": {"file": weights.name, "sha256": digest},
    }


def _subset(share: float, rows: Tensor) -> dict[str, Any]:
    return {"subset": f"surest {100 * share:g} % of each predicted class", "n": len(rows)}


def _training_and_test(run: Run, paths: DataPaths) -> list[ImageSet]:
    facts = run.identity["id_data"]
    return [open_dataset(facts["name"], split, paths) for split in (facts["train_split"], "test")]


def _observed(network: Inception, images: Any, name: str) -> tuple[Tensor, Tensor]:
    parts = []
    with Bar(f"  Inception: {name}", len(images)) as bar:
        for start in range(0, len(images), BATCH_SIZE):
            parts.append(network(images[start : start + BATCH_SIZE]))
            bar.advance(len(parts[-1][0]))
    return torch.cat([features for features, _ in parts]), torch.cat([probabilities for _, probabilities in parts])


def frechet_facts(
    samples: Samples, run: Run, classifier: Run, paths: DataPaths, device: torch.device, limit: int | None, seed: int
) -> dict[str, Any]:
    """The Frechet distance of the samples to the ID test images, on the penultimate features of a classifier's run.

    Not FID: another network, another scale. As a scale serve, to the same test images, uniform noise in the number of
    the samples; and among the test images, two halves, and as many as there are samples against all others.
    """
    model, transform = classifier.model(device), classifier.transform()

    def observed(images: Any, name: str) -> Tensor:
        return collect(model, transform, ImageSet(name, "", images, None, (), raw=False), device, BATCH_SIZE).features

    test = capped(open_dataset(run.identity["id_data"]["name"], "test", paths), limit)
    count, generator = len(samples.images), _generator(seed, "frechet")
    noise = torch.randint(0, 256, samples.images.shape, generator=generator, dtype=torch.uint8)
    real, order = observed(test.images, test.name), torch.randperm(len(test), generator=generator)
    half, few = len(test) // 2, min(count, len(test) // 2)
    pairs = (
        (observed(samples.images, "samples"), real),
        (observed(noise, "uniform noise"), real),
        (real[order[:half]], real[order[half:]]),
        (real[order[:few]], real[order[few:]]),
    )
    distances = {
        name: {"value": frechet_distance(a, b), "n": [len(a), len(b)]}
        for name, (a, b) in zip(PAIRS, pairs, strict=True)
    }
    return {"features": classifier.name, "reference": f"{test.name} test", "dimensions": real.shape[1], **distances}


def _generator(seed: int, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(stable_seed(seed, "sample_quality", name))
