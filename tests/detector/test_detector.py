"""A detector's threshold, its verdicts, and its one file."""

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import farout
from farout.config.coerce import Component
from farout.config.settings import ROOT
from farout.data import DataPaths, ImageSet, open_dataset
from farout.data.streams import holdout_split
from farout.detector import Detector, DetectorNote, Prediction, threshold
from farout.errors import ConfigError, FaroutError
from farout.runs import lineage
from farout.runs.run import Run
from farout.scores import Outputs, Score

SCORES = sorted(path.stem for path in (ROOT / "conf/score").glob("*.yaml") if path.stem != "all")


@pytest.fixture(scope="module")
def detector(run: Run) -> Detector:
    return Detector.from_run(run.folder, device="cpu")


# --- the threshold


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60),
    st.floats(0.01, 1),
)
def test_the_threshold_is_the_largest_that_accepts_enough(values: list[float], tpr: float) -> None:
    scores = torch.tensor(values)
    tau = threshold(scores, tpr)
    assert tau in values
    assert (scores >= tau).double().mean() >= tpr - 1e-9
    higher = [value for value in values if value > tau]
    assert not higher or (scores >= min(higher)).double().mean() < tpr


def test_round_shares_are_not_lost_to_rounding() -> None:
    scores = torch.arange(100.0)
    assert [threshold(scores, tpr) for tpr in (0.95, 0.9, 0.07, 1.0)] == [5, 10, 93, 0]


def test_tau_comes_from_the_holdout_alone(
    run: Run, digits: ImageSet, held_out: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    real = lineage.open_dataset
    monkeypatch.setattr(lineage, "open_dataset", lambda *words: opened.append(words[:2]) or real(*words))
    for tpr in (0.95, 0.5):
        detector = Detector.from_run(run.folder, tpr=tpr, device="cpu")
        with torch.no_grad():
            energies = run.model(torch.device("cpu"))(run.transform()(held_out)).logsumexp(1)
        expect = energies.sort(descending=True).values[int(np.ceil(tpr * len(energies))) - 1]
        assert detector.tau == pytest.approx(expect.item(), rel=1e-6)
        accepted = np.mean([found.in_distribution for found in detector.predict(held_out)])
        assert tpr <= accepted < tpr + 0.02
        assert detector.spec.calibration == {"source": "holdout of digits (train)", "n": len(held_out)}
    assert set(opened) == {("digits", "train")}, "no test set, no OOD set"


def test_what_a_score_fits_it_fits_on_training_images_alone(run: Run, digits: ImageSet) -> None:
    nearest = Component("knn", "farout.scores.knn.KNN", {"k": 1, "block_mib": 64})
    detector = Detector.from_run(run.folder, nearest, device="cpu")
    trained, held = holdout_split(len(digits), 0.2)
    assert detector.score(digits.images[trained[:50]]).min() > -1e-3, "each is its own neighbour"
    assert detector.score(digits.images[held[:50]]).max() < -1e-3
    assert detector._score.facts()["bank"] == len(trained)
    capped = Detector.from_run(run.folder, nearest, device="cpu", max_fit_images=100)
    assert capped._score.facts()["bank"] == 100


def test_calibration_images_replace_the_holdout(unheld: Run, strangers: Tensor, tmp_path: Path) -> None:
    by_tensor = Detector.from_run(unheld.folder, calibration_images=strangers, device="cpu")
    with torch.no_grad():
        energies = unheld.model(torch.device("cpu"))(unheld.transform()(strangers)).logsumexp(1)
    assert by_tensor.tau == pytest.approx(energies.sort().values[1].item(), rel=1e-6)
    assert by_tensor.spec.calibration == {"source": "given by the caller", "n": 30}
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in strangers]
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i:02d}.png")
    for given_as in (pictures, [tmp_path / f"{i:02d}.png" for i in range(30)], tmp_path, str(tmp_path)):
        same = Detector.from_run(unheld.folder, calibration_images=given_as, device="cpu")
        assert same.tau == by_tensor.tau
    floats = Detector.from_run(unheld.folder, calibration_images=strangers / 255, device="cpu")
    assert floats.tau == pytest.approx(by_tensor.tau, rel=1e-6)


