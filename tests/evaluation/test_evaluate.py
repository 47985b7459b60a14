"""Any classifier evaluated: the same figures as by hand, in every form that they are wanted in."""

from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

import farout
from farout.commands import evaluate_outputs as command
from farout.config.coerce import Component
from farout.config.settings import ROOT
from farout.detector import Detector
from farout.errors import FaroutError
from farout.evaluation.classifier import Classifier, all_scores
from farout.evaluation.evaluate import evaluate, evaluate_outputs
from farout.evaluation.results import Results, load_results
from farout.metrics import detection_metrics
from script_loader import load_script

VIM = Component("vim", "farout.scores.vim.ViM", {"dimension": 6})


@pytest.fixture(scope="module")
def noise() -> DataLoader:
    generator = torch.Generator().manual_seed(9)
    return DataLoader(TensorDataset(2 * torch.randn(33, 3, 24, 24, generator=generator)), batch_size=10)


@pytest.fixture(scope="module")
def results(
    net: nn.Module, labelled: TensorDataset, noise: DataLoader, photos: np.ndarray, transform: v2.Transform
) -> Results:
    sets = {"noise": noise, "photos": photos}
    classifier = Classifier(net, transform, device="cpu", batch_size=30)
    names = [name for name in all_scores() if name != "vim"]
    return evaluate(classifier, labelled, sets, [*names, VIM], train=labelled)


def test_all_scores_run_and_energy_is_what_it_is_by_hand(
    results: Results, net: nn.Module, labelled: TensorDataset, photos: np.ndarray, transform: v2.Transform
) -> None:
    assert not results.skipped and set(results.scores["id"]) == {*all_scores(), "vim_d6"} - {"vim"}
    inputs = torch.stack([transform(Image.fromarray(photo)) for photo in photos])
    net.eval()
    with torch.no_grad():
        logits, ood = net(labelled.tensors[0]), net(inputs)
    np.testing.assert_allclose(results.scores["photos"]["energy"], ood.logsumexp(1), rtol=1e-5)
    wanted = detection_metrics(logits.logsumexp(1), ood.logsumexp(1))
    (row,) = (row for row in results.rows if (row["ood"], row["score"]) == ("photos", "energy"))
    assert row["auroc"] == pytest.approx(wanted["auroc"], abs=1e-3)
    assert results.id["accuracy"] == (logits.argmax(1) == labelled.tensors[1]).double().mean()
    assert results.mean("energy")["auroc"] == pytest.approx(
        np.mean([row["auroc"] for row in results.rows if row["score"] == "energy"])
    )


def test_scores_that_step_on_the_image_are_scaled_by_the_transform(
    net: nn.Module, photos: np.ndarray, transform: v2.Transform, results: Results
) -> None:
    from farout.scores.odin import ODIN

    inputs = torch.stack([transform(Image.fromarray(photo)) for photo in photos])
    network = Classifier(net, transform, device="cpu").with_head("out").network
    found = ODIN().on_images(network, inputs, torch.tensor([0.2, 0.25, 0.3]))
    np.testing.assert_allclose(results.scores["photos"]["odin"], found, rtol=1e-7)


def test_what_cannot_be_computed_is_left_out_and_said(
    net: nn.Module, noise: DataLoader, capsys: pytest.CaptureFixture[str]
) -> None:
    images = torch.randn(40, 3, 24, 24)
    found = evaluate(Classifier(net, device="cpu"), images, {"noise": noise}, ["msp", "knn"])
    assert list(found.scores["id"]) == ["msp"] and "give train" in found.skipped["knn"]
    assert "skipped: score knn is fitted on training images" in capsys.readouterr().out
    assert found.id["accuracy"] is None and "no labels" in str(found)
    with pytest.raises(FaroutError, match="fitted on training images: give train"):
        evaluate(net, images, {"noise": noise}, "knn")
    with pytest.raises(FaroutError, match="there is no OOD set"):
        evaluate(net, images, {})
    with pytest.raises(FaroutError, match="score=nope is not there: choose from"):
        evaluate(net, images, {"noise": noise}, "nope")
    with pytest.raises(FaroutError, match="protocol=nope is not there: choose from cider"):
        evaluate(net, images, {"noise": noise}, protocol="nope")
    with pytest.raises(FaroutError, match="noise: there is no image"):
        evaluate(net, images, {"noise": []})


