"""What an evaluation depends on decides whether it is done: weights, images, scores with all arguments, protocol."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from farout.config.settings import Settings
from farout.data import ImageSet, open_dataset
from farout.errors import ConfigError
from farout.metrics.protocol import Protocol
from farout.runs.checks import train_labels
from farout.runs.inputs import EvaluationData, ImageSets, evaluation_data
from farout.runs.records import DamagedResults, read_results
from farout.runs.run import Run

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class EvaluationRequest:
    """An evaluation of a run as settings ask for it."""

    run: Run
    settings: Settings

    def answered(self) -> bool:
        """Whether results.json holds this very evaluation, with nothing missing that could now be had.

        Opens the sets and compares hashes. Raises MissingDataError where ID or the outliers are not there.
        """
        try:
            known = read_results(self.run.folder)["evaluations"]
        except DamagedResults:  # the evaluation that follows moves it aside
            return False
        entries = [entry for entry in known if _understood(self._same_as, entry)]
        if not entries:
            return False
        data = evaluation_data(self.settings)
        wanted = self.depends_on(data)
        return any(_understood(_covers, entry, wanted, data) for entry in entries)

    def depends_on(self, data: EvaluationData) -> dict[str, Any]:
        """What the figures of an evaluation follow from besides its protocol; hashes and numbers, no forward pass."""
        settings, paths = self.settings, ImageSets(self.settings).paths
        own = settings.id_data
        trained = open_dataset(own.name, own.train_split, paths)
        side = int(trained.info["side"])
        outliers = [] if settings.outliers is None else [open_dataset(settings.outliers, "train", paths, side)]
        available = len(train_labels(self.run, paths))
        fitted_on = min(available, settings.max_fit_images or available)
        fit = {"sha256": trained.info.get("sha256"), "n": fitted_on}
        limit = settings.geometry_images
        return {
            "weights": hashlib.sha256(self.run.weights.read_bytes()).hexdigest(),
            "id": image_facts(data.id_test),
            "ood": {name: image_facts(images) for name, images in data.ood.items()},
            "references": [images.info.get("sha256") for images in (trained, *outliers)],
            "scores": self._scores(fit),
            "geometry": fitted_on if limit is None else min(limit, fitted_on),
            "fit": fit,
        }

    def _same_as(self, entry: Facts) -> bool:
        """What needs no data to be seen."""
        settings = self.settings
        if settings.linear_probe and "linear_probe" not in entry["id"]:
            return False
        if settings.protocol.bootstrap and "paired" not in entry:
            return False
        asked = (settings.ood_data.name, settings.protocol, settings.max_eval_images)
        return (entry["ood_data"], Protocol(**entry["protocol"]), entry["max_eval_images"]) == asked

    def _scores(self, fit: Facts) -> dict[str, dict[str, Any]]:
        """Score -> its class, the arguments that decide its figures, what it is fitted and tuned on where it is."""
        found = {}
        for component in self.settings.scores:
            score = component.build()
            arguments = {key: value for key, value in component.arguments.items() if key not in score.ways}
            facts = {"target": component.target, "arguments": arguments}
            if "train" in score.needs:
                facts["fit"] = fit
            if score.candidates():
                facts["tuned"] = self._tuning()
            found[score.name] = facts
        return found

    def _tuning(self) -> dict[str, Any]:
        sets = ImageSets(self.settings)
        try:
            base, split = sets.corruption_source()
        except ConfigError:  # the score will be skipped for it
            return {"base": None}
        images = sets.corruption_images()
        return {
            "base": f"{base} ({split})",
            "sha256": images.info.get("sha256"),
            "images": self.settings.max_tune_images,
        }


def already_evaluated(run: Run, settings: Settings) -> bool:
    """`EvaluationRequest.answered`."""
    return EvaluationRequest(run, settings).answered()


def image_facts(images: ImageSet) -> dict[str, Any]:
    """Which images of which set: the whole set's hash and side, and how many of how many."""
    info = images.info
    return {"sha256": info.get("sha256"), "side": info.get("side"), "n": len(images), "of": info.get("of", len(images))}


def _understood(question: Callable[..., bool], entry: Facts, *more: Any) -> bool:
    """The answer; no where the entry holds something else than any version of this code wrote."""
    try:
        return question(entry, *more)
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def _covers(entry: Facts, wanted: Facts, data: EvaluationData) -> bool:
    """Whether an entry has every wanted score on every set as it now is, and the rest of what was wanted."""
    measured = {row["ood"] for row in entry["rows"]}
    known_missing = measured | {gap["ood"] for gap in entry["missing"]}
    scored = {row["score"] for row in entry["rows"]} | set(entry.get("skipped_scores", ()))
    if not (set(data.ood) <= measured and set(data.missing) <= known_missing and wanted["scores"].keys() <= scored):
        return False
    known = entry.get("depends_on")
    if known is None:
        return _older_covers(entry, wanted)
    alike = all(known.get(key) == wanted[key] for key in ("weights", "id", "references", "geometry"))
    return alike and all(
        known[part].get(name) == facts for part in ("ood", "scores") for name, facts in wanted[part].items()
    )


def _older_covers(entry: Facts, wanted: Facts) -> bool:
    """The same for an entry that does not say what it depends on: what it shows must agree.

    A score that was tuned, or may have been, does not show on what: that counts as not done.
    """
    info = entry["id"].get("info") or {}
    shown = {"id": (info.get("sha256"), entry["id"].get("n"))}
    shown |= {row["ood"]: (row.get("sha256"), row.get("n_available")) for row in entry["rows"]}
    sets = {"id": wanted["id"], **wanted["ood"]}
    images = all(shown[name] == (facts["sha256"], facts["n"]) for name, facts in sets.items())
    scores = all(_older_score(entry["scores"].get(name, {}), facts) for name, facts in wanted["scores"].items())
    return images and scores and _older_geometry(entry.get("geometry"), wanted["geometry"])


def _older_score(shown: Facts, wanted: Facts) -> bool:
    arguments = {key: value for key, value in wanted["arguments"].items() if key in shown and value is not None}
    fitted = "fit" not in wanted or shown.get("fitted_on") == wanted["fit"]["n"]
    untuned = "tuned" not in wanted and "tuned_on" not in shown
    return untuned and fitted and all(shown[key] == value for key, value in arguments.items())


def _older_geometry(shown: Facts | None, wanted: int) -> bool:
    if shown is None:  # from before there were measures
        return True
    if "reason" in shown:
        return (wanted == 0) == ("geometry_images=0" in str(shown["reason"]))
    found = re.search(r"class means of ([\d,]+) training", str(shown.get("features", {}).get("directions")))
    return found is None or int(found.group(1).replace(",", "")) == wanted
