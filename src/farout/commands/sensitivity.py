"""How energy fine-tuning depends on its margins, its weight and its number of outliers, one at a time.

    python scripts/sensitivity.py --scale small --init outputs/runs/imported-cifar10_resnet20 max_steps=200
    python scripts/sensitivity.py --scale small --seeds 1 2 --knob m_in=-27,-15,-7 --knob lr=0.001,0.01
    python scripts/sensitivity.py --scale demo --id digits --knob m_out=-9,-1

Each network is the row energy_ft of the scale with one value changed, fine-tuned with a holdout of 0.1 and evaluated on
its OOD test sets. The figure and the table show FPR95 there and on the holdout against the validation corruptions, with
the value that the holdout would choose: test sets choose nothing, here they only tell what a choice was worth. What is
finished is not done again; overrides are passed on to every network.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from farout.commands.arguments import Parser, folder_to_write, guarded, overrides_apart, seed
from farout.engine.progress import say
from farout.errors import ConfigError
from farout.files import save_json, write_bytes, write_text
from farout.report.figures.style import png_bytes, svg_text
from farout.report.records import SENSITIVITY
from farout.reproduce.rows import SCALES, TableRequest, refuse_own
from farout.reproduce.sensitivity import GRID, HOLDOUT, Value, record_of, settings_of
from farout.reproduce.sensitivity_page import drawn, markdown
from farout.reproduce.stages import carry_out, check_data
from farout.runs.environment import choose_device

OWN_OPTIONS = {"experiment": "--scale", "scale": "--scale", "seed": "--seeds"}


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Train and evaluate what is missing, then draw and tabulate; 2 after a one-line error."""
    options = parse(arguments)
    words = [f"holdout={HOLDOUT}", *options.overrides]
    words += [] if options.init else [f"pretrain.holdout={HOLDOUT}"]
    request = TableRequest(
        paper="energy",
        scale=options.scale,
        id_data=options.id,
        rows=("energy_ft",),
        seeds=tuple(options.seeds),
        steps=options.scale,
        init=options.init,
        overrides=tuple(words),
    )
    request.check("--scale and --id")
    device = choose_device(request.settings("energy_ft", request.seeds[0]).trainer.device)
    settings, usual = settings_of(request, dict(options.knob or GRID.items()), device)
    stages = [stage for setting in settings for stage in setting.stages]
    out = options.out or Path("outputs/tables") / f"{request.label}-{options.id}-sensitivity"
    folder_to_write("--out", out)
    check_data(settings[0].stages)
    say(f"{len(settings)} settings of {', '.join(usual)}; seeds {' '.join(map(str, request.seeds))}")
    carry_out(stages)
    record = record_of(request, settings, usual)
    _write(record, out, options.record)
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--scale", default="full", choices=SCALES, help="full is the paper's (default)")
    parser.add_argument("--id", default="cifar10", help="in-distribution set: cifar10 (default), cifar100, digits")
    parser.add_argument("--seeds", nargs="+", type=seed, default=[1], help="default: 1")
    parser.add_argument("--init", metavar="RUN", help="fine-tune this finished run (an imported one, say)")
    parser.add_argument(
        "--knob", action="append", type=_knob, metavar="NAME=VALUES", help="instead of the usual ones; may be repeated"
    )
    parser.add_argument("--out", type=Path, help="folder for the figure and the table (default: outputs/tables/...)")
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="also write the record there (the ledger)")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="passed on, e.g. max_steps=200")
    options = parser.parse_intermixed_args(overrides_apart(arguments))
    if len(set(options.seeds)) < len(options.seeds):
        raise ConfigError(f"--seeds {' '.join(map(str, options.seeds))} names one twice: name each once")
    refuse_own(options.overrides, OWN_OPTIONS)
    folder_to_write("--record", options.record)
    return options


def _knob(text: str) -> tuple[str, tuple[Value, ...]]:
    """NAME=VALUE,VALUE; null is all of what is counted."""
    name, sign, values = text.partition("=")
    try:
        read = tuple(None if value == "null" else _number(value) for value in values.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=NUMBER,NUMBER,...") from None
    if not sign or not name:
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=NUMBER,NUMBER,...")
    return name, read


def _number(text: str) -> float | int:
    return float(text) if any(mark in text for mark in ".e") else int(text)


def _write(record: dict, out: Path, ledger: Path | None) -> None:
    """The figure, the table and the record."""
    figure = drawn(record)
    write_text(out / "sensitivity.md", markdown(record))
    write_bytes(out / "sensitivity.png", png_bytes(figure))
    write_text(out / "sensitivity.svg", svg_text(figure))
    print(markdown(record))
    say(f"written: {out / 'sensitivity.md'}, .png and .svg")
    if ledger is not None:
        name = f"{SENSITIVITY}{record['scale']}-{record['id_data']}-{record['backbone']}.json"
        save_json(ledger / name, record)
        say(f"recorded: {ledger / name}")