class Grey(nn.Module):
    """One channel in, and a head without a bias."""

    def __init__(self, through: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.through, self.out = through or nn.Identity(), nn.Linear(24, 4, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.out(self.through(self.body(images)))


class Cut(nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.detach()


@pytest.fixture(scope="module")
def grey() -> TensorDataset:
    return TensorDataset(torch.rand(60, 1, 12, 12, generator=torch.Generator().manual_seed(1)), torch.arange(60) % 4)


def test_every_score_takes_a_network_of_one_channel_whatever_its_transform(grey: TensorDataset) -> None:
    torch.manual_seed(4)
    network, dark = Classifier(Grey(), device="cpu"), {"dark": TensorDataset(0.3 * torch.rand(40, 1, 12, 12))}
    names = [name for name in all_scores() if name != "vim"]
    found = evaluate(network, grey, dark, [*names, VIM], train=grey)
    assert not found.skipped and len(found.means) == len(all_scores())
    pictures = np.random.default_rng(2).integers(0, 256, (20, 12, 12, 1), dtype=np.uint8)
    parts = [v2.Grayscale(1), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    assert not evaluate(Grey(), pictures, {"same": pictures}, "odin", transform=v2.Compose(parts)).skipped
    colours = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.5,) * 3, (0.2,) * 3)])
    normalised_before = v2.Compose([colours, v2.Grayscale(1)])
    found = evaluate(Grey(), pictures, {"same": pictures}, ["msp", "odin"], transform=normalised_before)
    assert found.skipped["odin"] == "Normalize has 3 channels and the network's input 1: give it as many"


def test_what_the_network_does_not_take_is_one_line_with_the_sets_name(grey: TensorDataset) -> None:
    network = Classifier(Grey(), device="cpu")
    with pytest.raises(
        FaroutError, match=r"colours: the model does not take input of shape \(40, 3, 12, 12\): .*channels"
    ):
        evaluate(network, grey, {"colours": torch.rand(40, 3, 12, 12)})
    with pytest.raises(FaroutError, match=r"OOD sets are given by name, .*not as list"):
        evaluate(network, grey, [grey])  # type: ignore[arg-type]
    with pytest.raises(FaroutError, match=r"str is no network: give an nn\.Module"):
        evaluate("resnet18", grey, {"same": grey})  # type: ignore[arg-type]


def test_scores_that_need_a_gradient_are_left_out_where_there_is_none(grey: TensorDataset) -> None:
    network = Classifier(Grey(Cut()), device="cpu")
    found = evaluate(network, grey, {"same": grey}, ["msp", "odin", "px_grad"])
    assert list(found.skipped) == ["odin", "px_grad"] and "no gradient by its input" in found.skipped["odin"]
    with pytest.raises(FaroutError, match="no gradient by its input"):
        evaluate(network, grey, {"same": grey}, "odin")


def test_results_as_frame_latex_curve_and_record(results: Results, tmp_path: Path) -> None:
    frame = results.to_pandas()
    assert len(frame) == 2 * len(all_scores()) and {"fpr95", "auroc", "aupr", "ood", "score"} <= set(frame)
    text = results.to_latex()
    assert text.count("\\\\") >= 4 and "\\toprule" in text and "uniform\\_cross\\_entropy" in text and "mean" in text
    with pytest.raises(FaroutError, match="metric nope is not there"):
        results.to_latex(["nope"])
    assert len(results.plot_roc("energy").axes[0].lines) >= 4, "two curves, the diagonal and 95 % recall"
    results.save(tmp_path / "one.json")
    pandas.testing.assert_frame_equal(
        load_results(tmp_path / "one.json")[["ood", "score", "auroc"]], frame[["ood", "score", "auroc"]]
    )
    shown = str(results)
    assert max(map(len, shown.splitlines())) < 100, "eighteen scores fit a terminal: they are lines"
    (line,) = (line for line in shown.splitlines() if line.strip().startswith("rmds"))
    by_set = {row["ood"]: f"{100 * row['auroc']:.2f}" for row in results.rows if row["score"] == "rmds"}
    assert by_set["noise"] in line.split("│")[1] and by_set["photos"] in line.split("│")[2]
    assert f"{100 * results.mean('msp')['auroc']:.2f}" in shown and "plain (ID positive)" in shown
    with pytest.raises(FaroutError, match="score nope is not there"):
        results.plot_roc("nope")


def test_another_protocol_takes_the_same_scores(results: Results) -> None:
    other = results.under("oe")
    assert other.protocol.positive == "ood" and {row["positive"] for row in other.rows} == {"ood"}
    assert other.scores is results.scores and other.id["accuracy"] == results.id["accuracy"]


def test_records_of_the_repository_load() -> None:
    frame = load_results(ROOT / "results")
    assert not frame.duplicated(["run", "protocol", "ood", "score"]).any()
    assert {"energy", "oe", "cider", "jem"} <= set(frame.method.dropna()) and frame.fpr95.between(0, 1).all()
    assert frame.fpr95_low.notna().any() and (frame.fpr95_low <= frame.fpr95_high)[frame.fpr95_low.notna()].all()
    with pytest.raises(FaroutError, match="there is no folder"):
        load_results("nowhere")


# --- outputs that any framework saved


