"""Says of each image which class it is, and whether it is in-distribution at all.

The network comes from a finished run, or from a file that --save wrote. An image counts as in-distribution where its
score reaches tau, which the share --tpr of images reaches that the network did not train on: the run's holdout, or the
images of --calibration. Images of another size are resized (shorter side) and cropped in the centre.
"""

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from farout.commands.arguments import Parser, file_to_write, guarded, number, whole
from farout.data.pictures import image_files
from farout.detector import Detector, DetectorNote, Prediction
from farout.errors import ConfigError, FaroutError, printable

EPILOG = """\
examples:
  python scripts/detect.py outputs/runs/NAME photo.jpg more_photos/
  python scripts/detect.py outputs/runs/NAME photos/ --score knn --tpr 0.99 --save detector.safetensors
  python scripts/detect.py detector.safetensors photos/ --json
  python scripts/detect.py outputs/runs/imported-NAME photos/ --calibration my_in_distribution_photos/

exit status: 0 whatever the verdicts are, 2 after a one-line error
"""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; raises ConfigError on a wrong one."""
    parser = Parser(description=__doc__, epilog=EPILOG)
    parser.add_argument("source", type=Path, metavar="RUN_OR_DETECTOR_FILE", help="a run folder, or a saved detector")
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="image files, or folders of images")
    parser.add_argument("--score", help="a file of conf/score, e.g. msp, energy, knn (default: energy)")
    parser.add_argument(
        "--tpr",
        type=number(0, 1, above=True, below=True),
        help="share of in-distribution images to accept (default: 0.95)",
    )
    parser.add_argument(
        "--calibration", type=Path, action="append", metavar="FOLDER",
        help="in-distribution images that the network did not train on (default: the run's holdout)",
    )  # fmt: skip
    parser.add_argument(
        "--max-fit-images", type=whole(), metavar="N", help="fit the score on at most N training images (default: all)"
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the detector to one safetensors file")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args(arguments)


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the verdicts; 2 after a one-line error."""
    options = parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="note: %(message)s")
    with warnings.catch_warnings(record=True, action="always", category=DetectorNote) as notes:
        detect(options)
    for note in (note for note in notes if issubclass(note.category, DetectorNote)):
        print(f"note: {note.message}", file=sys.stderr)
    return 0


def detect(options: argparse.Namespace) -> None:
    """Make the detector, save it where asked, judge the images."""
    if not options.images and options.save is None:
        raise ConfigError("no image is given: name image files or folders (or --save FILE to keep the detector)")
    file_to_write("--save", options.save)
    files = image_files(options.images)  # before minutes of fitting
    detector = detector_of(options)
    if options.save is not None:
        detector.save(options.save)
    predictions = detector.predict(files)
    if options.json:
        print(json.dumps(as_json(detector, files, predictions), indent=1))
    else:
        show(detector, files, predictions)


def detector_of(options: argparse.Namespace) -> Detector:
    """From a run, with the options; or from a file, in which score and threshold are fixed."""
    if options.source.is_dir():
        return Detector.from_run(
            options.source,
            score=options.score or "energy",
            tpr=0.95 if options.tpr is None else options.tpr,
            calibration_images=options.calibration,
            device=options.device,
            max_fit_images=options.max_fit_images,
        )
    for name in ("score", "tpr", "calibration", "max_fit_images"):
        if getattr(options, name) is not None:
            option = name.replace("_", "-")
            raise FaroutError(f"--{option} cannot change a saved detector: give the run folder instead of the file")
    return Detector.load(options.source, options.device)


def as_json(detector: Detector, files: Sequence[Path], predictions: Sequence[Prediction]) -> dict[str, object]:
    """What --json prints."""
    spec = detector.spec
    facts = {
        "run": spec.run,
        "id_data": spec.id_data,
        "score": detector.score_name,
        "tau": detector.tau,
        "tpr": spec.tpr,
        "calibration": spec.calibration,
        "farout": spec.version,
    }
    rows = [{"image": str(file), **asdict(found)} for file, found in zip(files, predictions, strict=True)]
    return {"detector": facts, "images": rows}


def show(detector: Detector, files: Sequence[Path], predictions: Sequence[Prediction]) -> None:
    """A line per image, and below it how the threshold came about."""
    table = Table(show_edge=False)
    table.add_column("image", overflow="fold")
    for title in ("class", detector.score_name, "tau", "verdict"):
        table.add_column(title, justify="right" if title in (detector.score_name, "tau") else "left", no_wrap=True)
    for file, found in zip(files, predictions, strict=True):
        style, verdict = ("green", "in") if found.in_distribution else ("red", "OUT")
        numbers = (f"{found.score:.5g}", f"{detector.tau:.5g}")
        table.add_row(escape(printable(file)), escape(printable(found.name)), *numbers, f"[{style}]{verdict}[/]")
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 1000  # a line stays a line in a file; the table takes only what it needs
    if files:
        console.print(table)
    spec, source = detector.spec, detector.spec.calibration or {}
    console.print(
        f"{spec.run}: tau {detector.tau:.5g} accepts {100 * spec.tpr:g} % of {source.get('n')} images "
        f"({source.get('source')}); {sum(found.in_distribution for found in predictions)} of {len(files)} are in",
        markup=False,
        soft_wrap=True,
    )
