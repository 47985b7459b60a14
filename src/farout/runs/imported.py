"""Weights that somebody else trained as a finished run of ours: which network they are, and what its record says."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from yaml import YAMLError

from farout.backbones import Backbone, load_foreign_state
from farout.backbones.foreign import WeightsMatch, left_out, listed, weights_matches
from farout.backbones.projected_resnet import Projected
from farout.backbones.weight_files import read_sets
from farout.backbones.weight_sets import WeightSet
from farout.config.coerce import Component, build_dataclass, component
from farout.config.settings import IdData
from farout.engine.checkpoint import save_weights
from farout.engine.progress import say
from farout.errors import ConfigError, FaroutError
from farout.places import conf_file, conf_names
from farout.runs.environment import stamp
from farout.runs.recovery import set_aside_damage
from farout.runs.run import Run, build_backbone

# The networks that come with a normalisation of their own; the others take that of their ID set.
TRANSFORMS = {"wrn_28_10_jem": "jem", "resnet18_cider": "cider", "resnet34_cider": "cider"}
TRANSFORMS |= {f"resnet{name}": "imagenet_stats" for name in ("18_imagenet", "34_imagenet_plain", "50_imagenet")}
TRANSFORMS["resnet34_imagenet"] = "imagenet_stats"
_BUILT: dict[tuple[str, int], Backbone] = {}  # networks without memory: building all of conf/backbone takes a second
UNTRAINED_HEAD = (
    "note: CIDER and SupCon never train the classifier, so accuracy and scores of logits mean nothing here: "
    "score features, e.g. score=[knn,mahalanobis]"
)


@dataclass(frozen=True)
class Import:
    """What is asked for: the file, what it was trained on, and what else is known of it (None: found out, or usual).

    `id_data`, `backbone` and `transform` are files of those groups of conf/, `entry` chooses one of several sets of
    weights in the file, `name` is what to call the run, `note` says where the file comes from, `outliers` what it was
    trained with as outliers ("none" for nothing, None where that is not said).
    """

    file: Path
    id_data: str
    backbone: str | None = None
    transform: str | None = None
    entry: str | None = None
    name: str | None = None
    note: str = ""
    outliers: str | None = None
    outputs: Path = Path("outputs")


def import_checkpoint(wanted: Import) -> Run:
    """The finished run made of the file; importing the same file again is harmless."""
    name = run_name(wanted.name, wanted.file)
    sets = read_sets(wanted.file, wanted.entry)
    id_data = read_id_data(wanted.id_data)
    chosen = choose_backbone(sets, [wanted.backbone] if wanted.backbone else conf_names("backbone"), id_data)
    transform = _component("transform", wanted.transform or _usual_transform(chosen.spec.name, wanted.id_data))
    model = build_backbone(chosen.spec, id_data.num_classes)
    kinds = load_foreign_state(model, chosen.match.weights.state)
    identity = _identity(wanted, chosen, id_data, transform)
    run = Run(wanted.outputs / "runs" / f"imported-{name}", identity)
    set_aside_damage(run)
    if (run.folder / "run.json").exists() and run.record["identity"] != identity:
        raise FaroutError(f"{run.folder} holds another import: choose another --name")
    run.folder.mkdir(parents=True, exist_ok=True)
    facts = {"steps": 0, "seconds": 0.0, "note": wanted.note, "file": wanted.file.name}
    facts |= {} if wanted.outliers is None else {"outliers": wanted.outliers}
    facts |= {"entry": chosen.match.weights.label, "stored_as": kinds or ["float32"]}
    targets = {"backbone": chosen.spec.target, "transform": transform.target}
    trained = {**stamp(torch.device("cpu")), **facts}
    untrained = {"classifier_trained": False} if isinstance(model, Projected) else {}
    run.write_record(targets=targets, scale="imported", trained=trained, data={}, **untrained)
    save_weights(run.weights, model)
    run.write_record(files={run.weights.name: hashlib.sha256(run.weights.read_bytes()).hexdigest()})
    _tell(model, chosen, transform, kinds)
    return run


def run_name(given: str | None, file: Path) -> str:
    """What to call the run: as given, or after the file, with dashes for what a folder or an override could not hold.

    Raises ConfigError for a given name that is no folder's.
    """
    if given is None:
        return re.sub(r"[^\w.@+-]+", "-", file.stem)[:100] or "weights"
    if not re.fullmatch(r"[\w.@+-]{1,100}", given):
        raise ConfigError(f"--name {given!r} names a folder: use up to 100 letters, digits and _ . @ + -")
    return given


def read_id_data(name: str) -> IdData:
    """The ID set of a file of conf/id_data; raises FaroutError where it says none."""
    content = OmegaConf.to_container(_config("id_data", name))
    if not isinstance(content, dict) or not isinstance(content.get("id_data"), dict):
        raise ConfigError(f"conf/id_data/{name}.yaml has no id_data: give it name and num_classes")
    return build_dataclass(IdData, content["id_data"], "id_data")


def _identity(wanted: Import, chosen: "Choice", id_data: IdData, transform: Component) -> dict[str, Any]:
    with wanted.file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    entry = {"entry": chosen.match.weights.label} if wanted.entry else {}
    return {
        "method": {"name": "imported", "file_sha256": digest, **entry},
        "backbone": chosen.spec.record(),
        "id_data": id_data.record(),
        "outliers": None,
        "outlier_order": None,
        "transform": transform.record(),
        "schedule": {},
        "holdout": 0.0,
        "precision": "fp32",
        "parent": None,
        "seed": 0,
    }


def _tell(model: Backbone, chosen: "Choice", transform: Component, kinds: list[str]) -> None:
    """What was chosen, and what of the file plays no part."""
    weights = chosen.match.weights
    beside = f"; the file also holds {listed(chosen.beside)}: choose with --entry" if chosen.beside else ""
    if weights.label or beside:
        average = ", an average of the weights," if weights.averaged else ""
        say(f"took {weights.label or 'the weights at the top'}{average} of the file{beside}")
    if weights.outside:
        say(f"left out, because they are no part of it: {listed(weights.outside)}")
    if kinds:
        say(f"stored as {', '.join(kinds)}, taken as float32")
    say(f"network {chosen.spec.name}, normalisation {transform.name} (change it with --transform)")
    unused = left_out(model, weights.state)
    if unused:
        say(f"left out, because the official code never uses it: {', '.join(unused)}")
    if isinstance(model, Projected):
        say(UNTRAINED_HEAD)


@dataclass(frozen=True)
class Choice:
    """A network of conf/backbone, what of the file is its weights, and what else of the file could have been."""

    spec: Component
    model: Backbone  # without memory
    match: WeightsMatch
    beside: tuple[str, ...] = ()  # labels


def choose_backbone(sets: Sequence[WeightSet], names: Sequence[str], id_data: IdData) -> Choice:
    """The one network among `names` that has the tensors of a set of the file, with their shapes.

    Trained weights go before averages of them, and sets where weights usually lie before others.

    Raises FaroutError where none fits (with the differences from the nearest), or where networks or sets are as likely.
    """
    networks = [_network(name, id_data.num_classes) for name in names]
    trained = [part for part in sets if not part.averaged] or sets
    tried = [
        Choice(spec, model, match)
        for part in trained
        for spec, model in networks
        for match in weights_matches(model, part)
    ]
    exact = _outermost([choice for choice in tried if not choice.match.differences])
    if not exact:
        raise _misfit(tried, trained, names, id_data)
    first = exact[0].match.weights
    specs = [choice.spec.name for choice in exact if choice.match.weights.label == first.label]
    if len(specs) > 1:
        raise FaroutError(f"the weights fit {', '.join(specs)}: choose one with --backbone")
    same = [c.match.weights.label for c in exact if c.match.weights.path == first.path]
    if len(same) > 1 or (len(exact) > 1 and not first.usual):
        held = listed(sorted({choice.match.weights.label for choice in exact}))
        raise FaroutError(f"the file holds several sets of weights that fit ({held}): choose one with --entry")
    return replace(exact[0], beside=_beside(exact, sets))


def _outermost(exact: Sequence[Choice]) -> list[Choice]:
    """Without networks that are a part of another that fits: an encoder and classifier beside a projection head."""

    def within(inner: WeightSet, outer: WeightSet) -> bool:
        return inner.path == outer.path and inner.prefix != outer.prefix and inner.prefix.startswith(outer.prefix)

    return [one for one in exact if not any(within(one.match.weights, other.match.weights) for other in exact)]


def _beside(exact: Sequence[Choice], sets: Sequence[WeightSet]) -> tuple[str, ...]:
    """Labels of what could have been taken instead: other sets that fit, and averages even where they do not."""
    chosen, model = exact[0].match.weights, exact[0].model
    others = [choice.match.weights for choice in exact[1:]]
    others += [weights_matches(model, part)[0].weights for part in sets if part.averaged]
    return tuple(dict.fromkeys(part.label for part in others if part.label != chosen.label))


def _misfit(
    tried: Sequence[Choice], trained: Sequence[WeightSet], names: Sequence[str], id_data: IdData
) -> FaroutError:
    """Why no network fits: another number of classes, a few tensors of the nearest, or nothing alike at all."""
    nearest = max(tried, key=lambda choice: (choice.match.matching, -len(choice.match.differences)))
    found, classes = nearest.match.differences, _classes_in_file(nearest)
    if classes is not None:
        return FaroutError(
            f"the weights are a {nearest.spec.name} for {classes} classes, but --id {id_data.name} has "
            f"{id_data.num_classes}: give the set it was trained on"
        )
    if len(names) == 1:
        kind = type(nearest.model).__name__
        return FaroutError(
            f"the weights do not fit {kind} (--backbone {names[0]}){_others(trained[0], id_data)}: {found}"
        )
    if 2 * nearest.match.matching < len(nearest.match.weights.state):
        tensors = list(nearest.match.weights.state)
        return FaroutError(
            f"the weights fit no file of conf/backbone, nor nearly: {len(tensors)} tensors ({listed(tensors[:3])}, "
            "...); docs/weights.md says which networks can be imported"
        )
    return FaroutError(f"the weights fit no file of conf/backbone; nearest is {nearest.spec.name}: {found}")


def _others(weights: WeightSet, id_data: IdData) -> str:
    """Which other networks the weights would fit, said in passing."""
    networks = [_network(name, id_data.num_classes) for name in conf_names("backbone")]
    fitting = [spec.name for spec, model in networks if not weights_matches(model, weights)[0].differences]
    return f", but --backbone {' or '.join(fitting)}" if fitting else ""


def _network(name: str, num_classes: int) -> tuple[Component, Backbone]:
    spec = _component("backbone", name, supplied=("num_classes",))
    key = (str(spec), num_classes)
    if key not in _BUILT:
        with torch.device("meta"):
            _BUILT[key] = build_backbone(spec, num_classes)
    return spec, _BUILT[key]


def _classes_in_file(choice: Choice) -> int | None:
    """The number of classes, where the last layer's is all that differs."""
    found, head = choice.match.differences, choice.model.head_name
    if found.missing or found.unexpected or set(found.shape) != {f"{head}.weight", f"{head}.bias"}:
        return None
    theirs, ours = found.shape[f"{head}.weight"]
    return theirs[0] if theirs[1:] == ours[1:] else None


def _usual_transform(backbone: str, id_name: str) -> str:
    if backbone in TRANSFORMS:
        return TRANSFORMS[backbone]
    return id_name if id_name in conf_names("transform") else "cifar"


def _config(group: str, name: str) -> Any:
    path = conf_file(f"{group}/{name}")
    if not re.fullmatch(r"[\w.@+-]+", name) or not path.is_file():
        raise FaroutError(f"{group}={name} is not there: choose from {', '.join(conf_names(group))}")
    try:
        return OmegaConf.load(path)
    except (YAMLError, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise FaroutError(f"conf/{group}/{name}.yaml cannot be read ({reason}): mend it") from None


def _component(group: str, name: str, supplied: tuple[str, ...] = ()) -> Component:
    return component(OmegaConf.to_container(_config(group, name)), group, supplied)
