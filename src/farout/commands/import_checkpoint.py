"""Turn weights that somebody else trained into a finished run of ours.

The files of the Energy, Outlier Exposure, JEM and CIDER repositories are understood as their authors saved them, and so
are torchvision's ResNets and what wraps weights elsewhere: dicts within dicts, and prefixes of names (DataParallel,
torch.compile, Lightning). Where shapes tell the network, no --backbone is needed. Where a file also holds an average of
the weights (EMA), the trained ones are taken unless --entry says otherwise. Files are read on the CPU with weights-only
loading: nothing in them is executed.
"""

from collections.abc import Sequence
from pathlib import Path

from farout.commands.arguments import Parser, folder_to_write, guarded
from farout.engine.progress import say
from farout.runs.imported import Import, import_checkpoint

EPILOG = """\
examples:
  python scripts/import_checkpoint.py cifar10_wrn_pretrained_epoch_99.pt --id cifar10      Energy, Outlier Exposure
  python scripts/import_checkpoint.py CIFAR10_MODEL.pt --id cifar10 --name jem             JEM
  python scripts/import_checkpoint.py checkpoint_500.pth.tar --id cifar100 --name cider    CIDER
  python scripts/import_checkpoint.py resnet20.th --id cifar10 --transform imagenet_stats
  python scripts/import_checkpoint.py timm.pth.tar --id cifar10 --entry state_dict_ema             averaged weights

Then evaluate the run (python eval.py run=outputs/runs/imported-NAME), use it (python scripts/detect.py
outputs/runs/imported-NAME IMAGE... --calibration FOLDER) or fine-tune it (python train.py method=energy
init_from=outputs/runs/imported-NAME backbone=... transform=...).
"""


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, import, say where the run lies; 2 after a one-line error."""
    parser = Parser(description=__doc__, epilog=EPILOG)
    parser.add_argument("file", type=Path, help="weights saved by torch.save (also in a wrapping dict), or safetensors")
    parser.add_argument("--id", required=True, help="a file of conf/id_data: what it was trained on, e.g. cifar10")
    parser.add_argument("--backbone", help="a file of conf/backbone, e.g. resnet20 (default: the one that fits)")
    parser.add_argument("--transform", help="a file of conf/transform: its normalisation (default: by network and set)")
    parser.add_argument("--entry", help="which of several sets of weights in the file, e.g. state_dict_ema")
    parser.add_argument("--name", help="what to call it (default: the file's name)")
    parser.add_argument("--note", default="", help="where it comes from, for the record")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="default: outputs")
    options = vars(parser.parse_args(arguments))
    folder_to_write("--outputs", options["outputs"])
    run = import_checkpoint(Import(id_data=options.pop("id"), **options))
    say(f"imported as {run.folder}: evaluate it with `python eval.py run={run.folder}`")
    return 0
