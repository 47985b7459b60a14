"""Evaluation: every score of every set from one forward pass a set, against one forward pass a score and set."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from farout.backbones import Backbone
from farout.commands.benchmark.images import images_of
from farout.commands.benchmark.lines import AnyLine, Line, Place, Side, require_close
from farout.commands.benchmark.scores import SCORES
from farout.commands.benchmark.timing import Turn, in_turns
from farout.config.coerce import Component
from farout.config.compose import compose_settings
from farout.config.settings import Settings
from farout.data import ImageSet
from farout.data.transform import Transform
from farout.engine.evaluate import collect
from farout.metrics.protocol import apply
from farout.runs.run import build_backbone
from farout.runs.scoring import head_of
from farout.scores import Fitting, Outputs

Figures = dict[tuple[str, str], float]  # (score, set) -> AUROC


@dataclass(frozen=True)
class Problem:
    """A network, its training images, the ID test set ("id") and the OOD sets."""

    settings: Settings
    model: Backbone
    transform: Transform
    train: ImageSet
    sets: Mapping[str, ImageSet]
    device: torch.device
    batch_size: int | None = None  # None: an evaluation's own

    def outputs(self, images: ImageSet) -> Outputs:
        """One forward pass over a set."""
        size = self.batch_size or self.settings.trainer.eval_batch(self.device.type == "cuda")
        return collect(self.model, self.transform, images, self.device, size)

    def figures(self, component: Component, train: Outputs, outputs: Mapping[str, Outputs]) -> Figures:
        """A score fitted, read off the outputs, and measured."""
        score = component.build()
        score.fit(Fitting(head_of(self.model), train))
        values = {name: score(each).double().numpy() for name, each in outputs.items()}
        protocol = self.settings.protocol
        others = [name for name in values if name != "id"]
        return {(score.name, name): apply(protocol, values["id"], values[name], name)["auroc"] for name in others}

    def shared(self) -> Figures:
        """Ours: one forward pass a set, for all scores."""
        return self.scored(self.outputs(self.train), self.settings.scores)

    def scored(self, train: Outputs, scores: Sequence[Component]) -> Figures:
        """One forward pass over every set but the one that is fitted on, and the figures of all these scores."""
        outputs = {name: self.outputs(images) for name, images in self.sets.items()}
        found: Figures = {}
        for component in scores:
            found |= self.figures(component, train, outputs)
        return found

    def one_by_one(self) -> Figures:
        """The baseline: one forward pass for every score and set."""
        found: Figures = {}
        for component in self.settings.scores:
            train = self.train if "train" in component.build().needs else self.sets["id"].subset(range(1))
            found |= self.figures(component, self.outputs(train), {k: self.outputs(v) for k, v in self.sets.items()})
        return found

    def passes(self) -> tuple[Outputs, dict[str, Outputs]]:
        """The forward passes alone."""
        return self.outputs(self.train), {name: self.outputs(images) for name, images in self.sets.items()}


def lines(place: Place) -> Iterator[AnyLine]:
    """Against a pass per score, and against the passes alone."""
    problem = problem_of(place)
    found: dict[str, Figures] = {}
    tasks = {
        "passes": Turn(problem.passes),
        "ours": Turn(lambda: found.update(ours=problem.shared())),
        "one by one": Turn(lambda: found.update(theirs=problem.one_by_one())),
    }
    problem.outputs(problem.sets["id"])  # what only a first pass costs
    rounds = min(place.rounds, 2)
    seconds = in_turns(tasks, rounds, place.device, warm_up=0)
    ours, theirs = found["ours"], found["theirs"]
    require_close("names of scores and sets", [list(ours) == list(theirs)], [True], 0)
    agreement = require_close("AUROC of every score and set", list(ours.values()), list(theirs.values()), 1e-4)
    images = len(problem.train) + sum(map(len, problem.sets.values()))
    scale = (
        f"{problem.settings.backbone.name}, {len(problem.settings.scores)} scores, {len(problem.sets) - 1} OOD sets, "
    )
    scale += f"{images} images in all, {len(problem.train)} of them to fit on; {problem.train.name}"
    mine = Side.of("one pass for all scores, with scores and metrics", seconds["ours"])
    for what, key in (("a pass for every score", "one by one"), ("the forward passes alone", "passes")):
        yield Line("evaluation", "all scores, all sets", scale, mine, Side.of(what, seconds[key]), agreement, rounds)


def problem_of(place: Place) -> Problem:
    """A network with random weights, and as many images as this size is worth."""
    backbone = place.pick(["backbone=resnet20", "backbone.width=4"], ["backbone=resnet20"], ["backbone=wrn_40_2"])
    settings = compose_settings(["method=ce", "id_data=cifar10", *backbone, SCORES])
    torch.manual_seed(0)
    model = build_backbone(settings.backbone, 10).to(place.device).requires_grad_(False)
    ood_sets = place.pick(2, 8, 8)
    each = place.pick(10, 500, 1000)
    train = images_of(place, "cifar10", place.pick(100, 5000, 10_000))
    test = images_of(place, "cifar10", 2 * each, "test")
    others = images_of(place, "cifar100", ood_sets * each, "test")
    sets = {"id": test.as_set("id")}
    for i in range(ood_sets):
        sets[f"ood {i + 1}"] = others.as_set(f"ood {i + 1}", i * each, (i + 1) * each)
    return Problem(settings, model, settings.transform.build(), train.as_set(train.origin), sets, place.device)
