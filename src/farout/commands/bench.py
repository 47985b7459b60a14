"""One table of what things cost here: each line ours beside a baseline that does the same, in turns within one run.

    python scripts/bench.py                       everything, on two CPU cores about a quarter of an hour
    python scripts/bench.py --device cuda         on a GPU (not timed as a whole); --compile adds the compiler
    python scripts/bench.py --only data,knn       some parts, printed and not kept
    python scripts/bench.py --quick               whether all of it runs

Before a line is timed, both sides must come to the same result; where they do not, that part fails. Times are the least
and the median of all turns, and the ratio is that of the least ones: above 1 where ours takes less. The part growth has
no baseline: it prints how seconds grow with size, as a slope on logarithmic axes. A whole run is written to
results/bench-DEVICE.json, and docs/speed.md with its figure is written from those files.
"""

import argparse
import math
import os
import re
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from farout.commands.arguments import DONE, FAILED, Parser, folder_to_write, guarded, plain, require_checkout, whole
from farout.commands.benchmark.lines import AnyLine, Growth, Place, Size, Unmeasured
from farout.commands.benchmark.page import SPEED, amounts, update_page
from farout.engine.progress import say
from farout.errors import FaroutError
from farout.files import save_json
from farout.places import ROOT
from farout.runs.environment import choose_device, stamp

PARTS = {  # what --only calls it -> its module
    "data": "data_path",
    "training": "steps",
    "evaluation": "evaluation",
    "metrics": "detection",
    "knn": "neighbours",
    "prototypes": "prototypes",
    "start-up": "start_up",
    "memory": "memory",
    "growth": "growth",
}
RESULTS = ROOT / "results"


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a line for each comparison, and keep a whole run; 2 where a part failed."""
    options = _options(arguments)
    require_checkout("this benchmark")
    folder_to_write("--results", options.results)
    if options.threads:
        torch.set_num_threads(options.threads)
    place = _place(options)
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than cores: so it is meant
    lines: list[AnyLine] = []
    failed = False
    until = math.inf if options.minutes is None else time.monotonic() + 60 * options.minutes
    for part in options.only:
        for piece in _pieces(part, place):
            for line in _guarded(part, piece if time.monotonic() < until else partial(_no_time, part)):
                lines.append(line)
                failed |= isinstance(line, Failed)
                say(_shown(line))
    _keep(options, place, lines)
    return FAILED if failed else DONE


class Failed(Unmeasured):
    """What should have been measured."""


def _no_time(part: str) -> Iterator[AnyLine]:
    yield Unmeasured(part, "a piece of it", "the time given was over (--minutes)")


def _pieces(part: str, place: Place) -> Sequence[Callable[[], Iterator[AnyLine]]]:
    """The pieces of a part: what fails in one leaves the others alone."""
    module = import_module(f"farout.commands.benchmark.{PARTS[part]}")
    if hasattr(module, "pieces"):
        return module.pieces(place)
    return [partial(module.lines, place)]


def _guarded(part: str, piece: Callable[[], Iterator[AnyLine]]) -> Iterator[AnyLine]:
    """A piece's lines; an error becomes the last of them, for what took minutes to measure is not lost for it."""
    try:
        yield from piece()
    except Exception as error:
        if not isinstance(error, FaroutError):
            traceback.print_exc()
        yield Failed(part, "the rest of it", f"failed: {plain(error)}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto (default: cpu)")
    parser.add_argument("--only", type=_parts, default=[*PARTS], metavar="PARTS", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="everything at a small size: figures mean nothing")
    parser.add_argument("--rounds", type=whole(), help="turns that each side takes (default: 3; on a GPU 5)")
    parser.add_argument("--threads", type=whole(1, 4096), help="of PyTorch (default: its own choice)")
    parser.add_argument("--minutes", type=whole(1, 10_000), help="nothing is begun after these (default: all is done)")
    parser.add_argument("--compile", action="store_true", help="our training steps with torch.compile too, on a GPU")
    parser.add_argument(
        "--results", type=Path, metavar="FOLDER", help="where the record goes (default: results/, of a whole run)"
    )
    return parser.parse_args(arguments)


def _parts(text: str) -> list[str]:
    """Names with commas between them, in the table's order."""
    wanted = text.split(",")
    strange = [name for name in wanted if name not in PARTS]
    if strange:
        raise argparse.ArgumentTypeError(f"{strange[0]!r} is no part: choose from {', '.join(PARTS)}")
    return [name for name in PARTS if name in wanted]


def _place(options: argparse.Namespace) -> Place:
    device = choose_device(options.device, "--device")
    size: Size = "quick" if options.quick else "cuda" if device.type == "cuda" else "cpu"
    rounds = options.rounds or {"quick": 1, "cpu": 3, "cuda": 5}[size]
    return Place(device, size, rounds, options.compile and device.type == "cuda")


def _shown(line: AnyLine) -> str:
    """For whoever watches."""
    if isinstance(line, Unmeasured):
        return f"{line.part}: {line.name} - not measured: {line.reason}"
    if isinstance(line, Growth):
        sides = ", ".join(f"{amounts(side.record(), 's')} for {side.what}" for side in line.seconds.values())
        return f"{line.part}: {line.name} ({line.scale}): {sides}; slope {line.slope:.2f}, last {line.last_slope:.2f}"
    ours, baseline = (amounts(side.record(), line.unit) for side in (line.ours, line.baseline))
    sides = f"{line.ours.what} {ours}, {line.baseline.what} {baseline}"
    return f"{line.part}: {line.name} ({line.scale}): {sides}; ratio {line.ratio:.2f}"


def _keep(options: argparse.Namespace, place: Place, lines: Sequence[AnyLine]) -> None:
    """Write the record, and the page where it is one of results/."""
    whole_run = not options.quick and len(options.only) == len(PARTS)
    folder = options.results or (RESULTS if whole_run else None)
    if folder is None:
        say("not kept: only a whole run at full size is (or name a folder: --results)")
        return
    path = folder / f"bench-{short_name(place.device)}.json"
    save_json(path, record_of(place, lines))
    say(f"written: {path}")
    if folder.resolve() == RESULTS:
        update_page(SPEED, RESULTS)
        say(f"written: {SPEED}")


def record_of(place: Place, lines: Sequence[AnyLine]) -> dict[str, Any]:
    """What results/bench-DEVICE.json holds."""
    return {
        **stamp(place.device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "size": place.size,
        "compiled": place.compiled,
        "lines": [line.record() for line in lines],
    }


def short_name(device: torch.device, name: str | None = None) -> str:
    """cpu, or a GPU's model as people call it: h100, a100, 4090."""
    if device.type == "cpu":
        return "cpu"
    words = re.findall(r"[a-z0-9]+", (name or torch.cuda.get_device_name(device)).lower())
    return next((word for word in words if re.search(r"\d", word)), device.type)
