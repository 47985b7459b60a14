"""Turn weights that somebody else trained into a finished run of ours.

The files of the Energy, Outlier Exposure, JEM and CIDER repositories are understood as their authors saved them. Where
shapes tell the network, no --backbone is needed. Files are read on the CPU with weights-only loading: nothing in them
is executed.
"""

import argparse
import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from farout.backbones import Backbone, load_foreign_state
from farout.backbones.foreign import Differences, differences, left_out, unwrap
from farout.backbones.projected_resnet import ProjectedResNet
from farout.engine.checkpoint import save_weights
from farout.engine.progress import say
from farout.errors import FaroutError
from farout.launch.coerce import Component, build_dataclass, component
from farout.launch.environment import stamp
from farout.launch.runs import Run, build_backbone
from farout.launch.settings import ROOT, IdData

EPILOG = """\
examples:
  python scripts/import_checkpoint.py cifar10_wrn_pretrained_epoch_99.pt --id cifar10      Energy, Outlier Exposure
  python scripts/import_checkpoint.py CIFAR10_MODEL.pt --id cifar10 --name jem             JEM
  python scripts/import_checkpoint.py checkpoint_500.pth.tar --id cifar100 --name cider    CIDER
  python scripts/import_checkpoint.py resnet20.th --id cifar10 --transform imagenet_stats

Then evaluate the run (python eval.py run=outputs/runs/imported-NAME), use it (python scripts/detect.py
outputs/runs/imported-NAME IMAGE... --calibration FOLDER) or fine-tune it (python train.py method=energy
init_from=outputs/runs/imported-NAME backbone=... transform=...).
"""

# The networks that come with a normalisation of their own; the others take that of their ID set.
TRANSFORMS = {"wrn_28_10_jem": "jem", "resnet18_cider": "cider", "resnet34_cider": "cider"}
UNTRAINED_HEAD = (
    "note: CIDER and SupCon never train the classifier, so accuracy and scores of logits mean nothing here: "
    "score features, e.g. score=[knn,mahalanobis]"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, import, say where the run lies; 2 after a one-line error."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="weights saved by torch.save (also in a wrapping dict), or safetensors")
    parser.add_argument("--id", required=True, help="a file of conf/id_data: what it was trained on, e.g. cifar10")
    parser.add_argument("--backbone", help="a file of conf/backbone, e.g. resnet20 (default: the one that fits)")
    parser.add_argument("--transform", help="a file of conf/transform: its normalisation (default: by network and set)")
    parser.add_argument("--name", help="what to call it (default: the file's name)")
    parser.add_argument("--note", default="", help="where it comes from, for the record")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="default: outputs")
    try:
        run = import_checkpoint(parser.parse_args(arguments))
    except FaroutError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    say(f"imported as {run.folder}: evaluate it with `python eval.py run={run.folder}`")
    return 0


def import_checkpoint(arguments: argparse.Namespace) -> Run:
    """The finished run made of the file; importing the same file again is harmless."""
    state = read_state(arguments.file)
    id_data = build_dataclass(IdData, OmegaConf.to_container(_config("id_data", arguments.id).id_data), "id_data")
    names = [arguments.backbone] if arguments.backbone else options("backbone")
    fit = choose_backbone(state, names, id_data)
    transform = _component("transform", arguments.transform or _usual_transform(fit.spec.name, arguments.id))
    model = build_backbone(fit.spec, id_data.num_classes)
    load_foreign_state(model, state)
    identity = _identity(arguments.file, fit.spec, id_data, transform)
    run = Run(arguments.outputs / "runs" / f"imported-{arguments.name or arguments.file.stem}", identity)
    if run.folder.exists() and run.record["identity"] != identity:
        raise FaroutError(f"{run.folder} holds another import: choose another --name")
    run.folder.mkdir(parents=True, exist_ok=True)
    facts = {"steps": 0, "seconds": 0.0, "note": arguments.note, "file": arguments.file.name}
    targets = {"backbone": fit.spec.target, "transform": transform.target}
    trained = {**stamp(torch.device("cpu")), **facts}
    untrained = {"classifier_trained": False} if isinstance(model, ProjectedResNet) else {}
    run.write_record(targets=targets, scale="imported", trained=trained, data={}, **untrained)
    save_weights(run.weights, model)
    _tell(model, state, fit.spec, transform)
    return run


