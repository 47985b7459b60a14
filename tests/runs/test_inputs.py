"""What training and evaluation refuse about their images: sizes, classes, splits, damage."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from farout.config.compose import compose_settings
from farout.config.settings import ROOT, IdData, OodData, Paths, Settings
from farout.data import DataPaths, open_dataset
from farout.errors import ConfigError
from farout.runs.inputs import evaluation_data, training_data


@pytest.fixture(scope="module")
def composed() -> Settings:
    return compose_settings(["id_data=digits", "method=oe_scratch", "scale=smoke", "ood_data=smoke"])


class Place:
    """A catalogue of its own with the generated sets of the real one, and settings that look there."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.paths, self.settings = DataPaths(folder / "store", None, folder / "conf"), settings
        (folder / "conf/dataset").mkdir(parents=True)
        for name in ("gaussian", "china_patches", "interp", *(f"corruption_{kind}" for kind in ("jigsaw", "invert"))):
            (folder / f"conf/dataset/{name}.yaml").write_text((ROOT / f"conf/dataset/{name}.yaml").read_text())

    def add(self, name: str, folders: dict[str, int], side: int = 32, more: str = "") -> None:
        """A data set with this many pictures in each folder."""
        (self.paths.conf / f"dataset/{name}.yaml").write_text(f"title: {name}\nsource: {name}\n{more}")
        rng = np.random.default_rng(len(name))
        for folder, n in folders.items():
            place = self.paths.conf.parent / name / folder
            place.mkdir(parents=True, exist_ok=True)
            for i in range(n):
                Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(place / f"{i}.png")

    def asks(self, name: str, classes: int, *ood: str, outliers: str | None = None, evaluate: bool = True) -> Settings:
        uses = {} if outliers else {"method": replace(self.settings.method, name="ce", target=CE)}
        return replace(
            self.settings,
            id_data=IdData(name, classes),
            ood_data=OodData("these", list(ood)),
            outliers=outliers,
            evaluate=evaluate,
            **uses,
        )


CE = "farout.methods.cross_entropy.CrossEntropy"


@pytest.fixture
def place(tmp_path: Path, composed: Settings, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place(tmp_path, composed)
    monkeypatch.setattr(Paths, "data_paths", lambda self: place.paths)
    return place


BOTH = {"train/cat": 3, "train/dog": 3, "test/cat": 2, "test/dog": 2}


def refused(act, settings: Settings) -> str:
    with pytest.raises(ConfigError) as error:
        act(settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_ood_sets_and_outliers_come_at_the_side_of_the_id_set(place: Place) -> None:
    """Undeclared pictures of any size, and noise; 64-pixel pictures were shrunk to 32 for a 64-pixel network once."""
    place.add("mine", BOTH, 64, "resize: 48\ncrop: 48\n")
    place.add("fresh", {"a": 2, "b": 2}, 64)
    place.add("more", {"a": 4}, 40)
    data = training_data(place.asks("mine", 2, outliers="more"))
    assert data.labelled.info["side"] == 48 and data.outliers is not None and data.outliers.info["side"] == 48
    sets = ("fresh", "gaussian@3", "corruption_jigsaw@fresh", "china_patches")
    found = evaluation_data(place.asks("mine", 2, *sets, outliers="more"))
    assert {name: each.images.shape[-1] for name, each in found.ood.items()} == dict.fromkeys(sets, 48)
    assert found.id_test.info["side"] == 48 and not found.missing


def test_a_set_that_is_stored_at_another_size_is_refused_with_both_names(place: Place) -> None:
    place.add("mine", BOTH, 48)
    place.add("small", {"a": 4}, 64, "resize: 32\ncrop: 32\n")
    settings = place.asks("mine", 2, "small", "corruption_invert@small", "gaussian@2", outliers="small")
    said = refused(training_data, settings)
    assert "small (train) is 32 x 32 but mine (train) is 48 x 48" in said and said.startswith("outliers=small: ")
    missing = evaluation_data(replace(settings, outliers=None)).missing
    assert set(missing) == {"small", "corruption_invert@small"}
    assert "corruption_invert@small (test) is 32 x 32 but mine (train) is 48 x 48" in missing["corruption_invert@small"]
    place.add("small", {}, more="resize: 32\ncrop: 32\nfed_as_is: true\n")
    assert evaluation_data(replace(settings, outliers=None)).ood["small"].info["side"] == 32


def test_what_an_evaluation_would_refuse_is_refused_before_training(place: Place) -> None:
    place.add("half", {"train/cat": 3, "val/cat": 3})
    assert "half has train, val but no test" in refused(training_data, place.asks("half", 1))
    training_data(place.asks("half", 1, evaluate=False))
    place.add("whole", {"cat": 3, "dog": 3})
    for evaluate in (True, False):
        said = refused(training_data, place.asks("whole", 2, evaluate=evaluate))
        assert "tested on its training images" in said and "splits: {holdout: 0.2}" in said
    place.add("flat", {"train/cat": 3, "train/dog": 3, "test": 3})
    assert "flat (test) has no labels" in refused(training_data, place.asks("flat", 2))


@pytest.mark.parametrize("classes", [1, 3])
def test_num_classes_is_that_of_the_folders(place: Place, classes: int) -> None:
    place.add("mine", BOTH)
    said = refused(training_data, place.asks("mine", classes))
    assert said == f"id_data=mine (train) has 2 classes, not {classes}: set id_data.num_classes=2"


def test_a_test_without_some_classes_is_numbered_as_training(place: Place) -> None:
    place.add("mine", {"train/cat": 3, "train/dog": 3, "train/owl": 3, "test/owl": 2})
    assert evaluation_data(place.asks("mine", 3, "gaussian@2")).id_test.labels.tolist() == [2, 2]  # type: ignore[union-attr]


def test_damaged_stores_are_built_again_for_training(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.add("mine", BOTH)
    settings = place.asks("mine", 2)
    good = training_data(settings).labelled
    pixels, folder = good.images.clone(), good.folder
    assert folder is not None
    content = bytearray((folder / "images.npy").read_bytes())
    content[-100] ^= 1
    (folder / "images.npy").write_bytes(content)
    assert not (open_dataset("mine", "train", place.paths).images == pixels).all()
    assert (training_data(settings).labelled.images == pixels).all()
    assert "images.npy has sha256" in caplog.text and "built again" in caplog.text
