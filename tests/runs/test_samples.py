"""What a finished JEM run generates: the images, their sources and streams, the measures, and the command."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from safetensors.torch import load_file
from torch import Tensor

from farout.config.compose import compose_settings
from farout.data import DataPaths, open_dataset
from farout.data.streams import stable_seed
from farout.errors import ConfigError, FaroutError, MissingDataError
from farout.metrics.generation import frechet_distance, inception_score
from farout.report.page.samples import quality_lines
from farout.runs import sample_quality
from farout.runs.run import Run, open_run
from farout.runs.sample_quality import frechet_facts, inception_facts, surest
from farout.runs.samples import PER_CLASS, Sampler, Samples, Sampling, class_names, jem_of
from farout.runs.training import train
from script_loader import load_script
from wandb_files import items, of_kind, records

CPU = torch.device("cpu")
TINY = ["scale=smoke", "id_data=digits", "logger=none", "evaluate=false"]
JEM_RUN = ["method=jem", "backbone=wrn_10_2_jem", "buffer_size=105", "sgld_steps=3"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """A finished JEM run and a finished classifier, three steps each; no test may change them."""
    outputs = tmp_path_factory.mktemp("finished")
    for words in (JEM_RUN, ["method=ce", "backbone=resnet20"]):
        settings = compose_settings((*TINY, *words))
        train(replace(settings, paths=replace(settings.paths, outputs=str(outputs))))
    jem, classifier = (next((outputs / "runs").glob(f"{name}-*")) for name in ("jem", "ce"))
    return open_run(jem), open_run(classifier)


@pytest.fixture
def sampler(runs: tuple[Run, Run]) -> Callable[..., Sampler]:
    return lambda **asked: Sampler(runs[0], Sampling(**asked), CPU)


def content(folder: Path) -> dict[str, str]:
    """Digest of every file of a run but its samples."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "samples"]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def as_pixels(images: Tensor) -> Tensor:
    return (127.5 * (images.clamp(-1, 1) + 1)).round().to(torch.uint8)