def _identity(file: Path, backbone: Component, id_data: IdData, transform: Component) -> dict[str, Any]:
    return {
        "method": {"name": "imported", "file_sha256": hashlib.sha256(file.read_bytes()).hexdigest()},
        "backbone": backbone.record(),
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


def _tell(model: Backbone, state: Mapping[str, Tensor], backbone: Component, transform: Component) -> None:
    """What was chosen, and what of the file plays no part."""
    say(f"network {backbone.name}, normalisation {transform.name} (change it with --transform)")
    unused = left_out(model, state)
    if unused:
        say(f"left out, because the official code never uses it: {', '.join(unused)}")
    if isinstance(model, ProjectedResNet):
        say(UNTRAINED_HEAD)


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, also where a dict wraps it; every tensor finite.

    Raises FaroutError for a file that is absent, holds anything but plain data, or holds no weights.
    """
    if not path.is_file():
        raise FaroutError(f"{path} is not there: give a file of weights")
    state = unwrap(_content(path))
    if state is None:
        raise FaroutError(f"{path} holds no state dict: save model.state_dict() with torch.save")
    broken = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise FaroutError(f"{path} has NaN or infinity in {len(broken)} tensors ({broken[0]}, ...): take another epoch")
    return state


def _content(path: Path) -> Any:
    """What the file holds. Argument lists of argparse, which some code bases add, are let through: they are data."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise FaroutError(f"{path} is no safetensors file ({error}): download or save it again") from None
    except Exception as error:
        forbidden = re.search(r"GLOBAL (\S+)", str(error))
        if forbidden:
            raise FaroutError(
                f"{path} holds Python objects besides weights ({forbidden.group(1)}), which are never unpickled: "
                "load it where you trust it, and save model.state_dict() alone"
            ) from None
        raise FaroutError(f"{path} is damaged or no file of torch.save: give a file of weights") from None


@dataclass(frozen=True)
class Fit:
    """A network of conf/backbone, and what keeps the weights from fitting it."""

    spec: Component
    model: Backbone  # without memory
    differences: Differences


def choose_backbone(state: Mapping[str, Tensor], names: Sequence[str], id_data: IdData) -> Fit:
    """The one network among `names` that has the file's tensors, with their shapes.

    Raises FaroutError where none has (with the differences from the nearest) or several have.
    """
    fits = [_fit(name, state, id_data.num_classes) for name in names]
    exact = [fit for fit in fits if not fit.differences]
    if len(exact) == 1:
        return exact[0]
    if exact:
        raise FaroutError(f"the weights fit {', '.join(fit.spec.name for fit in exact)}: choose one with --backbone")
    nearest = min(fits, key=lambda fit: len(fit.differences))
    classes = _classes_in_file(nearest)
    if classes is not None:
        raise FaroutError(
            f"the weights are a {nearest.spec.name} for {classes} classes, but --id {id_data.name} has "
            f"{id_data.num_classes}: give the set it was trained on"
        )
    if len(names) == 1:
        kind = type(nearest.model).__name__
        raise FaroutError(f"the weights do not fit {kind} (--backbone {names[0]}): {nearest.differences}")
    raise FaroutError(
        f"the weights fit no file of conf/backbone; nearest is {nearest.spec.name}: {nearest.differences}"
    )


def _fit(name: str, state: Mapping[str, Tensor], num_classes: int) -> Fit:
    spec = _component("backbone", name, supplied=("num_classes",))
    with torch.device("meta"):
        model = build_backbone(spec, num_classes)
    return Fit(spec, model, differences(model, state))


def _classes_in_file(fit: Fit) -> int | None:
    """The number of classes, where the last layer's is all that differs."""
    found, head = fit.differences, fit.model.head_name
    if found.missing or found.unexpected or set(found.shape) != {f"{head}.weight", f"{head}.bias"}:
        return None
    theirs, ours = found.shape[f"{head}.weight"]
    return theirs[0] if theirs[1:] == ours[1:] else None


def _usual_transform(backbone: str, id_name: str) -> str:
    if backbone in TRANSFORMS:
        return TRANSFORMS[backbone]
    return id_name if id_name in options("transform") else "cifar"


def options(group: str) -> list[str]:
    """What a group of conf/ offers."""
    return sorted(file.stem for file in (ROOT / "conf" / group).glob("*.yaml"))


def _config(group: str, name: str) -> Any:
    path = ROOT / "conf" / group / f"{name}.yaml"
    if not path.is_file():
        raise FaroutError(f"{group}={name} is not there: choose from {', '.join(options(group))}")
    return OmegaConf.load(path)


def _component(group: str, name: str, supplied: tuple[str, ...] = ()) -> Component:
    return component(OmegaConf.to_container(_config(group, name)), group, supplied)


if __name__ == "__main__":
    sys.exit(main())
