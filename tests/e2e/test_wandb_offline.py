"""An offline W&B run, read back from its own file."""

import json
from pathlib import Path

import pytest
import yaml

from wandb_files import Record, items, of_kind, records

ROOT = Path(__file__).resolve().parents[2]
TINY = ["id_data=digits", "backbone=resnet20", "scale=smoke", "evaluate=false"]

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


def as_an_agent_types_it(sweep: dict, chosen: dict[str, int]) -> list[str]:
    """The words of the command, its marks filled in as W&B documents them."""
    marks = {"${env}": ["/usr/bin/env"], "${program}": [sweep["program"]]}
    marks["${args_no_hyphens}"] = [f"{name}={value}" for name, value in chosen.items()]
    return [word for part in sweep["command"] for word in marks.get(part, [part])]


def test_the_command_of_a_wandb_sweep_has_its_metric_in_the_summary(python, tmp_path, monkeypatch):
    sweep = yaml.safe_load((ROOT / "conf/wandb_sweep.yaml").read_text())
    chosen = {name: space["min"] for name, space in sweep["parameters"].items()}
    env, program, script, *words = as_an_agent_types_it(sweep, chosen)
    assert (env, program, script) == ("/usr/bin/env", "python", "train.py") and (ROOT / script).is_file()
    offline = ["logger.mode=offline" if word == "logger.mode=online" else word for word in words]
    assert offline != words and not any("$" in word for word in words)
    done = python(script, *offline, *TINY, f"paths.outputs={tmp_path}")
    assert done.returncode == 0, done.stderr
    (run,) = tmp_path.glob("runs/energy-*")
    validation = json.loads((run / "run.json").read_text())["validation"]
    (path,) = run.glob("wandb/offline-run-*/*.wandb")
    summary = {key: value for update in items(records(path), "summary") for key, value in update.items()}
    assert sweep["metric"] == {"name": "validation/fpr95", "goal": "minimize"}
    assert summary["validation/fpr95"] == pytest.approx(validation["fpr95"])
    (name,) = [record.run.project for record in records(path) if record.WhichOneof("record_type") == "run"]
    assert name == sweep["project"]
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")  # where another agent chooses the same values
    monkeypatch.setenv("WANDB_RUN_ID", "agent2")
    assert "nothing left to do" in python(script, *offline, *TINY, f"paths.outputs={tmp_path}").stdout
    (again,) = run.glob("wandb/offline-run-*-agent2/*.wandb")
    summary = {key: value for update in items(records(again), "summary") for key, value in update.items()}
    assert summary["validation/fpr95"] == pytest.approx(validation["fpr95"])
    assert json.loads((run / "run.json").read_text())["wandb"]["id"] == run.name, "it stays the run that trained"


def test_a_sweep_is_one_table_of_a_run_of_its_own(cold_python, tmp_path):
    words = ["-m", "method=ce", "seed=1,-2", *TINY, "logger=wandb", "sweep=two", f"paths.outputs={tmp_path}"]
    assert cold_python("train.py", *words).returncode == 2  # W&B's folder for media is one of the process that loads it
    folder = tmp_path / "sweeps/two"
    (offline,) = folder.glob("wandb/offline-run-*")
    (path,) = offline.glob("*.wandb")
    (run,) = [record.run for record in records(path) if record.WhichOneof("record_type") == "run"]
    assert (run.run_id, run.run_group, run.job_type) == ("sweep-two", "two", "sweep")
    (table,) = offline.glob("files/media/table/sweep_*.json")
    content = json.loads(table.read_text())
    head, *lines = (folder / "sweep.csv").read_text().splitlines()
    assert content["columns"] == head.split(",")
    assert [row[content["columns"].index("state")] for row in content["data"]] == ["done", "failed"] and len(lines) == 2
