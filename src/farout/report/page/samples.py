"""The report's card of generated images: those logged in training, samples, and their quality."""

import base64
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from farout.errors import ConfigError
from farout.report.page.markup import card, items, paragraph, tabs, text

OVER_TIME = 4  # pictures of training in the card; the folder has them all
COLOURS = 256  # of a picture in the page: a third of the bytes
SHEETS = {  # file: title, what it shows
    "samples": ("Samples", "Samples as they are, evenly taken."),
    "predicted_class": (
        "By predicted class",
        "Samples by what the network takes them for, the surest first.",
    ),
    "class_chains": ("Chains by class", "Chains from noise, each towards one class."),
    "chain": ("From noise", "Chains from noise, one a row, after so many Langevin steps."),
}


def sample_card(folder: Path | None) -> str:
    """What lies in a run's folder of samples (STEM-STEP.png of training, and what was sampled); "" where nothing does.

    Raises ConfigError where samples.json is damaged.
    """
    if folder is None or not folder.is_dir():
        return ""
    panels = {f"Training: {stem}": _over_time(files) for stem, files in _training(folder).items()}
    for stem, (title, words) in SHEETS.items():
        if (folder / f"{stem}.png").is_file():
            panels[title] = paragraph(words, "note") + _plots([_picture(folder / f"{stem}.png", title)])
    if not panels:
        return ""
    return card("Generated images", "samples", tabs("samples", panels), _figures(folder / "samples.json"))


def _training(folder: Path) -> dict[str, list[tuple[int, Path]]]:
    """Stem -> (step, file) of the pictures of training, by step."""
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in sorted(folder.glob("*.png")):
        if named := re.fullmatch(r"(.+)-(\d+)", path.stem):
            found.setdefault(named[1], []).append((int(named[2]), path))
    return {stem: sorted(files) for stem, files in found.items()}


def _over_time(files: Sequence[tuple[int, Path]]) -> str:
    """A few of them, the first and the last among these."""
    shown = min(OVER_TIME, len(files))
    chosen = [files[round(i * (len(files) - 1) / max(1, shown - 1))] for i in range(shown)]
    if shown == 1:
        chosen = [files[-1]]
    words = f"The same images at {len(chosen)} of {len(files)} moments of training."
    return paragraph(words, "note") + _plots(_picture(path, f"step {step:,}") for step, path in chosen)


def _plots(pictures: Iterable[str]) -> str:
    return f'<div class="plots">{"".join(pictures)}</div>'


def _picture(path: Path, words: str) -> str:
    """A PNG of the folder, inside the page."""
    data = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").quantize(COLOURS).save(data, format="png", optimize=True)
    source = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
    style = "display:block;width:100%;height:auto;image-rendering:pixelated"
    return (
        f'<figure class="plot"><img src="{source}" alt="{text(words)}" style="{style}">'
        f'<figcaption class="note">{text(words)}</figcaption></figure>'
    )


def _figures(path: Path) -> str:
    if not path.is_file():
        return ""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return paragraph(_source(known["sampling"])) + items(quality_lines(known))
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as problem:
        raise ConfigError(f"{path} is damaged ({problem}): sample the run again") from None


def _source(facts: Mapping[str, Any]) -> str:
    """Where the samples come from, in a sentence."""
    start = "the run's replay buffer" if facts["source"] == "buffer" else "uniform noise"
    words = f"{facts['n']:,} samples from {start}"
    if facts["rounds"]:
        words += f" after {facts['rounds']:,} rounds of {facts['batch_size']} chains of {facts['steps']} steps"
    unseen = f"; {facts['never_drawn']:,} rows that no chain reached are left out" if facts["never_drawn"] else ""
    return f"{words}, seed {facts['seed']}{unseen}."


def quality_lines(quality: Mapping[str, Any]) -> list[str]:
    """The figures of samples.json for people: IS and FID with their subsets, or why not; then our own distance."""
    inception, own = quality["inception"], quality.get("frechet_distance")
    if "reason" in inception:
        lines = [f"no IS, no FID: {inception['reason']}"]
    else:
        score, fid = inception["inception_score"], inception["fid"]
        lines = [
            f"IS {score['mean']:.3f} ({score['n']:,} images, {score['subset']})",
            f"FID {fid['value']:.2f} ({fid['n']:,} images, {fid['subset']}; against {fid['reference']})",
        ]
    if own is not None:
        pairs = {name.replace("_", " "): facts for name, facts in own.items() if isinstance(facts, Mapping)}
        values = ", ".join(f"{name} {facts['value']:.4g}" for name, facts in pairs.items())
        lines.append(f"Frechet distance (not FID) on the features of {own['features']}, {own['reference']}: {values}")
    return lines
