"""Runs compared on the same images: figures follow from their folders, and what cannot be compared is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from farout.commands.compare import main
from farout.errors import ConfigError, MissingDataError
from farout.files import save_arrays, save_json
from farout.metrics import expected_calibration_error
from farout.metrics.protocol import Protocol, apply
from farout.report.records import read_record
from farout.reproduce.comparison import compare
from farout.reproduce.ledger import read_paired
from farout.reproduce.verdicts import PAIRED, REPRODUCED, verdicts_of

SIZES = {"id": 300, "blobs": 90, "faces": 80}
METHODS = {
    "ce": ("11111111", ("msp", "energy"), 1.0),
    "energy": ("2222aaaa", ("msp", "energy"), 2.5),
    "supcon": ("3333bbbb", ("msp", "energy"), 1.5),
}
Make = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path) -> Make:
    """Writes the folder of an evaluated run with random scores: `apart` is how far ID lies from OOD."""

    def make(method: str, seed: int, sets: tuple[str, ...] = ("blobs", "faces"), **depends: Any) -> Path:
        mark, scores, apart = METHODS[method]
        name = f"{method}-wrn_40_2-cifar10-{mark}-s{seed}"
        rng = np.random.default_rng([seed, len(method)])
        arrays: dict[str, dict[str, np.ndarray]] = {
            part: {score: rng.normal(apart * (part == "id"), 1, SIZES[part]) for score in scores}
            for part in ("id", *sets)
        }
        protocol = Protocol("energy", ratio=5, redraws=2)
        rows = [
            {"score": score, "ood": ood, **apply(protocol, arrays["id"][score], arrays[ood][score], ood)}
            for score in scores
            for ood in sets
        ]
        label, prediction, sure = rng.integers(0, 2, 300), rng.integers(0, 2, 300), rng.uniform(0.5, 1, 300)
        arrays["id"] |= {"label": label, "prediction": prediction, "confidence": sure}
        right = label == prediction
        images = {part: {"sha256": part, "side": 32, "n": SIZES[part], "of": SIZES[part]} for part in arrays}
        entry = {
            "date": "2026-11-26",
            "protocol": vars(protocol),
            "ood_data": "some",
            "max_eval_images": None,
            "id": {"accuracy": right.mean(), "ece": expected_calibration_error(sure, right), "n": 300},
            "rows": rows,
            "depends_on": {
                "weights": name,
                "id": images["id"],
                "ood": {ood: images[ood] for ood in sets},
                "references": ["train"],
                "scores": {score: score for score in scores},
            }
            | depends,
        }
        identity = {
            "method": {"name": method},
            "backbone": {"name": "wrn_40_2"},
            "id_data": {"name": "cifar10"},
            "parent": None if method == "ce" else "11111111",
            "seed": seed,
            "scale": "full",
        }
        save_json(tmp_path / name / "results.json", {"run": name, "identity": identity, "evaluations": [entry]})
        for part, own in arrays.items():
            save_arrays(tmp_path / name / f"scores/{part}.npz", own)
        return tmp_path / name

    return make


def test_seeds_are_one_side_and_images_are_drawn_once_for_all(run: Make) -> None:
    folders = [run(method, seed) for method in ("ce", "energy") for seed in (1, 2)]
    record = compare(folders, resamples=25)
    sides = [(tuple(side["runs"]), side["score"]) for side in record["sides"]]
    ce, energy = (tuple(folder.name for folder in pair) for pair in (folders[:2], folders[2:]))
    assert set(sides) == {(ce, "msp"), (ce, "energy"), (energy, "energy")}
    found = {(sides[d["first"]], sides[d["second"]], d["ood"]): d for d in record["differences"]}
    mean = found[(ce, "energy"), (energy, "energy"), "mean"]
    assert mean["over"] == ["blobs", "faces"]
    rows = [{(r["score"], r["ood"]): r for r in read_record(f)["evaluations"][0]["rows"]} for f in folders]
    points = [np.mean([own["energy", ood]["auroc"] for ood in ("blobs", "faces")]) for own in rows]
    assert mean["auroc"][0] == pytest.approx(np.mean(points[:2]) - np.mean(points[2:]))
    arrays = [dict(np.load(folder / "scores/id.npz")) for folder in folders]
    generator = np.random.default_rng([0])
    drawn = [generator.integers(0, 300, 300) for _ in range(25)]
    right = [(own["label"] == own["prediction"]).astype(float) for own in arrays]
    differences = [np.mean([y[i].mean() for y in right[:2]]) - np.mean([y[i].mean() for y in right[2:]]) for i in drawn]
    ((first, second, _), of_id), *others = [(key, d) for key, d in found.items() if key[2] == "id"]
    assert not others and (first[0], second[0]) == (ce, energy)
    assert of_id["accuracy"][1:] == pytest.approx(list(np.quantile(differences, [0.025, 0.975])))
    assert of_id["ece"][1] < of_id["ece"][0] < of_id["ece"][2]


def test_calibration_with_ood_images_is_compared_where_its_confidences_are_kept(run: Make) -> None:
    def facts(temperature: float | None, **errors: float) -> dict[str, Any]:
        return {"temperature": temperature, "rows": [{"ood": ood, "rms": rms} for ood, rms in errors.items()]}

    folders = [run(method, 1) for method in ("ce", "energy")]
    known = [json.loads((folder / "results.json").read_text()) for folder in folders]

    def compared(*both: dict[str, Any]) -> list[dict[str, Any]]:
        for folder, record, own in zip(folders, known, both, strict=True):
            record["evaluations"][0]["calibration"] = own
            save_json(folder / "results.json", record)
            arrays = {path.stem: dict(np.load(path)) for path in (folder / "scores").iterdir()}
            for part, kept in arrays.items():
                save_arrays(folder / f"scores/{part}.npz", {**kept, "msp": 1 / (1 + np.exp(-kept["energy"]))})
        return [d for d in compare(folders, resamples=5)["differences"] if "rms" in d]

    found = compared(facts(None, blobs=0.3, faces=0.2), facts(None, blobs=0.1))
    assert [d["ood"] for d in found] == ["blobs", "mean"] and found[1]["over"] == ["blobs"]
    assert found[0]["rms"][0] == found[1]["rms"][0] == pytest.approx(0.2)
    assert compared(facts(None, blobs=0.3), facts(1.5, blobs=0.1)) == []


def test_each_pair_is_compared_on_the_sets_that_both_have(run: Make) -> None:
    record = compare([run("ce", 1), run("energy", 1, ("faces",))], resamples=5)
    over = {tuple(d["over"]) for d in record["differences"] if d["ood"] == "mean"}
    assert over == {("blobs", "faces"), ("faces",)}


def test_runs_that_no_claim_compares_are_compared_under_each_score_of_both(run: Make) -> None:
    record = compare([run("energy", 1), run("supcon", 1)], resamples=5)
    sides = [(side["runs"][0].split("-")[0], side["score"]) for side in record["sides"]]
    pairs = {(sides[d["first"]], sides[d["second"]]) for d in record["differences"]}
    assert pairs == {(("energy", score), ("supcon", score)) for score in ("msp", "energy")}
    assert {d["ood"] for d in record["differences"]} == {"blobs", "faces", "mean", "id"}


def test_the_command_leaves_a_record_that_verdicts_are_made_by(
    run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [run(method, 1) for method in ("ce", "energy")]
    assert main([*map(str, folders), "--resamples", "50", "--results", str(tmp_path / "kept")]) == 0
    path = tmp_path / "kept/paired-full-energy-wrn_40_2-cifar10-some.json"
    assert str(path) in capsys.readouterr().out
    verdicts = verdicts_of([read_record(folder) for folder in folders], read_paired(path.parent))
    own = {v.claim.key: v for v in verdicts if v.scale == "full"}
    (found,) = own["fine_tuning_beats_energy"].found
    assert (found.how, found.verdict) == (PAIRED, REPRODUCED)
    assert own["fine_tuning_keeps_accuracy"].found[0].how == PAIRED
    assert [f.how for f in own["energy_beats_softmax"].found] == [PAIRED]


def test_what_cannot_be_compared_is_refused(run: Make, tmp_path: Path) -> None:
    first = run("ce", 1)
    other = run("energy", 1, id={"sha256": "other", "side": 32, "n": 300, "of": 300})
    with pytest.raises(ConfigError, match="were evaluated on other images of id"):
        compare([first, other])
    with pytest.raises(ConfigError, match="there is nothing to compare"):
        compare([run("energy", 1), run("energy", 2)])
    with pytest.raises(ConfigError, match="share no evaluation by one protocol on others; there is energy on some"):
        compare([first], ood_data="others")
    with pytest.raises(ConfigError, match="share no evaluation by protocol oe"):
        compare([first], "oe")
    with pytest.raises(MissingDataError, match="does not exist"):
        compare([tmp_path / "nothing"])
    path = first / "results.json"
    known = json.loads(path.read_text())
    del known["evaluations"][0]["depends_on"]
    save_json(path, known)
    with pytest.raises(ConfigError, match="does not say what its figures depend on: evaluate it again"):
        compare([first])
