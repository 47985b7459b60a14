"""Turn weights that somebody else trained into a finished run of ours.

The files of the Energy, Outlier Exposure, JEM and CIDER repositories are understood as their authors saved them, and so
are torchvision's ResNets and what wraps weights elsewhere: dicts within dicts, and prefixes of names (DataParallel,
torch.compile, Lightning). Where shapes tell the network, no --backbone is needed. Where a file also holds an average of
the weights (EMA), the trained ones are taken unless --entry says otherwise. Files are read on the CPU with weights-only
loading: nothing in them is executed.

With --as-run the file is a FOLDER with run.json and weights.safetensors (and method.safetensors, where the method
learns): a run of ours that was trained on another machine. It lands in outputs/runs/ under its own name, so that the
command that trained it finds it finished. Weights rounded to 16 bits are taken, said and recorded.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from farout.commands.arguments import Parser, folder_to_write, guarded
from farout.engine.progress import say
from farout.errors import ConfigError
from farout.runs.adopted import adopt
from farout.runs.imported import Import, import_checkpoint

EPILOG = """\
examples:
  python scripts/import_checkpoint.py cifar10_wrn_pretrained_epoch_99.pt --id cifar10      Energy, Outlier Exposure
  python scripts/import_checkpoint.py CIFAR10_MODEL.pt --id cifar10 --name jem             JEM
  python scripts/import_checkpoint.py checkpoint_500.pth.tar --id cifar100 --name cider    CIDER
  python scripts/import_checkpoint.py resnet20.th --id cifar10 --transform imagenet_stats
  python scripts/import_checkpoint.py timm.pth.tar --id cifar10 --entry state_dict_ema             averaged weights
  python scripts/import_checkpoint.py copied/ce-wrn_40_2-cifar10-288a3327-s1 --as-run            a run of ours

Then evaluate the run (python eval.py run=outputs/runs/imported-NAME), use it (python scripts/detect.py
outputs/runs/imported-NAME IMAGE... --calibration FOLDER) or fine-tune it (python train.py method=energy
init_from=outputs/runs/imported-NAME backbone=... transform=...).
"""


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, import, say where the run lies; 2 after a one-line error."""
    parser = Parser(description=__doc__, epilog=EPILOG)
    parser.add_argument("file", type=Path, help="weights saved by torch.save (also in a wrapping dict), or safetensors")
    parser.add_argument("--as-run", action="store_true", help="the file is a folder: a run of ours from elsewhere")
    parser.add_argument("--id", help="a file of conf/id_data: what it was trained on, e.g. cifar10")
    parser.add_argument("--backbone", help="a file of conf/backbone, e.g. resnet20 (default: the one that fits)")
    parser.add_argument("--transform", help="a file of conf/transform: its normalisation (default: by network and set)")
    parser.add_argument("--entry", help="which of several sets of weights in the file, e.g. state_dict_ema")
    parser.add_argument("--name", help="what to call it (default: the file's name)")
    parser.add_argument("--note", default="", help="where it comes from, for the record")
    parser.add_argument(
        "--outliers", metavar="WHAT", help="what it was trained with as outliers, or none: verdicts keep such apart"
    )
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="default: outputs")
    options = vars(parser.parse_args(arguments))
    folder_to_write("--outputs", options["outputs"])
    if options.pop("as_run"):
        return _adopt(options)
    if options["id"] is None:
        raise ConfigError("--id is missing: name the set that the weights were trained on, e.g. --id cifar10")
    run = import_checkpoint(Import(id_data=options.pop("id"), **options))
    say(f"imported as {run.folder}: evaluate it with `python eval.py run={run.folder}`")
    return 0


def _adopt(options: Mapping[str, Any]) -> int:
    """The same of a run of ours, whose run.json says everything else."""
    told = [
        f"--{name}"
        for name in ("id", "backbone", "transform", "entry", "name", "outliers")
        if options[name] is not None
    ]
    if told:
        raise ConfigError(f"{told[0]} does not go with --as-run, because run.json says it: leave it out")
    run = adopt(options["file"], options["outputs"], options["note"])
    say(f"{run.name} is finished in {run.folder}: evaluate it with `python eval.py run={run.folder}`")
    return 0
