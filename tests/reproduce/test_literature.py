"""Tables of every score, of our networks and of others': signs, order, marks and sets follow from the records."""

from typing import Any

from farout.reproduce.literature import literature_tables
from farout.reproduce.score_tables import score_tables

FACTS = {"date": "2026-11-27T00:00", "commit": "abc", "device": "CPU"}
IDENTITY = {
    "method": {"name": "imported"},
    "backbone": {"name": "densenet100"},
    "id_data": {"name": "cifar10"},
    "seed": 0,
    "scale": "full",
}
FPR95 = {"plain": {"msp": (0.6, 0.4), "energy": (0.5, 0.2)}, "oecc_tuned": {"msp": (0.3, 0.3), "energy": (0.2, 0.2)}}


def _record(name: str, sets: str = "genuine", limit: int | None = None) -> dict[str, Any]:
    rows = [
        {"score": score, "ood": ood, "title": ood.upper(), "fpr95": value, "auroc": 0.9, "aupr": 0.5, "pi": 0.5}
        for score, values in FPR95[name].items()
        for ood, value in zip(("mnist", "faces"), values, strict=True)
    ]
    lead = {"first": "energy", "second": "msp", "ood": "mean", "fpr95": [-0.15, -0.2, -0.1]}
    entry = {
        **FACTS,
        "protocol": {"name": "energy"},
        "ood_data": sets,
        "max_eval_images": limit,
        "id": {"accuracy": 0.95 if name == "plain" else 0.94, "ece": 0.02, "info": {"title": "CIFAR-10"}},
        "rows": rows,
        "paired": {"differences": [lead]},
    }
    return {"run": f"imported-{name}", "file": f"{name}.json", "identity": IDENTITY, "evaluations": [entry]}


def _comparison(first: str, second: str) -> dict[str, Any]:
    names = [f"imported-{name}" for name in (first, second)]
    sides = [{"runs": [name], "score": score} for name in names for score in ("msp", "energy")]
    sign = 1 if first == "plain" else -1
    of_mean = [0.2, 0.1, 0.35] if sign > 0 else [-0.2, -0.35, -0.1]
    differences = [
        {"first": 0, "second": 2, "ood": "mnist", "fpr95": [sign * 0.3, sign * 0.3, sign * 0.3]},
        {"first": 0, "second": 2, "ood": "mean", "fpr95": of_mean, "over": ["mnist", "faces"]},
        {"first": 0, "second": 2, "ood": "id", "accuracy": [sign * 0.01] * 3, "ece": [0.0, 0.0, 0.0]},
    ]
    facts = {"protocol": {"name": "energy"}, "ood_data": "genuine", "max_eval_images": None, "file": "paired-x.json"}
    return {**FACTS, **facts, "runs": [{"run": n} for n in names], "sides": sides, "differences": differences}


def test_sets_under_their_own_names_come_first_and_networks_with_outliers_are_marked() -> None:
    records = [_record("oecc_tuned"), _record("plain", "stand_in"), _record("plain", limit=2000), _record("plain")]
    text = literature_tables(records, [], "results")
    headings = [line.split("sets of ")[1] for line in text.splitlines() if line.startswith("###")]
    assert headings == ["`genuine`", "`genuine`, at most 2000 images of each", "`stand_in`"]
    lines = [line for line in text.splitlines() if "plain" in line or "oecc_tuned" in line]
    assert lines[0] == "| [plain](results/plain.json) (95.00 % right, 2.00 % ECE) | 50.0 / 90.0 | 35.0 / 90.0 |"
    assert lines[1].startswith("| [oecc_tuned *](results/oecc_tuned.json) (94.00 % right")
    assert lines[2] == "| plain | -15.0 [-20.0, -10.0] |"


def test_what_the_tuned_network_has_more_is_the_same_either_way_round() -> None:
    records = [_record("plain"), _record("oecc_tuned")]
    one, other = (
        literature_tables(records, [_comparison(*names)])
        for names in (("plain", "oecc_tuned"), ("oecc_tuned", "plain"))
    )
    assert one == other
    assert "### CIFAR-10: plain and oecc_tuned *, sets of `genuine`" in one
    assert "| MNIST | 60.0 | 30.0 | -30.0 [-30.0, -30.0] |" in one
    assert "| **mean** | 50.0 | 30.0 | -20.0 [-35.0, -10.0] |" in one
    assert "accuracy 95.00 % and 94.00 %, difference -1.0 [-1.0, -1.0]" in one
    assert "energy, first" not in one, "only what was compared"


def test_a_comparison_of_runs_without_records_is_left_out() -> None:
    assert literature_tables([_record("plain")], [_comparison("plain", "oecc_tuned")]).count("###") == 1


def test_networks_of_ours_are_compared_on_the_sets_that_all_have() -> None:
    own, other = (_record(name) for name in FPR95)
    for record, method in ((own, "ce"), (other, "oe")):
        record["identity"] = {**IDENTITY, "method": {"name": method}, "seed": 3}
        (entry,) = record["evaluations"]
        measures = {"rms": 0.125, "mad": 0.1, "soft_f1": None}
        entry["calibration"] = {"temperature": None, "id": measures, "rows": [{"ood": "mnist", **measures}]}
    other["evaluations"][0]["rows"] = [row for row in other["evaluations"][0]["rows"] if row["ood"] == "mnist"]
    lines = score_tables([own, other], folder="results").splitlines()
    assert "| [ce, seed 3](results/plain.json) (95.00 % right, 2.00 % ECE) | 60.0 / 90.0 | 50.0 / 90.0 |" in lines
    assert "over MNIST (sets of one kind" in lines[2]
    assert lines[lines.index("|  | ce, seed 3 | oe, seed 3 |") + 2 :][:3] == [
        "| ID images alone | 12.5 / - | 12.5 / - |",
        "| with MNIST | 12.5 / - | 12.5 / - |",
        "| with FACES | - | - |",
    ]
    assert score_tables([own, other], scale="small") == ""