def test_the_command_writes_everything_and_changes_nothing(
    runs: tuple[Run, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jem, classifier = runs
    (jem.folder / "report.html").write_text("as it was")  # of a run that was never evaluated: it cannot be renewed
    before = content(jem.folder)
    assert "method.safetensors" in {Path(name).name for name in before}
    words = [str(jem.folder), "--rounds", "2", "--steps", "2", "--by-class", "--chain", "--chain-steps", "3"]
    words += ["--features", str(classifier.folder), "--reference-images", "40", "--device", "cpu"]
    words += ["--inception", str(tmp_path / "absent.pth")]
    assert load_script("sample").main(words) == 0
    assert content(jem.folder) == before
    said = capsys.readouterr().out
    assert "note: report.html stays as it was" in said
    (jem.folder / "report.html").unlink()
    assert "105 samples" in said and "no IS, no FID" in said and f"features of {classifier.name}" in said
    folder = jem.folder / "samples"
    wanted = {"samples.png", "predicted_class.png", "class_chains.png", "chain.png", "samples.npz", "samples.json"}
    assert wanted <= {path.name for path in folder.iterdir()}
    with np.load(folder / "samples.npz", allow_pickle=False) as file:
        assert file["images"].shape == (105, 3, 32, 32) and file["images"].dtype == np.uint8
        assert file["by_class"].shape == (7 * PER_CLASS, 3, 32, 32)
        assert file["chain_steps"].tolist() == [0, 1, 2, 3] and file["chain"].shape[0] == 6 * 4
    known = json.loads((folder / "samples.json").read_text())
    assert known["sampling"]["rounds"] == 2 and known["sampling"]["n"] == 105
    assert known["inception"].keys() == {"reason"}
    assert known["frechet_distance"]["features"] == classifier.name


def test_wandb_gets_them_into_the_runs_own_run(runs: tuple[Run, Run], tmp_path: Path) -> None:
    folder = tmp_path / runs[0].name
    shutil.copytree(runs[0].folder, folder)
    assert load_script("sample").main([str(folder), "--device", "cpu", "--logger", "wandb", "csv"]) == 0
    wandb.teardown()  # or what it writes may not be in its file yet
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    log = records(file)
    (run,) = of_kind(log, "run")
    assert (run.run_id, run.job_type) == (folder.name, "sample")
    assert any(name.startswith("samples/samples") for item in items(log, "history") for name in item)
    assert open_run(folder).record["wandb"]["id"] == folder.name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--logger", "nope"], "--logger: invalid choice"),
        (["absent"], "is not a run folder"),
        (["--rounds", "-1"], "--rounds -1 must be at least 0"),
        (["--from", "noise", "--rounds", "0"], "leaves noise"),
        (["--reinit", "1.5"], "--reinit 1.5 must be at most 1"),
        (["--batch-size", "0"], "--batch-size 0 must be at least 1"),
        (["--reference-images", "2"], "2 must be at least 4"),
        (["--features", "absent"], "is not a run folder"),
    ],
)
def test_what_the_command_refuses(
    runs: tuple[Run, Run], words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words if words == ["absent"] else [str(runs[0].folder), *words]
    assert load_script("sample").main(given) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_runs_that_make_no_images(runs: tuple[Run, Run], tmp_path: Path) -> None:
    jem, classifier = runs
    with pytest.raises(FaroutError, match="method=ce, which makes no images"):
        jem_of(classifier)
    with pytest.raises(FaroutError, match="no finished run"):
        jem_of(Run(tmp_path, jem.identity))
    (tmp_path / "weights.safetensors").touch()
    with pytest.raises(FaroutError, match="its replay buffer"):
        jem_of(Run(tmp_path, jem.identity))


def test_the_buffer_as_it_is(runs: tuple[Run, Run], sampler: Callable[..., Sampler]) -> None:
    saved = load_file(runs[0].method_state)["replay_buffer.images"]
    samples = sampler().draw()
    assert torch.equal(samples.images, as_pixels(saved))
    with torch.inference_mode():
        logits = runs[0].model(CPU)(saved)
    assert torch.equal(samples.predictions, logits.argmax(1))
    torch.testing.assert_close(samples.confidence, logits.softmax(1).amax(1))
    assert samples.facts["n"] == 105 and "steps" not in samples.facts


def test_rounds_are_those_of_training(runs: tuple[Run, Run], sampler: Callable[..., Sampler]) -> None:
    """Draw, refine, put back: as JEM.sample does it, from the same stream."""
    found = sampler(rounds=3, steps=2, reinit=0.3, batch_size=20, seed=5).draw()
    method, model = jem_of(runs[0]), runs[0].model(CPU)
    method.steps, method.replay_buffer.reinit_freq = 2, 0.3
    torch.manual_seed(stable_seed(5, "samples", "rounds"))
    for _ in range(3):
        method.sample(model, 20)
    assert torch.equal(found.images, as_pixels(method.replay_buffer.images))


def test_a_seed_decides_everything_and_the_callers_random_numbers_stay(sampler: Callable[..., Sampler]) -> None:
    asked: dict[str, Any] = {"source": "noise", "rounds": 2, "steps": 2, "count": 30, "chain_steps": 1}
    one = sampler(**asked)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first = (one.draw().images, one.by_class(), one.step_by_step()[0])
    assert torch.equal(torch.rand(4), expected)
    two = sampler(**asked)  # in another order, so that none depends on those before
    again = (two.step_by_step()[0], two.by_class(), two.draw().images)[::-1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    other = sampler(**asked, seed=1)
    assert not torch.equal(other.draw().images[:10], first[0][:10])
    assert not torch.equal(other.by_class(), first[1])


def test_rows_that_no_chain_reached_are_no_samples(sampler: Callable[..., Sampler]) -> None:
    samples = sampler(source="noise", rounds=2, steps=1, count=50, batch_size=4).draw()
    assert 4 <= len(samples.images) <= 8
    assert samples.facts["never_drawn"] == 50 - len(samples.images)


def test_chains_by_class_ascend_their_class(runs: tuple[Run, Run], sampler: Callable[..., Sampler]) -> None:
    """Against the same noise, from the same stream, that was refined towards nothing."""
    own = sampler(chain_steps=4, batch_size=32)
    own.method.sgld_lr = 100.0  # three steps of training leave gradients of a thousandth of a pixel
    refined = own.by_class()
    own.method.sgld_lr = 1e-9
    start = own.by_class()
    labels = torch.arange(7).repeat_interleave(PER_CLASS)
    model = runs[0].model(CPU)

    def log_p(images: Tensor) -> Tensor:
        logits = model(images.float() / 127.5 - 1)
        return logits.log_softmax(1).gather(1, labels[:, None]).view(7, PER_CLASS).mean(1)

    with torch.inference_mode():
        assert (log_p(refined) > log_p(start)).all()


def test_a_chain_shown_in_steps_is_one_chain(runs: tuple[Run, Run], sampler: Callable[..., Sampler]) -> None:
    images, steps = sampler(chain_steps=7, seed=2).step_by_step()
    assert steps == [0, 1, 2, 5, 7]
    method, model = jem_of(runs[0]), runs[0].model(CPU)
    torch.manual_seed(stable_seed(2, "samples", "steps"))
    start = torch.empty(6, 3, 32, 32).uniform_(-1, 1)
    rows = images.view(6, 5, 3, 32, 32)
    assert torch.equal(rows[:, 0], as_pixels(start))
    assert torch.equal(rows[:, -1], as_pixels(method.refine(model, start, 7)))


def test_class_conditional_runs_are_sampled_by_class(
    sampler: Callable[..., Sampler], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = sampler(source="noise", rounds=2, steps=1, count=70, batch_size=40)
    own.by_label, seen = True, []
    monkeypatch.setattr(own.method, "refine", lambda model, x, steps, labels: seen.append(labels) or x + labels[0] * 0)
    monkeypatch.setattr("farout.runs.samples.ReplayBuffer.write", lambda self, rows, x: seen.append(rows))
    assert own.draw().facts["by_label"] is True
    for labels, rows in zip(seen[::2], seen[1::2], strict=True):
        assert torch.equal(rows // 10, labels) and len(labels.unique()) > 3
    odd = sampler(source="noise", rounds=1, count=50)
    odd.by_label = True
    with pytest.raises(ConfigError, match="multiple of the 7 classes"):
        odd.draw()


def test_chains_that_diverge_are_an_error(sampler: Callable[..., Sampler]) -> None:
    own = sampler(rounds=1, steps=1, batch_size=3)
    own.method.sgld_lr = float("inf")
    with pytest.raises(FaroutError, match="of 105 chains ended in NaN or infinity"):
        own.draw()


def test_class_names(runs: tuple[Run, Run], data_paths: DataPaths, tmp_path: Path) -> None:
    assert class_names(runs[0], data_paths) == ["0", "1", "2", "4", "5", "6", "7"]
    cifar = replace(runs[0], identity={**runs[0].identity, "id_data": {"name": "cifar10", "num_classes": 2}})
    assert class_names(cifar, DataPaths(tmp_path, None, data_paths.conf)) == ["class 0", "class 1"]


def made(images: Tensor, predictions: list[int], confidence: list[float]) -> Samples:
    return Samples(images, torch.tensor(predictions), torch.tensor(confidence), {})


def test_the_surest_of_each_class() -> None:
    confidence = torch.linspace(0.5, 0.9, 40)[torch.randperm(40, generator=torch.Generator().manual_seed(0))]
    samples = made(torch.zeros(40, 3, 1, 1), [3] * 30 + [1] * 9 + [0], confidence.tolist())
    rows = surest(samples, 0.1)
    assert rows.tolist() == [39, 30 + int(confidence[30:39].argmax()), *confidence[:30].topk(3).indices.tolist()]
    assert len(surest(samples, 0.9)) == 27 + 9 + 1 and len(surest(samples, 1.0)) == 40


def fake_inception(images: Tensor) -> tuple[Tensor, Tensor]:
    features = images.float().mean(dim=(2, 3))
    return features, features.double().softmax(1)


def test_is_and_fid_are_of_their_subsets(
    runs: tuple[Run, Run], data_paths: DataPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_quality, "load_inception", lambda weights, device: fake_inception)
    monkeypatch.setattr(sample_quality, "PER_SPLIT", 4)
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"weights")
    images = torch.randint(0, 256, (200, 3, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    samples = made(images, [0, 1] * 100, torch.linspace(0.2, 0.9, 200).tolist())
    facts = inception_facts(samples, runs[0], data_paths, weights, CPU, 50, 0)
    features, probabilities = fake_inception(images)
    score, fid = facts["inception_score"], facts["fid"]
    assert (score["n"], score["splits"], fid["n"]) == (20, 5, 180)
    assert "10 %" in score["subset"] and "90 %" in fid["subset"]
    assert 1 < score["mean"] < inception_score(probabilities[-20:])[0]  # more splits, fewer images to tell apart
    sets = [open_dataset("digits", split, data_paths) for split in ("train", "test")]
    real = torch.cat([s.images[np.linspace(0, len(s) - 1, 50).round().astype(int)] for s in sets])
    assert fid["value"] == pytest.approx(frechet_distance(features[20:], fake_inception(real)[0]), rel=1e-9)
    assert fid["reference"] == "50 digits train and 50 digits test"
    assert facts["inception_weights"]["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert [line.split()[0] for line in quality_lines({"inception": facts})] == ["IS", "FID"]
    monkeypatch.setattr(sample_quality, "PER_SPLIT", 5000)
    one = inception_facts(samples, runs[0], data_paths, weights, CPU, 50, 0)["inception_score"]
    assert (one["mean"], one["std"]) == pytest.approx((inception_score(probabilities[-20:])[0], 0.0))


def test_the_reason_for_no_is(
    runs: tuple[Run, Run], data_paths: DataPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(weights: Path, device: torch.device) -> None:
        raise MissingDataError(f"put it into {weights.name}")

    monkeypatch.setattr(sample_quality, "load_inception", absent)
    samples = made(torch.zeros(2, 3, 1, 1, dtype=torch.uint8), [0, 0], [1.0, 1.0])
    facts = inception_facts(samples, runs[0], data_paths, tmp_path / "w.pth", CPU, None, 0)
    assert facts == {"reason": "put it into w.pth"}
    assert quality_lines({"inception": facts}) == ["no IS, no FID: put it into w.pth"]


def test_the_distance_on_a_classifiers_own_features(runs: tuple[Run, Run], data_paths: DataPaths) -> None:
    jem, classifier = runs
    test = open_dataset("digits", "test", data_paths)
    samples = made(test.images[:60].clone(), [0] * 60, [1.0] * 60)
    facts = frechet_facts(samples, jem, classifier, data_paths, CPU, 60, 0)
    assert facts["features"] == classifier.name and facts["dimensions"] == 64
    assert facts["uniform_noise"]["value"] > 10 * facts["halves_of_test"]["value"] > 0
    assert [facts[name]["n"] for name in ("samples", "uniform_noise", "halves_of_test")] == [[60, 60]] * 2 + [[30, 30]]
    same = replace(samples, images=test.images[np.linspace(0, 377, 60).round().astype(int)])
    assert frechet_facts(same, jem, classifier, data_paths, CPU, 60, 0)["samples"]["value"] < 1e-6
    few = replace(samples, images=samples.images[:10])
    assert frechet_facts(few, jem, classifier, data_paths, CPU, 60, 0)["as_many_of_test"]["n"] == [10, 50]
