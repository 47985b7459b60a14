"""Turn weights that somebody else trained into a finished run of ours.

    python scripts/import_checkpoint.py cifar10_resnet20.th --backbone resnet20 --transform imagenet_stats --id cifar10

The run can then be evaluated (`python eval.py run=outputs/runs/NAME`) or fine-tuned (`python train.py method=energy
init_from=outputs/runs/NAME backbone=resnet20 transform=imagenet_stats`). Files are read on the CPU with weights-only
loading: nothing in them is executed.
"""

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from farout.backbones import load_foreign_state
from farout.engine.checkpoint import save_weights
from farout.engine.progress import say
from farout.errors import FaroutError
from farout.launch.coerce import Component, build_dataclass, component
from farout.launch.environment import stamp
from farout.launch.runs import Run, build_backbone
from farout.launch.settings import ROOT, IdData


def main() -> int:
    """Parse the command line, import, say where the run lies; 2 after a one-line error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a state dict saved by torch (also inside a dict as 'state_dict')")
    parser.add_argument("--backbone", required=True, help="a file of conf/backbone, e.g. resnet20, wrn_40_2")
    parser.add_argument("--id", required=True, help="a file of conf/id_data: what it was trained on, e.g. cifar10")
    parser.add_argument("--transform", default="cifar", help="a file of conf/transform: its normalisation")
    parser.add_argument("--name", help="what to call it (default: the file's name)")
    parser.add_argument("--note", default="", help="where it comes from, for the record")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="default: outputs")
    arguments = parser.parse_args()
    try:
        run = import_checkpoint(arguments)
    except FaroutError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    say(f"imported as {run.folder}: evaluate it with `python eval.py run={run.folder}`")
    return 0


def import_checkpoint(arguments: argparse.Namespace) -> Run:
    """The finished run made of the file; importing the same file again is harmless."""
    state = read_state(arguments.file)
    backbone = _component("backbone", arguments.backbone, supplied=("num_classes",))
    transform = _component("transform", arguments.transform)
    id_data = build_dataclass(IdData, OmegaConf.to_container(_config("id_data", arguments.id).id_data), "id_data")
    model = build_backbone(backbone, id_data.num_classes)
    load_foreign_state(model, state)
    digest = hashlib.sha256(arguments.file.read_bytes()).hexdigest()
    identity: dict[str, Any] = {
        "method": {"name": "imported", "file_sha256": digest},
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
    name = arguments.name or arguments.file.stem
    run = Run(arguments.outputs / "runs" / f"imported-{name}", identity)
    if run.folder.exists() and run.record["identity"] != identity:
        raise FaroutError(f"{run.folder} holds another import: choose another --name")
    run.folder.mkdir(parents=True, exist_ok=True)
    facts = {
        **stamp(torch.device("cpu")),
        "steps": 0,
        "seconds": 0.0,
        "note": arguments.note,
        "file": arguments.file.name,
    }
    targets = {"backbone": backbone.target, "transform": transform.target}
    run.write_record(targets=targets, scale="imported", trained=facts, data={})
    save_weights(run.weights, model)
    return run


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, also where it lies under "state_dict", "model" or "model_state_dict"."""
    if not path.is_file():
        raise FaroutError(f"{path} is not there: give a file of weights")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise FaroutError(f"{path} cannot be read as plain weights ({reason}): save its state_dict alone") from None
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise FaroutError(f"{path} holds no state dict: save model.state_dict() with torch.save")
    return content


def _config(group: str, name: str) -> Any:
    path = ROOT / "conf" / group / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
        raise FaroutError(f"{group}={name} is not there: choose from {there}")
    return OmegaConf.load(path)


def _component(group: str, name: str, supplied: tuple[str, ...] = ()) -> Component:
    return component(OmegaConf.to_container(_config(group, name)), group, supplied)


if __name__ == "__main__":
    sys.exit(main())
