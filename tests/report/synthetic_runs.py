"""A folder of runs made up: three finished ones with scores per image, and others in every state of disrepair."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from synthetic_evidence import ENERGY, entry, head, key, scores

from farout.metrics.protocol import Protocol
from farout.report.marks import MARKS, encode_marks, marks_of

TITLES = ("SVHN", "iSUN")
SCORES = ("msp", "energy")
N = 2500  # more than the page keeps one by one
EVIL = '<img src=x onerror="alert(1)">'
NAMES = {
    "ce": "ce-net-cifar10-aaaa1111-s1",
    "oe": "oe-net-cifar10-bbbb2222-s1",
    "energy": "energy-net-cifar10-cccc3333-s1",
}


def depends(sets: tuple[str, ...]) -> dict[str, Any]:
    """What an entry's figures follow from."""

    def images(name: str) -> dict[str, Any]:
        return {"sha256": f"hash of {name}", "side": 32, "n": N, "of": N}

    return {
        "weights": "w",
        "id": images("cifar10"),
        "ood": {name: images(name) for name in sets},
        "references": [],
        "scores": {score: {} for score in SCORES},
    }


def values_of(method: str) -> dict[str, dict[str, Any]]:
    """set -> score -> (N,); OOD of fine-tuned runs lies lower."""
    found = scores(N, SCORES, TITLES)
    lower = {"ce": 0.0, "oe": 1.0, "energy": 2.5}[method]
    shifted = {"msp": lambda x: x - 0.1 * lower, "energy": lambda x: x - 3 * lower}
    sets = {name: {s: shifted[s](x) for s, x in own.items()} for name, own in found.items() if name != "id"}
    return {"id": found["id"], **sets}


def write_run(runs: Path, method: str, **more: Any) -> Path:
    """A finished run under two protocols; `more` updates run.json's identity."""
    folder = runs / NAMES[method]
    (folder / "scores").mkdir(parents=True)
    values = values_of(method)
    known = depends(tuple(map(key, TITLES)))
    entries = [entry(values, protocol, depends_on=known) for protocol in (ENERGY, Protocol("plain"))]
    identity = {
        "method": {"name": method}, "backbone": {"name": "net"}, "id_data": {"name": "cifar10"},
        "seed": 1, "parent": None if method == "ce" else "aaaa1111", **more,
    }  # fmt: skip
    record = {"run": folder.name, "identity": identity, "scale": "small", "trained": head()["trained"]}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "results.json").write_text(json.dumps({**record, "evaluations": entries}))
    for name, by_score in values.items():
        marks = encode_marks(marks_of(known, name))
        np.savez(folder / f"scores/{name}.npz", allow_pickle=False, **{**by_score, MARKS: marks})
    (folder / "weights.safetensors").touch()
    (folder / "report.html").touch()
    return folder


def write_all(outputs: Path) -> Path:
    """Every state that a folder below outputs/runs may be in."""
    runs = outputs / "runs"
    for method in NAMES:
        write_run(runs, method)
    record = json.loads((runs / NAMES["ce"] / "run.json").read_text())
    for name, files in {
        "trained-net": {"run.json": json.dumps(record), "weights.safetensors": ""},
        "begun-net": {"run.json": json.dumps(record)},
        f"{EVIL}": {"run.json": json.dumps({**record, "scale": EVIL})},
        "cut-record": {"run.json": '{"run": "x", "ident'},
        "cut-results": {"run.json": json.dumps(record), "results.json": '{"evaluations": [{'},
        "odd-results": {
            "run.json": json.dumps(record),
            "results.json": json.dumps({**record, "evaluations": [{"rows": 3}]}),
        },
        "list-record": {"run.json": "[1, 2]"},
        "empty": {},
        "ce-net.damaged": {"run.json": json.dumps(record)},
    }.items():
        (runs / name).mkdir()
        for file, text in files.items():
            (runs / name / file).write_text(text)
    (runs / ".locks").mkdir()
    (runs / "a file").touch()
    return outputs
