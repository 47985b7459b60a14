"""Images that a finished JEM run generates: its replay buffer, fresh chains, chains by class, a chain step by step.

The run is only read. Everything is drawn from one seed, each kind of picture from a stream of its own, so that asking
for one more changes none of the others.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from farout.data import DataPaths, available, open_dataset
from farout.data.streams import stable_seed
from farout.engine.progress import Bar
from farout.errors import ConfigError, FaroutError
from farout.files import save_json, write_bytes
from farout.methods import JEM
from farout.methods.langevin import ReplayBuffer, uniform
from farout.report.figures.mistakes import class_name
from farout.report.figures.samples import mosaic_png, pixels, sheet_figure
from farout.report.figures.style import png_bytes
from farout.runs.environment import stamp
from farout.runs.run import Run

SHOWN = 100  # images of the plain mosaic
PER_CLASS = 10  # columns of the sheets by class
CHAINS = 6  # rows of the sheet of steps
STEPS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)  # at which a chain is shown, as far as it goes


@dataclass(frozen=True)
class Sampling:
    """Where samples come from.

    Attributes:
        source: "buffer", the run's own; "noise", a fresh one of `count` uniform images.
        rounds: how often `batch_size` rows are drawn, refined and put back; the paper's code takes 1000 or more.
        steps: Langevin steps of each round; the paper's code takes 40.
        reinit: probability that a chain starts anew from noise; the paper has 0.05.
        chain_steps: steps of the chains that are shown by class and step by step.
    """

    source: Literal["buffer", "noise"] = "buffer"
    rounds: int = 0
    steps: int = 40
    reinit: float = 0.05
    count: int = 100
    batch_size: int = 64
    chain_steps: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"rounds": 0, "steps": 1, "count": 2, "batch_size": 1, "chain_steps": 1}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)} must be at least {lowest}")
        if not 0 <= self.reinit <= 1:
            raise ConfigError(f"--reinit {self.reinit:g} is a probability: give one in [0, 1], the paper has 0.05")
        if self.source == "noise" and self.rounds == 0:
            raise ConfigError("--rounds 0 from noise leaves noise: give at least 1, the paper's code takes 1000")


@dataclass
class Samples:
    """Generated images and what the network takes them for.

    Attributes:
        images: uint8 (N, 3, H, W); predictions: (N,); confidence: (N,), the largest p(y|x) before rounding to pixels.
        facts: how they came about, for the record.
        more: further arrays of images by name.
    """

    images: Tensor
    predictions: Tensor
    confidence: Tensor
    facts: dict[str, Any]
    more: dict[str, NDArray[Any]] = field(default_factory=dict)

    def by_class(self, label: int) -> Tensor:
        """Rows that are taken for this class, the surest first."""
        rows = (self.predictions == label).nonzero().flatten()
        return rows[self.confidence[rows].argsort(descending=True, stable=True)]


class Sampler:
    """The network, sampler and buffer of a finished JEM run, in memory.

    Raises FaroutError for a run that is unfinished, no JEM, or without its buffer.
    """

    def __init__(self, run: Run, sampling: Sampling, device: torch.device) -> None:
        self.run, self.sampling, self.device = run, sampling, device
        self.method = jem_of(run).to(device)
        self.model = run.model(device).requires_grad_(False)
        self.transform = run.transform()
        self.by_label = self.method.class_cond_p_x_sample or self.method.weights["p_x_y"] > 0

    def draw(self) -> Samples:
        """The buffer, after as many rounds as were asked for; of a fresh one only rows that a chain has reached."""
        with self._stream("rounds"):
            buffer, reached = self._rounds()
        images = buffer.images[reached]
        broken = int((~images.isfinite()).flatten(1).any(dim=1).sum())
        if broken:
            raise FaroutError(f"{broken} of {len(images)} chains ended in NaN or infinity: take fewer --steps")
        confidence, predictions = self._probabilities(images).max(dim=1)
        asked = asdict(self.sampling)
        if self.sampling.rounds == 0:
            asked = {key: asked[key] for key in ("source", "rounds", "seed")}
        counts = {"n": len(images), "never_drawn": int((~reached).sum()), "by_label": self.by_label}
        facts = {**asked, **counts, **stamp(self.device)}
        return Samples(pixels(images, self.transform), predictions, confidence, facts)

    def _rounds(self) -> tuple[ReplayBuffer, Tensor]:
        """The buffer, and which of its rows are samples (N,)."""
        asked, saved = self.sampling, self.method.replay_buffer.images
        fresh = asked.source == "noise"
        if fresh and self.by_label and asked.count % self.run.num_classes:
            raise ConfigError(f"--count {asked.count} must be a multiple of the {self.run.num_classes} classes")
        buffer = ReplayBuffer(asked.count if fresh else len(saved), asked.reinit)
        if fresh:
            buffer.fill(saved)
        else:
            buffer.images = saved.clone()
        reached = torch.full((buffer.size,), not fresh, device=self.device)
        with Bar(f"{asked.rounds} rounds of {asked.steps} steps", asked.rounds) as bar:
            for _ in range(asked.rounds):
                labels = self._labels()
                rows, start = buffer.draw(asked.batch_size, labels, 1 if labels is None else self.run.num_classes)
                buffer.write(rows, self.method.refine(self.model, start, asked.steps, labels))
                reached[rows] = True
                bar.advance()
        return buffer, reached

    def _labels(self) -> Tensor | None:
        """Classes of the next chains (B,), where the run was trained on chains by class."""
        if not self.by_label:
            return None
        return torch.randint(0, self.run.num_classes, (self.sampling.batch_size,), device=self.device)

    def by_class(self) -> Tensor:
        """uint8 (C * PER_CLASS, 3, H, W): chains from noise that ascend the logit of one class, class by class."""
        labels = torch.arange(self.run.num_classes, device=self.device).repeat_interleave(PER_CLASS)
        steps, parts = self.sampling.chain_steps, []
        with self._stream("by_class"), Bar(f"chains by class, {steps} steps", len(labels)) as bar:
            for some in labels.split(self.sampling.batch_size):
                parts.append(self.method.refine(self.model, self._noise(len(some)), steps, some))
                bar.advance(len(some))
        return pixels(torch.cat(parts), self.transform)

    def step_by_step(self) -> tuple[Tensor, list[int]]:
        """uint8 (CHAINS * S, 3, H, W), chain by chain, of chains on log p(x) from noise; and the S steps shown."""
        last = self.sampling.chain_steps
        shown = [*(step for step in STEPS if step < last), last]
        with self._stream("steps"), Bar(f"a chain of {last} steps", last) as bar:
            x = self._noise(CHAINS)
            states = [x]
            for before, now in pairwise(shown):
                x = self.method.refine(self.model, x, now - before)
                states.append(x)
                bar.at(now)
        return pixels(torch.stack(states, dim=1).flatten(0, 1), self.transform), shown

    def _noise(self, count: int) -> Tensor:
        images = self.method.replay_buffer.images
        return uniform((count, *images.shape[1:]), images)

    @torch.inference_mode()
    def _probabilities(self, images: Tensor) -> Tensor:
        """(N, C) on the CPU, of images in the network's units."""
        return torch.cat([self.model(some).softmax(dim=1).cpu() for some in images.split(self.sampling.batch_size)])

    @contextmanager
    def _stream(self, name: str) -> Iterator[None]:
        """torch's own generator at a seed of this name; afterwards as it was."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(stable_seed(self.sampling.seed, "samples", name))
            yield


def jem_of(run: Run) -> JEM:
    """The method of a JEM run with its replay buffer; raises FaroutError where the run is none."""
    if not run.finished:
        raise FaroutError(f"{run.folder} holds no finished run: repeat its training command to finish it")
    knobs = {key: value for key, value in run.identity["method"].items() if key != "name"}
    try:
        method = JEM(**knobs)
    except TypeError:
        name = run.identity["method"]["name"]
        raise FaroutError(f"{run.name} was trained with method={name}, which makes no images: give a JEM run") from None
    if not run.method_state.is_file():
        raise FaroutError(f"{run.folder} lacks {run.method_state.name}, its replay buffer: train the run again")
    run.load_method(method)
    return method


def class_names(run: Run, paths: DataPaths) -> list[str]:
    """By label; numbers where the run's data are not here."""
    name, count = run.identity["id_data"]["name"], run.num_classes
    known: Sequence[str] = open_dataset(name, "test", paths).classes if available(name, "test", paths) else ()
    return [class_name(label, known if len(known) == count else ()) for label in range(count)]


