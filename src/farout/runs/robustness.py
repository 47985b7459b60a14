"""How much of a finished run's accuracy attacks leave: curves over epsilon, and distal adversarials."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from farout.attacks import L2, PGD, Classifier, Distal, LInf, Norm, RefinedClassifier, distal_adversarials
from farout.data import DataPaths, ImageSet, open_dataset
from farout.engine.progress import Bar, say
from farout.errors import ConfigError, FaroutError, OutOfBudget
from farout.files import follows, load_json, save_arrays, save_json, write_bytes, write_text
from farout.report.figures.mistakes import class_name
from farout.report.figures.robustness import DistalRow, distal_figure
from farout.report.figures.style import png_bytes, svg_text
from farout.report.page.robustness import attack_figure
from farout.runs.environment import stamp
from farout.runs.evaluation_files import renew_report
from farout.runs.inputs import capped
from farout.runs.run import Run

NORMS: dict[str, Norm] = {norm.name: norm for norm in (LInf(), L2())}
UNITS = {"linf": 1 / 255, "l2": 1.0}  # what an epsilon counts, over pixels in [0, 1]
EPSILONS = {"linf": (1.0, 2.0, 4.0, 8.0, 12.0, 16.0), "l2": (0.25, 0.5, 1.0, 1.5, 2.0)}
REFINE = (0, 1, 10)  # the paper's JEM-k
SHOWN = 10  # classes that distal adversarials are made for
CHAIN = ("sgld_lr", "sgld_std", "clamp_gradient", "clamp_images")


@dataclass(frozen=True)
class AttackPlan:
    """What to attack with. Defaults follow the official script where it has the same knob (images, steps, copies).

    Args:
        epsilons: norm -> radii in its unit (L-infinity: 255ths), from small to large.
        refine: the k of JEM-k; None: 0, 1 and 10, or the plain network where the run has no chain.
        images: the first so many test images.
        steps, restarts, batch_size: of the attack.
        copies, input_noise: of JEM-k's noisy copies; None: the noise that the run was trained with.
        distal_steps: of the ascent from noise; 0: none. distal_step: its L2 length.
    """

    epsilons: Mapping[str, Sequence[float]] = field(default_factory=lambda: dict(EPSILONS))
    refine: Sequence[int] | None = None
    images: int = 300
    steps: int = 40
    restarts: int = 2
    batch_size: int = 50
    copies: int = 5
    input_noise: float | None = None
    distal_steps: int = 100
    distal_step: float = 0.25
    seed: int = 1

    def __post_init__(self) -> None:
        for name, epsilons in self.epsilons.items():
            if not epsilons or not all(epsilon > 0 for epsilon in epsilons):
                raise ConfigError(f"the {name} epsilons must be above 0 (accuracy without attack is measured anyway)")
        if min(self.images, self.batch_size, self.copies, self.steps, self.restarts) < 1 or not self.distal_step > 0:
            raise ConfigError("images, batch size, copies, steps, restarts must be at least 1, a distal step above 0")
        if min([*(self.refine or ()), self.distal_steps, self.input_noise or 0]) < 0:
            raise ConfigError(
                "steps to refine, distal steps and input noise must not be negative: the paper has 0, 1, 10"
            )


@dataclass(frozen=True)
class AttackedClassifier:
    """A way to classify with a run's network: as it is (refinement None), or as JEM-k does."""

    label: str
    run: Run
    refinement: dict[str, Any] | None = None

    def classifier(self, device: torch.device, generator: torch.Generator) -> Classifier:
        """Pixels (B, 3, H, W) in [0, 1] -> logits; the transform's own test noise is left out, refinement has its own.

        Chains run in fp32 whatever they trained in.
        """
        model, transform = self.run.model(device).requires_grad_(False), self.run.transform()
        mean, std = transform.mean.to(device), transform.std.to(device)
        network: Classifier = model
        if self.refinement is not None:
            network = RefinedClassifier(model, generator=generator, **self.refinement)
        return lambda pixels: network((pixels - mean) / std)

    def facts(self) -> dict[str, Any]:
        """What tells it from others."""
        weights = hashlib.sha256(self.run.weights.read_bytes()).hexdigest()[:12]
        return {"label": self.label, "run": self.run.name, "weights": weights, "refinement": self.refinement}


