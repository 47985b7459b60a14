"""results/: its records by what they say of themselves, and the index that says what made each of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from farout.engine.progress import say
from farout.errors import ConfigError, MissingDataError
from farout.files import load_object, save_json
from farout.report.blocks import pipe_table
from farout.report.records import PAIRED, SENSITIVITY, Record, is_run_record, name_of, read_record
from farout.reproduce.command_lines import EXPERIMENTS, command_of
from farout.reproduce.trials import Trial

PAPER_OF = {"cider": "cider", "supcon": "cider", "jem": "jem"}  # method -> the one paper that has it
SYNTHETIC = ("gaussian", "rademacher", "blobs", "interp")  # generated from a seed: there is no file to hash


def read_files(folder: Path) -> list[Record]:
    """Every run's record below a folder, each with its `file` name; raises MissingDataError where it is absent."""
    if not folder.is_dir():
        raise MissingDataError(f"there is no folder {folder}: name one with records")
    return [{**read_record(path), "file": path.name} for path in sorted(folder.glob("*.json")) if is_run_record(path)]


def read_paired(folder: Path) -> list[dict[str, Any]]:
    """Every comparison of runs below a folder; raises ConfigError for a file that is none."""
    found = []
    for path in sorted(folder.glob(f"{PAIRED}*.json")):
        record = load_object(path, "compare the runs again: python scripts/compare.py RUN RUN")
        if not {"protocol", "ood_data", "max_eval_images", "sides", "differences"} <= record.keys():
            raise ConfigError(f"{path} is no comparison of runs: make it again, python scripts/compare.py RUN RUN")
        found.append({**record, "file": path.name})
    return found


def read_sensitivity(folder: Path) -> list[dict[str, Any]]:
    """Every sweep of one knob at a time below a folder; raises ConfigError for a file that is none."""
    found = []
    for path in sorted(folder.glob(f"{SENSITIVITY}*.json")):
        record = load_object(path, "sweep again: make reproduce-energy-margins")
        if not {"points", "usual", "chosen", "scale"} <= record.keys():
            raise ConfigError(f"{path} is no record of a sweep: make it again, make reproduce-energy-margins")
        found.append({**record, "file": path.name})
    return found


def index(records: Sequence[Record], paired: Sequence[Mapping[str, Any]] = ()) -> str:
    """A line for each record: what it is, what made it, and what it lacks of what newer ones have."""
    head = ["record", "what", "scale", "seed", "trained on, date, commit", "evaluated on, date, commit", "by", "lacks"]
    lines = [_line(record) for record in records]
    for record in paired:
        rule = record["protocol"]["name"]
        what = f"paired intervals of {len(record['differences'])} differences; {rule} on {record['ood_data']}"
        runs = " ".join(f"outputs/runs/{run['run']}" for run in record["runs"])
        lines.append([_link(record["file"]), what, "", "", "", _stamp(record), f"`scripts/compare.py {runs}`", ""])
    return pipe_table(head, lines)


def _line(record: Record) -> list[str]:
    trials = [Trial(record, entry) for entry in record["evaluations"]]
    last, identity = trials[-1], record["identity"]
    scores = {row["score"] for trial in trials for row in trial.entry["rows"]}
    protocols = dict.fromkeys(f"{t.entry['protocol']['name']} on {t.entry.get('ood_data')}" for t in trials)
    outliers = f", outliers {name_of(identity['outliers'])}" if identity.get("outliers") else ""
    what = f"{last.id_data}, {name_of(identity['backbone'])}, {name_of(identity['method'])}{outliers}"
    what += f"; {len(scores)} scores; {', '.join(protocols)}" + "".join(f"; {key}" for key in _beside(record))
    what += "".join(f"; weights rounded to {kind} before evaluation" for kind in rounded_to(record))
    stamps = dict.fromkeys(_stamp(trial.entry) for trial in trials)
    trained = "others" if last.imported else _stamp(record.get("trained") or {})
    seed = "" if last.imported else str(last.seed)
    made = f"`{command_of(last)}`"
    return [
        _link(record["file"]),
        what,
        _scale(last),
        seed,
        trained,
        "<br>".join(stamps),
        made,
        ", ".join(lacks(record)),
    ]