def test_without_either_the_error_says_what_to_do(unheld: Run) -> None:
    with pytest.raises(FaroutError, match=r"kept no image .* holdout=0\.1 .*or give calibration") as caught:
        Detector.from_run(unheld.folder, device="cpu")
    assert "\n" not in str(caught.value)
    with pytest.raises(FaroutError, match="there is no calibration image"):
        Detector.from_run(unheld.folder, calibration_images=[], device="cpu")


def test_doubtful_calibration_images_are_told(
    unheld: Run, digits: ImageSet, data_paths: DataPaths, strangers: Tensor
) -> None:
    mixed = torch.cat([digits.images[:7], strangers])
    with pytest.warns(DetectorNote, match="was trained on 7 of 37 calibration images"):
        Detector.from_run(unheld.folder, calibration_images=mixed, device="cpu")
    test = open_dataset("digits", "test", data_paths).images[:40]
    with pytest.warns(DetectorNote, match="40 of 40 calibration images are test images"):
        Detector.from_run(unheld.folder, calibration_images=test, device="cpu")
    with pytest.warns(DetectorNote, match=r"5 calibration images are few for tpr=0\.95"):
        Detector.from_run(unheld.folder, calibration_images=strangers[:5], device="cpu")


def test_bad_settings_are_one_line(run: Run, tmp_path: Path) -> None:
    tuned = Component("odin", "farout.scores.odin.ODIN", {"tune": True})
    for words, message in (
        ({"tpr": 0}, "tpr=0 is a share"),
        ({"tpr": 1.2}, "tpr=1.2 is a share"),
        ({"score": "enrgy"}, "score=enrgy is not there: choose from .*energy"),
        ({"score": tuned}, "odin asks to be tuned"),
        ({"device": "tpu"}, "not a device"),
    ):
        with pytest.raises(ConfigError, match=message):
            Detector.from_run(run.folder, **words)  # type: ignore[arg-type]
    with pytest.raises(FaroutError, match="not a run folder"):
        Detector.from_run(tmp_path)