def draw_samples(sampler: Sampler, folder: Path, names: Sequence[str], by_class: bool, chain: bool) -> Samples:
    """Samples, and their pictures as PNG files in the folder.

    samples.png; with `by_class` predicted_class.png, where samples are grouped by what the network takes them for, and
    class_chains.png, whose chains sought one class each; with `chain` chain.png, from noise to image.
    """
    samples = sampler.draw()
    heading, steps = sampler.run.name, sampler.sampling.chain_steps
    shown = torch.linspace(0, len(samples.images) - 1, min(SHOWN, len(samples.images)), dtype=torch.float64)
    write_bytes(folder / "samples.png", mosaic_png(samples.images[shown.round().long()]))
    if by_class:
        figure = sheet_figure(*_surest(samples, names), heading=heading)
        write_bytes(folder / "predicted_class.png", png_bytes(figure))
        images = sampler.by_class()
        samples.more["by_class"] = images.numpy()
        figure = sheet_figure(images, f"Chains that seek a class, {steps} steps", names, heading=heading)
        write_bytes(folder / "class_chains.png", png_bytes(figure))
    if chain:
        images, at = sampler.step_by_step()
        samples.more |= {"chain": images.numpy(), "chain_steps": np.array(at)}
        title, columns = "From noise, by Langevin steps", [str(step) for step in at]
        figure = sheet_figure(images, title, columns=columns, heading=heading)
        write_bytes(folder / "chain.png", png_bytes(figure))
    return samples


def _surest(samples: Samples, names: Sequence[str]) -> tuple[Tensor, str, list[str]]:
    """Images, title and row names of the sheet by predicted class; cells without an image are white."""
    sheet = torch.full((len(names), PER_CLASS, *samples.images.shape[1:]), 255, dtype=torch.uint8)
    rows = []
    for label, name in enumerate(names):
        own = samples.by_class(label)
        sheet[label, : len(own[:PER_CLASS])] = samples.images[own[:PER_CLASS]]
        rows.append(f"{name} ({len(own):,})")
    return sheet.flatten(0, 1), "By predicted class, the surest first", rows


def save_samples(folder: Path, samples: Samples, quality: Mapping[str, Any]) -> None:
    """samples.npz (images uint8, predictions, confidence, ...) and samples.json, each whole or not at all."""
    arrays: Any = {name: getattr(samples, name).numpy() for name in ("images", "predictions", "confidence")}
    data = io.BytesIO()
    np.savez_compressed(data, **(arrays | samples.more))
    write_bytes(folder / "samples.npz", data.getvalue())
    save_json(folder / "samples.json", {"sampling": samples.facts, **quality})