def _link(file: str) -> str:
    return f"[{file.removesuffix('.json')}]({file})"


def _scale(trial: Trial) -> str:
    return f"{trial.identity.get('scale')}, from others' weights" if trial.from_others else trial.scale


def _beside(record: Record) -> list[str]:
    return [key for key in ("samples", "robustness") if key in record]


def _stamp(facts: Mapping[str, Any]) -> str:
    commit = str(facts.get("commit") or "")
    return ", ".join(filter(None, (str(facts.get("device") or ""), str(facts.get("date") or "")[:10], commit)))


def rounded_to(record: Record) -> list[str]:
    """The precisions that the weights were kept in on their way here, where they were rounded."""
    files = [file for adopted in record.get("adopted") or () for file in adopted.get("files", ())]
    return list(dict.fromkeys(kind for file in files for kind in file.get("rounded") or {}))


def lacks(record: Record) -> list[str]:
    """What a record does not say of its figures: device, commit, hashes of the data, what they depend on, intervals."""
    trial = Trial(record, record["evaluations"][-1])
    stamps = [record.get("trained") or {}, trial.entry]
    missing = [key for key in ("device", "commit", "date") if any(not stamp.get(key) for stamp in stamps)]
    data = record.get("data") or {}
    hashed = trial.imported or (data.get("labelled") or {}).get("sha256")
    missing += [] if hashed else ["hash of the training images"]
    drawn = all(row.get("sha256") or row.get("ood") in SYNTHETIC for row in trial.entry["rows"])
    missing += [] if drawn and (trial.entry["id"].get("info") or {}).get("sha256") else ["hashes of the test images"]
    missing += [] if "depends_on" in trial.entry else ["what it depends on"]
    missing += [] if any("paired" in entry for entry in record["evaluations"]) else ["paired intervals"]
    return missing


def keep_record(record: Record, folder: Path, label: str | None = None) -> None:
    """The ledger's copy of results.json: the latest evaluation under each protocol, list of sets and limit of images.

    What the ledger already has of the same weights stays where this record has nothing newer: weights travel, and are
    evaluated on more than one machine. `label` begins the file's name; without one it is the scale, or "literature" for
    a network that others trained, and the paper, where it is not Energy or Outlier Exposure: whose experiment it is, or
    which alone has its method. What went on from a trained network says so, as a table's records do.
    """
    path = folder / f"{label or _label(record)}-{record['run']}.json"
    known = read_record(path) if path.is_file() else record
    if not _same_weights(known, record):
        say(f"note: {path.name} was the record of another training under that name, and is replaced")
        known = record
    latest = {
        (entry["protocol"]["name"], entry["ood_data"], entry.get("max_eval_images")): entry
        for entry in (*known["evaluations"], *record["evaluations"])
    }
    save_json(path, {**known, **record, "evaluations": list(latest.values())})
    say(f"recorded: {path}")


def _label(record: Record) -> str:
    trial = Trial(record, record["evaluations"][-1])
    stated = trial.identity.get("scale")
    goes_on = not trial.imported and stated is not None and trial.scale != stated
    scale = str(stated) if goes_on else trial.scale
    return "_".join(filter(None, (scale, _paper_of(record), "from_trained" if goes_on else None)))


def _paper_of(record: Record) -> str | None:
    """CIDER or JEM; None for what belongs to Energy or Outlier Exposure, or to nobody."""
    files = (record.get("composition") or {}).get("files", ())
    asked = [file.split("/")[1] for file in files if file.startswith("experiment/")]
    if asked and asked[-1] in EXPERIMENTS:
        return asked[-1] if asked[-1] in PAPER_OF.values() else None
    return PAPER_OF.get(str(name_of(record["identity"]["method"])))


def _same_weights(one: Record, other: Record) -> bool:
    """Whether two records are of one training, or of one file that others trained."""
    if one["identity"] != other["identity"]:
        return False
    told = ("date", "commit", "device", "seconds", "steps")
    ours = name_of(one["identity"]["method"]) != "imported"
    return not ours or all(one["trained"].get(key) == other["trained"].get(key) for key in told)