def test_where_the_data_are_not_at_hand(
    unheld: Run, strangers: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with imported weights: no record of the data, no data."""
    folder = tmp_path / "imported-net"
    shutil.copytree(unheld.folder, folder)
    record = json.loads((folder / "run.json").read_text())
    record["data"], record["identity"]["id_data"]["name"] = {}, "cifar10"
    (folder / "run.json").write_text(json.dumps(record))
    nothing = DataPaths(store=tmp_path / "store", packs=None, conf=ROOT / "conf")
    tau = Detector.from_run(unheld.folder, calibration_images=strangers, device="cpu").tau
    monkeypatch.setattr("farout.detector.default_paths", lambda: nothing)
    detector = Detector.from_run(folder, calibration_images=strangers, device="cpu")
    assert (detector.spec.side, detector.classes) == (32, tuple("0123456"))
    assert detector.tau == tau
    with pytest.raises(FaroutError, match=r"nothing tells the size of .* give side=32"):
        Detector.from_run(folder, calibration_images=list(strangers), device="cpu")
    same = Detector.from_run(folder, calibration_images=list(strangers), device="cpu", side=32)
    assert same.tau == detector.tau
    with pytest.raises(FaroutError, match="is missing"):
        Detector.from_run(folder, "knn", calibration_images=strangers, device="cpu")


# --- scores and verdicts


def test_predictions_agree_with_the_network(run: Run, detector: Detector, digits: ImageSet) -> None:
    images = digits.images[::40]
    with torch.no_grad():
        logits = run.model(torch.device("cpu"))(run.transform()(images))
    found = detector.predict(images)
    assert [p.index for p in found] == logits.argmax(1).tolist()
    assert [p.name for p in found] == [digits.classes[i] for i in logits.argmax(1)]
    torch.testing.assert_close(torch.tensor([p.score for p in found]), logits.logsumexp(1))
    assert [p.in_distribution for p in found] == [p.score >= detector.tau for p in found]
    assert all(type(p) is Prediction and type(p.in_distribution) is bool for p in found)
    assert detector.score(images).tolist() == [p.score for p in found]


def test_any_number_and_kind_of_pictures(detector: Detector, digits: ImageSet, strangers: Tensor) -> None:
    assert detector.score(strangers[0]).shape == (1,)
    assert detector.score([]).shape == (0,)
    assert detector.predict([]) == []
    many = digits.images[torch.arange(300)]
    assert detector.score(many).shape == (300,)
    torch.testing.assert_close(detector.score(many)[250:260], detector.score(list(many[250:260])))
    torch.testing.assert_close(detector.score(strangers / 255), detector.score(strangers))
    larger = torch.nn.functional.interpolate(strangers.float() / 255, scale_factor=2)
    assert detector.score(larger).isfinite().all()


def test_a_broken_network_is_told(run: Run, strangers: Tensor) -> None:
    broken = Detector.from_run(run.folder, device="cpu")
    torch.nn.init.constant_(broken.model.head.bias, torch.nan)
    with pytest.raises(FaroutError, match=r"score energy of energy-resnet20.* is NaN"):
        broken.score(strangers)


def test_images_that_need_gradients_do_not_touch_the_weights(run: Run, strangers: Tensor) -> None:
    detector = Detector.from_run(run.folder, "odin", device="cpu")
    assert detector.score(strangers).shape == (30,)
    assert all(p.grad is None and not p.requires_grad for p in detector.model.parameters())


# --- the file


@pytest.fixture(scope="module")
def knn_file(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "detector.safetensors"
    Detector.from_run(run.folder, "knn", device="cpu").save(path)
    return path


@pytest.mark.parametrize("score", SCORES)
def test_a_loaded_detector_gives_the_same_bits(run: Run, strangers: Tensor, tmp_path: Path, score: str) -> None:
    saved = Detector.from_run(run.folder, score, device="cpu")
    saved.save(tmp_path / "deep/detector.safetensors")
    loaded = Detector.load(tmp_path / "deep/detector.safetensors", "cpu")
    assert loaded.spec == saved.spec
    assert (loaded.tau, loaded.classes, loaded.score_name) == (saved.tau, saved.classes, saved.score_name)
    assert torch.equal(loaded.score(strangers), saved.score(strangers))
    assert loaded.predict(strangers) == saved.predict(strangers)
    assert loaded._score.facts() == saved._score.facts()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["detector.safetensors"]
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "deep/detector.safetensors").read_bytes()


def test_the_same_bits_in_another_process_that_has_no_run(run: Run, strangers: Tensor, tmp_path: Path) -> None:
    detector = Detector.from_run(run.folder, "vim", device="cpu")
    detector.save(tmp_path / "detector.safetensors")
    save_file({"images": strangers}, tmp_path / "images.safetensors")
    program = (
        "import farout; from safetensors.torch import load_file\n"
        "d = farout.Detector.load('detector.safetensors', 'cpu')\n"
        "print([x.hex() for x in d.score(load_file('images.safetensors')['images']).double().tolist()])"
    )
    command = [sys.executable, "-c", f"import torch; torch.set_num_threads({torch.get_num_threads()})\n{program}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([x.hex() for x in detector.score(strangers).double().tolist()])


class Odd(Score):
    """A score whose state is no data."""

    name = "odd"
    needs = ("train",)

    def __init__(self, kind: str = "function") -> None:
        self.kind = kind

    def fit(self, fitting: Any) -> None:
        self.model = {"function": len, "module": torch.nn.Linear(1, 1), "set": {1}}[self.kind]

    def __call__(self, outputs: Outputs) -> Tensor:
        return outputs.logits.amax(1)


@pytest.mark.parametrize("kind", ["function", "module", "set"])
def test_a_state_that_is_no_data_is_an_error_that_names_it(run: Run, kind: str) -> None:
    with pytest.raises(FaroutError, match="score odd cannot be saved: model is a "):
        Detector.from_run(run.folder, Component("odd", f"{__name__}.Odd", {"kind": kind}), device="cpu")


@dataclass(frozen=True)
class Foreign:
    """A dataclass outside of farout, though imported."""

    values: Tensor


def _rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The file with changed metadata."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    metadata = json.loads(header["__metadata__"]["farout_detector"])
    change(metadata)
    header["__metadata__"]["farout_detector"] = json.dumps(metadata)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def _set(part: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda metadata: metadata[part].__setitem__(key, value)


OBJECT = {"object": "subprocess:Popen", "attributes": {}}
TAMPERED = {
    "another module": (_set("score_state", "_bank", {**OBJECT, "object": "antigravity:Popen"}), "needs antigravity"),
    "another class": (_set("score_state", "_bank", OBJECT), "names subprocess:Popen, which is no part of a score"),
    "another score": (
        _set("spec", "score", {"name": "x", "_target_": "os.system"}),
        "score is os.system, which is none",
    ),
    "another network": (_set("spec", "network", {"name": "x", "_target_": "torch.nn.Identity"}), "which is none"),
    "format": (_set("spec", "format", 99), "format of another version"),
    "less state": (lambda metadata: metadata["score_state"].pop("_bank"), "not one of score knn"),
    "no tensor": (_set("score_state", "_bank", {"tensor": "nowhere"}), "damaged"),
    "strange field": (_set("spec", "strange", 1), "damaged"),
    "fewer classes": (_set("spec", "num_classes", 3), "does not fit its own network"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_tampered_file_is_one_line(knn_file: Path, tmp_path: Path, case: str) -> None:
    path = Path(shutil.copy(knn_file, tmp_path / "detector.safetensors"))
    change, message = TAMPERED[case]
    _rewritten(path, change)
    with pytest.raises(FaroutError, match=message) as caught:
        Detector.load(path, "cpu")
    assert "\n" not in str(caught.value)
    assert "antigravity" not in sys.modules


def test_files_that_are_no_detectors_are_one_line(run: Run, detector: Detector, tmp_path: Path) -> None:
    detector.save(tmp_path / "cut.safetensors")
    content = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.safetensors").write_text("no detector")
    for path, message in (
        (tmp_path / "absent", "is not there"),
        (tmp_path / "cut.safetensors", "cannot be read"),
        (tmp_path / "text.safetensors", "cannot be read"),
        (run.weights, "is no detector"),
        (run.folder, "is not there"),
    ):
        with pytest.raises(FaroutError, match=message) as caught:
            Detector.load(path)
        assert "\n" not in str(caught.value)


def test_the_file_tells_what_it_is(detector: Detector, tmp_path: Path) -> None:
    detector.save(tmp_path / "d.safetensors")
    with safe_open(tmp_path / "d.safetensors", framework="pt") as file:
        spec = json.loads(file.metadata()["farout_detector"])["spec"]
    assert spec["network"]["_target_"] == "farout.backbones.cifar_resnet.CifarResNet"
    assert spec["transform"]["mean"] == [0.5, 0.5, 0.5]
    assert spec["classes"] == list(detector.classes)
    assert spec["score"] == {"name": "energy", "_target_": "farout.scores.energy.Energy", "temperature": 1.0}
    assert (spec["tau"], spec["tpr"], spec["side"]) == (detector.tau, 0.95, 32)


def test_importing_farout_stays_cheap() -> None:
    program = "import sys, farout; assert 'torch' not in sys.modules and 'farout.detector' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert farout.Detector is Detector
    with pytest.raises(AttributeError, match="Detektor"):
        farout.Detektor  # noqa: B018
