"""What is interrupted: commands, what lies in their folder before, and when their work begins."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from farout.errors import FaroutError

TRAIN = "train.py scale=smoke id_data=digits logger=none trainer.device=cpu trainer.checkpoint_steps=2"
TRAIN += " trainer.log_every=1 paths.outputs={folder}"
LONG = f"{TRAIN} evaluate=false max_steps=24"
SMALL = "backbone=resnet20 pretrain.max_steps=6"
VIEWS = "backbone=resnet18_cider backbone.width=4 backbone.projection_dim=8 transform=digits_views"
JEM = "method=jem backbone=wrn_10_2_jem backbone.widen_factor=1 sgld_steps=2 buffer_size=64"
# Far too high a rate, halved by each restart: diverges about ten times, and ends.
DIVERGING = "lr=1 loss_bound=1e5 restart_lr_factor=0.5 restart_every=3 restart_sgld_steps=1"
METHODS = {
    "ce": f"method=ce {SMALL}",
    "energy": f"method=energy {SMALL}",
    "oe": f"method=oe {SMALL}",
    "oe_scratch": f"method=oe_scratch {SMALL}",
    "cider": f"method=cider {VIEWS}",
    "supcon": f"method=supcon {VIEWS}",
    "jem": f"{JEM} holdout=0.2 epochs=2 batch_size=60 keep=best",
    "jem_restarts": f"{JEM} {DIVERGING}",
}
EVALUATE = f"{TRAIN} method=ce backbone=resnet20 ood_data=smoke ood_data.sets=[hopper_patches] max_eval_images=50"
BUILD = "scripts/prepare_data.py digits hopper_patches gaussian@500 --data {folder}/store"


@dataclass(frozen=True)
class Subject:
    """A command, with {folder} for the one it writes into and {run} for the run that is there.

    Attributes:
        given: commands whose end lies in the folder before, as patterns of files that do not.
        begins: what it says when its work begins, where that can be waited for.
    """

    name: str
    command: str
    given: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    begins: tuple[str, ...] = ()

    def words(self, folder: Path) -> list[str]:
        """The command for a folder."""
        return filled(self.command, folder)


def filled(command: str, folder: Path) -> list[str]:
    """The words of a command; raises FaroutError where {run} names none or several."""
    runs = [str(path) for path in folder.glob("runs/[!.]*/")] if "{run}" in command else []
    if "{run}" in command and len(runs) != 1:
        raise FaroutError(f"{folder} should hold one run, and holds {len(runs)}: give another --folder")
    return [word.format(folder=folder, run="".join(runs)) for word in command.split()]


def trainings(methods: Sequence[str]) -> list[Subject]:
    """A training for each method."""
    return [Subject(name, f"{LONG} {METHODS[name]}", begins=(" trains: ", " resumes: ")) for name in methods]


OTHERS = {
    "evaluate": Subject("evaluate", EVALUATE, given=(f"{EVALUATE} evaluate=false",)),
    "build": Subject("build", BUILD),
    "pack": Subject(
        "pack", "scripts/prepare_data.py digits --pack --data {folder}/store --out {folder}/packs", (BUILD,)
    ),
    "report": Subject("report", "scripts/report.py {run} --out {folder}/again", (EVALUATE,)),
    "page": Subject("page", "scripts/page.py {folder}", (EVALUATE,), ("index.html", "cache/page/*")),
}