@dataclass
class AttackResults:
    """What a command measured or took from robustness.json: entries, and the images of the ascents."""

    curves: list[dict[str, Any]] = field(default_factory=list)
    distal: list[dict[str, Any]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def assess(
    run: Run,
    baseline: Run | None,
    plan: AttackPlan,
    paths: DataPaths,
    device: torch.device,
    deadline: float | None = None,
) -> AttackResults:
    """Attack `run`, and `baseline` as the plain network that it is, on the same images from the same seed.

    robustness.json grows by a curve as soon as it is there, and a curve that it holds is not measured again; figures go
    to plots/, the distal adversarials to distal.npz, and report.html, where there is one, shows both.

    Raises:
        ConfigError: a run has no chain to refine with, or the two have other classes.
        OutOfBudget: the deadline (`time.monotonic()`) is past, and a curve measured since the call; more are to come.
    """
    job = AttackJob.of(run, baseline, plan, paths, device)
    with run.locked():
        return job.carry_out(deadline)


def already_attacked(run: Run, baseline: Run | None, plan: AttackPlan, paths: DataPaths) -> bool:
    """Whether robustness.json holds all that `assess` would measure, and figure and report were made after it."""
    path, record = _record_of(run)
    shown = [run.folder / "plots/robustness.png", *run.folder.glob("report.html")]
    if not record["curves"] or not all(follows(each, path) for each in shown):
        return False
    return AttackJob.of(run, baseline, plan, paths, torch.device("cpu")).done(record)


@dataclass(frozen=True)
class AttackJob:
    """A run to attack: the classifiers, the images and which these are in words, with what, on which device."""

    run: Run
    subjects: Sequence[AttackedClassifier]
    images: ImageSet
    rule: str
    plan: AttackPlan
    device: torch.device

    @classmethod
    def of(
        cls, run: Run, baseline: Run | None, plan: AttackPlan, paths: DataPaths, device: torch.device
    ) -> "AttackJob":
        """The job of `assess`, its images opened; raises ConfigError as that."""
        subjects = _subjects(run, baseline, plan)
        images, rule = attacked_images(run, plan.images, paths)
        return cls(run, subjects, images, rule, plan, device)

    @property
    def curves(self) -> list[tuple[AttackedClassifier, str]]:
        """Who is attacked under which norm, in order."""
        return [(subject, norm) for subject in self.subjects for norm in self.plan.epsilons]

    def done(self, record: Mapping[str, Any]) -> bool:
        """Whether robustness.json holds all of it."""
        curves = all(_known(record["curves"], self._facts(subject, norm)) for subject, norm in self.curves)
        plan = self.plan
        ascents = {"run": self.run.name, "steps": plan.distal_steps, "step": plan.distal_step, "seed": plan.seed}
        return curves and (not plan.distal_steps or _known(record["distal"], ascents) is not None)

    def carry_out(self, deadline: float | None) -> AttackResults:
        """Measure what robustness.json does not hold, and draw all of it; the caller holds the run's lock."""
        run, (path, record) = self.run, _record_of(self.run)
        found = AttackResults(self._measured(path, record, deadline))
        drawings: dict[str, Figure] = {}
        if self.plan.distal_steps:
            found.distal, drawings = self._distal()
            record["distal"] = found.distal
            save_json(path, record)
        drawings["robustness"] = attack_figure(found.curves, run.name)
        found.files = [path, *_draw(run.folder / "plots", drawings), *renew_report(run.folder)]
        return found

    def _measured(self, path: Path, record: dict[str, Any], deadline: float | None) -> list[dict[str, Any]]:
        """Every curve: from the record where it is there; the record grows by the others, one by one."""
        found, measured = [], 0
        for subject, norm in self.curves:
            facts = self._facts(subject, norm)
            if (entry := _known(record["curves"], facts)) is None:
                if measured and deadline is not None and time.monotonic() >= deadline:
                    where = f"after {len(record['curves'])} curves of attacks on {self.run.name}"
                    raise OutOfBudget(f"the time budget is spent {where}: repeat to go on")
                entry = {**facts, **self._curve(subject, norm)}
                record["curves"].append(entry)
                save_json(path, record)
                measured += 1
            found.append(entry)
        return found

    def _facts(self, subject: AttackedClassifier, norm: str) -> dict[str, Any]:
        """All that a curve follows from."""
        images, plan = self.images, self.plan
        return {
            **subject.facts(),
            "norm": norm,
            "unit": "1/255" if norm == "linf" else "L2 norm over pixels in [0, 1]",
            "epsilons": [float(epsilon) for epsilon in plan.epsilons[norm]],
            "images": {"n": len(images), "which": self.rule, "sha256": images.info.get("sha256")},
            "attack": {
                "name": "PGD",
                "steps": plan.steps,
                "restarts": plan.restarts,
                "batch_size": plan.batch_size,
                "seed": plan.seed,
            },
        }

    def _curve(self, subject: AttackedClassifier, norm: str) -> dict[str, Any]:
        """Accuracy over all images, without an attack and at each epsilon."""
        images, plan, device = self.images, self.plan, self.device
        generator = torch.Generator(device).manual_seed(plan.seed)
        classify, pgd = subject.classifier(device, generator), PGD(NORMS[norm], plan.steps, plan.restarts)
        radii = [epsilon * UNITS[norm] for epsilon in plan.epsilons[norm]]
        assert images.labels is not None
        began, right = time.perf_counter(), torch.zeros(1 + len(radii))
        with Bar(f"  {subject.label}, {norm}", len(images) * len(right)) as bar:
            for start in range(0, len(images), plan.batch_size):
                rows = slice(start, start + plan.batch_size)
                batch, labels = pixels(images.images[rows], device), images.labels[rows].to(device)
                for i, held in enumerate(pgd.withstood(classify, batch, labels, radii, generator)):
                    right[i] += int(held.sum())
                    bar.advance(len(batch))
        clean, *accuracy = (right.double() / len(images)).tolist()
        seconds = time.perf_counter() - began
        say(f"  {subject.label}, {norm}: {100 * clean:.1f} % without attack, {_percent(accuracy)} ({seconds:.0f} s)")
        return {"clean_accuracy": clean, "accuracy": accuracy, "seconds": round(seconds, 1), "measured": stamp(device)}

    def _distal(self) -> tuple[list[dict[str, Any]], dict[str, Figure]]:
        """One ascent a class from the same noise through each run's plain network: entries, and the figure by its stem.

        Of JEM-k one is enough: refinement plays no part.
        """
        plan, run, images = self.plan, self.run, self.images
        classes = torch.arange(min(SHOWN, run.num_classes))
        names = [class_name(int(index), images.classes) for index in classes]
        draw = torch.Generator().manual_seed(plan.seed)
        start = torch.rand((len(classes), *images.images.shape[1:]), generator=draw)
        asked = {"steps": plan.distal_steps, "step": plan.distal_step, "seed": plan.seed, "classes": names}
        entries, rows, kept = [], [], {"start": start.numpy()}
        for subject in {each.run.name: each for each in self.subjects}.values():
            plain = AttackedClassifier(subject.label if subject.run is not run else _method(run), subject.run)
            ends = self._ascend(plain, start, classes)
            reached = {"confidence": ends.confidence[-1].tolist(), "mean_confidence": ends.confidence.mean(1).tolist()}
            entries.append({**plain.facts(), **asked, **reached, "measured": stamp(self.device)})
            rows.append(DistalRow(plain.label, ends.images.numpy(), ends.confidence.numpy()))
            kept |= {f"{plain.label}: {key}": getattr(ends, key).numpy() for key in ("images", "confidence")}
        save_arrays(run.folder / "distal.npz", kept, compress=True)
        return entries, {"distal": distal_figure(start.numpy(), rows, names, plan.distal_step, run.name)}

    def _ascend(self, subject: AttackedClassifier, start: Tensor, classes: Tensor) -> Distal:
        """On the device, and back to the CPU."""
        device, steps, length = self.device, self.plan.distal_steps, self.plan.distal_step
        classify = subject.classifier(device, torch.Generator(device))
        ends = distal_adversarials(classify, start.to(device), classes.to(device), steps, length)
        reached = float(ends.confidence[-1].mean())
        say(f"  {subject.label}, from noise: mean p(y|x) {reached:.3f} after {steps} steps of {length:g}")
        return Distal(ends.images.cpu(), ends.confidence.cpu())


def _record_of(run: Run) -> tuple[Path, dict[str, Any]]:
    """robustness.json, and what it holds."""
    path = run.folder / "robustness.json"
    return path, load_json(path) if path.exists() else {"run": run.name, "curves": [], "distal": []}


def _subjects(run: Run, baseline: Run | None, plan: AttackPlan) -> list[AttackedClassifier]:
    """The baseline's plain network, then the run's JEM-k; of a run without a chain the plain network."""
    for each in filter(None, (run, baseline)):
        if not each.classifier_trained:
            raise ConfigError(f"the classifier of {each.name} was never trained: there is no accuracy to attack")
    subjects = []
    if baseline is not None:
        if baseline.identity["id_data"] != run.identity["id_data"]:
            raise ConfigError(f"{baseline.name} was trained on other data than {run.name}: give a baseline of the same")
        subjects.append(AttackedClassifier(f"baseline ({_method(baseline)})", baseline))
    if set(CHAIN) <= set(run.identity["method"]):
        steps = dict.fromkeys(REFINE if plan.refine is None else plan.refine)
        return [*subjects, *(AttackedClassifier(f"{_method(run)}-{k}", run, _refinement(run, k, plan)) for k in steps)]
    if any(plan.refine or ()):
        raise ConfigError(f"{run.name} has no chain to refine images with: give it --refine 0, or name a JEM run")
    return [*subjects, AttackedClassifier(_method(run), run)]


def _method(run: Run) -> str:
    return str(run.identity["method"]["name"]).upper()


def _refinement(run: Run, steps: int, plan: AttackPlan) -> dict[str, Any]:
    """`RefinedClassifier`'s arguments: the run's own chain, and the noise that its images had in training."""
    chain = run.identity["method"]
    trained_with = float(run.identity["transform"].get("noise_std", 0.0))
    return {
        "steps": steps,
        "step_size": chain["sgld_lr"],
        "noise_std": chain["sgld_std"],
        "clamp_gradient": chain["clamp_gradient"],
        "clamp_images": chain["clamp_images"],
        "copies": plan.copies,
        "input_noise": trained_with if plan.input_noise is None else plan.input_noise,
    }


def attacked_images(run: Run, count: int, paths: DataPaths) -> tuple[ImageSet, str]:
    """The first `count` test images, as the official script takes them, and which these are in words.

    A set that lies in class order (from a pack) gives evenly spread ones: its first 300 would be of one class.
    """
    whole = open_dataset(run.identity["id_data"]["name"], "test", paths)
    if whole.labels is None:
        raise FaroutError(f"{whole.name} (test) has no labels: nothing tells what an attack has to turn wrong")
    title = whole.info.get("title", whole.name)
    if len(whole) <= count:
        return whole, f"all {len(whole)} test images of {title}"
    if bool((whole.labels.diff() >= 0).all()):
        return capped(whole, count), f"{count} test images of {title}, evenly spread"
    return whole.subset(range(count)), f"the first {count} test images of {title}"


def _known(entries: Sequence[dict[str, Any]], facts: Mapping[str, Any]) -> dict[str, Any] | None:
    return next((entry for entry in entries if all(entry.get(key) == value for key, value in facts.items())), None)


def pixels(images: Tensor, device: torch.device) -> Tensor:
    """uint8 (B, 3, H, W) -> float32 in [0, 1] on the device."""
    return images.to(device).float() / 255


def _percent(shares: Sequence[float]) -> str:
    return " ".join(f"{100 * share:.1f}" for share in shares)


def _draw(folder: Path, figures: Mapping[str, Figure]) -> list[Path]:
    for stem, figure in figures.items():
        write_bytes(folder / f"{stem}.png", png_bytes(figure))
        write_text(folder / f"{stem}.svg", svg_text(figure))
    return [folder / f"{stem}.png" for stem in figures]
