"""An offline W&B run, read back from its own file."""

import json
from pathlib import Path

import pytest

from wandb_files import Record, items, of_kind, records

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def folder(finished_run) -> Path:
    (found,) = finished_run[0].glob("runs/energy-*")
    return found


@pytest.fixture(scope="module")
def log(folder) -> list[Record]:
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    return records(path)


def test_config(log, folder):
    (run,) = of_kind(log, "run")
    assert run.run_id == folder.name
    assert run.project == "farout"
    config = {entry.key: json.loads(entry.value_json) for entry in run.config.update}
    identity = json.loads((folder / "run.json").read_text())["identity"]
    for key, value in identity.items():
        assert config[key] == value
    assert config["scale"] == "smoke"
    assert config["trainer"]["log_every"] == 1


def test_curves(log, folder):
    points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    logged = [item for item in items(log, "history") if "train/total" in item]
    assert [item["step"] for item in logged] == [1, 2, 3]
    for item, point in zip(logged, points, strict=True):
        for key in ("train/total", "train/energy_margin", "lr"):
            assert item[key] == pytest.approx(point[key])


def test_final_metrics_of_every_set(log, folder):
    summary = {key: value for update in items(log, "summary") for key, value in update.items()}
    for entry in json.loads((folder / "results.json").read_text())["evaluations"]:
        assert summary["id/accuracy"] == pytest.approx(entry["id"]["accuracy"])
        for row in entry["rows"]:
            for metric in ("fpr95", "auroc", "aupr"):
                key = f"{entry['protocol']['name']}/{row['score']}/{row['ood']}/{metric}"
                assert summary[key] == pytest.approx(row[metric])
        for mean in entry["means"]:
            key = f"{entry['protocol']['name']}/{mean['score']}/mean/fpr95"
            assert summary[key] == pytest.approx(mean["fpr95"])


def test_table_and_plots(log, folder):
    (offline,) = folder.glob("wandb/offline-run-*")
    files = {file.path for record in log if record.WhichOneof("record_type") == "files" for file in record.files.files}
    (table,) = (path for path in files if path.startswith("media/table/results"))
    content = json.loads((offline / "files" / table).read_text())
    entries = json.loads((folder / "results.json").read_text())["evaluations"]
    assert content["columns"][:3] == ["protocol", "score", "ood"]
    assert len(content["data"]) == sum(len(entry["rows"]) for entry in entries)
    for plot in ("histogram_msp", "histogram_energy", "roc_msp", "roc_energy"):
        (image,) = (path for path in files if path.startswith(f"media/images/plots/{plot}"))
        assert (offline / "files" / image).read_bytes().startswith(b"\x89PNG")
    assert any(record.WhichOneof("record_type") == "exit" and record.exit.exit_code == 0 for record in log)