@pytest.fixture(scope="module")
def saved(net: nn.Module, labelled: TensorDataset, noise: DataLoader, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with outputs of the same network and images, in files."""
    folder = tmp_path_factory.mktemp("saved")
    ready = Classifier(net, device="cpu").with_head("out")
    for name, given in {"id_test": labelled, "id_train": labelled, "noise": noise}.items():
        outputs = ready.passes(given).outputs
        assert outputs is not None
        arrays = {"logits": outputs.logits.numpy(), "features": outputs.features.numpy()}
        labels = {} if outputs.labels is None else {"labels": outputs.labels.numpy()}
        np.savez(folder / f"{name}.npz", **arrays, **labels)
    np.savez(folder / "head.npz", weight=net.out.weight.detach().numpy(), bias=net.out.bias.detach().numpy())
    return folder


def test_saved_outputs_give_the_figures_of_the_network(
    saved: Path, results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_script("evaluate_outputs").main([str(saved)]) == 0
    shown = capsys.readouterr().out
    assert "skipped: score odin needs the images" in shown and "protocol openood" in shown
    frame = load_results(saved)
    assert set(frame.protocol) == {path.stem for path in (ROOT / "conf/protocol").glob("*.yaml")}
    of_network = results.to_pandas()
    for score in ("msp", "energy", "knn", "mahalanobis_cider", "react", "dice"):
        (found,) = frame.query("protocol == 'plain' and score == @score").auroc
        (wanted,) = of_network.query("ood == 'noise' and score == @score").auroc
        assert found == pytest.approx(wanted, abs=1e-9), score
    assert "odin" not in set(frame.score)


def test_outputs_without_head_or_training_lose_only_what_needs_them(saved: Path) -> None:
    from farout.evaluation.saved_outputs import read_outputs

    known = read_outputs(saved)
    found = evaluate_outputs(known.id_test, known.ood, "all", train=known.train)
    assert {"msp", "knn", "mahalanobis"} <= set(found.scores["id"]) and "give head" in found.skipped["react"]
    found = evaluate_outputs(known.id_test, known.ood, "all", head=known.head)
    assert {"msp", "ash"} <= set(found.scores["id"]) and "give train" in found.skipped["knn"]


@pytest.mark.parametrize(
    ("file", "arrays", "said"),
    [
        ("id_test", {"logits": np.zeros((3, 4), np.float32)}, "id_test.npz has no features"),
        ("noise", {"logits": np.zeros((3, 4)), "features": np.zeros((2, 12))}, "unequal lengths"),
        ("noise", {"logits": np.zeros((3, 5)), "features": np.zeros((3, 12))}, "12 features and 5 logits"),
        ("noise", {"logits": np.zeros((3, 4), np.float16), "features": np.zeros((3, 12))}, "need float32"),
        ("noise", {"logits": np.full((3, 4), np.nan), "features": np.zeros((3, 12))}, "NaN"),
        ("noise", {"logits": np.array([[{}]]), "features": np.zeros((1, 12))}, "cannot be read"),
        ("head", {"weight": np.zeros((4, 12))}, "no linear layer"),
        ("head", {"weight": np.zeros((4, 11)), "bias": np.zeros(4)}, r"weight \(4, 11\) does not make 4 logits of 12"),
    ],
)
def test_files_that_do_not_fit_are_named(
    saved: Path, tmp_path: Path, file: str, arrays: dict, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in saved.glob("*.npz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    np.savez(tmp_path / f"{file}.npz", **arrays)
    assert command.main([str(tmp_path)]) == 2
    assert said.replace("\\", "") in capsys.readouterr().err
    assert not (tmp_path / "results.json").exists()


# --- a detector of any model


def test_a_detector_of_a_model_is_saved_and_loaded(
    net: nn.Module, transform: v2.Transform, photos: np.ndarray, labelled: TensorDataset, tmp_path: Path
) -> None:
    for score, train in (("energy", None), ("mahalanobis", labelled), ("odin", None)):
        detector = Detector.from_model(net, transform, 4, score, photos[:40], train)
        accepted = [found.in_distribution for found in detector.predict(photos[:40])]
        assert np.mean(accepted) >= 0.95 and detector.spec.calibration == {"source": "given by the caller", "n": 40}
        detector.save(tmp_path / f"{score}.safetensors")
        other = type(net)()
        loaded = Detector.load(tmp_path / f"{score}.safetensors", "cpu", model=other, transform=transform)
        assert torch.equal(loaded.score(photos), detector.score(photos)) and loaded.tau == detector.tau
    with pytest.raises(FaroutError, match="was made of a model, Net: give it to load"):
        Detector.load(tmp_path / "energy.safetensors")
    with pytest.raises(FaroutError, match="does not fit"):
        wider = type(net)()
        wider.middle = nn.Linear(96, 13)
        Detector.load(tmp_path / "energy.safetensors", model=wider)


def test_a_detector_of_a_model_says_what_is_missing(
    net: nn.Module, photos: np.ndarray, transform: v2.Transform
) -> None:
    with pytest.raises(FaroutError, match="there is no calibration image: give calibration"):
        farout.Detector.from_model(net, transform)
    with pytest.raises(FaroutError, match="knn is fitted on training images: give train"):
        farout.Detector.from_model(net, transform, score="knn", calibration=photos)
    with pytest.raises(FaroutError, match="a Classifier has its transform"):
        farout.Detector.from_model(Classifier(net), transform, calibration=photos)
    with pytest.raises(FaroutError, match="tpr=2 is a share"):
        farout.Detector.from_model(net, transform, calibration=photos, tpr=2)
