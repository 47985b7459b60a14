"""Where conf/, data and packs are looked for; and commands by the names that people type."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from farout import places
from farout.command_names import as_typed
from farout.config.compose import compose_settings
from farout.config.composition import composition_record, summary
from farout.config.settings import Paths
from farout.data import default_paths, open_dataset
from farout.data.catalogue import load_entry
from farout.errors import ConfigError
from farout.metrics.protocol import Protocol
from farout.runs.scoring import score_file

WORDS = ["method=ce", "scale=smoke", "id_data=digits", "logger=none"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, away from the repository, with a score of its own and a protocol in the place of farout's."""
    for name, text in {
        "score/mine": "# @package score.mine\n_target_: farout.scores.energy.Energy\ntemperature: 7\n",
        "protocol/plain": (places.CONF / "protocol/plain.yaml").read_text().replace("recall: 0.95", "recall: 0.5"),
        "dataset/blobs": "title: My blobs\nsource: pictures\n",
        "dataset/mine": "title: Mine\nsource: pictures\n",
    }.items():
        file = tmp_path / f"conf/{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_of_the_current_folder_add_to_farouts_and_come_before_them(here: Path) -> None:
    settings = compose_settings([*WORDS, "score=[msp,mine]", "protocol=plain"])
    assert [(score.name, score.arguments) for score in settings.scores][1] == ("mine", {"temperature": 7.0})
    assert isinstance(settings.protocol, Protocol) and settings.protocol.recall == 0.5
    assert settings.schedule == compose_settings([*WORDS, "score=msp"]).schedule
    assert score_file("mine").arguments == {"temperature": 7.0}
    with pytest.raises(ConfigError, match=r"score=nosuch is not there: choose from .*energy, .*mine, .*vim"):
        compose_settings([*WORDS, "score=nosuch"])


def test_a_run_says_which_files_are_not_farouts(here: Path) -> None:
    composed = compose_settings([*WORDS, "score=[msp,mine]", "protocol=plain"]).composition
    assert composed is not None
    assert "\n  ./conf/ score/mine, protocol/plain\n" in summary("name", composed)
    assert composition_record(composed)["own"] == ["score/mine", "protocol/plain"]


def test_nothing_of_another_folder_is_left(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_own = compose_settings([*WORDS, "protocol=plain"])
    monkeypatch.chdir(places.ROOT)
    again = compose_settings([*WORDS, "protocol=plain"])
    assert (with_own.protocol.recall, again.protocol.recall) == (0.5, 0.95)
    assert "mine" not in places.conf_names("score")
    assert again.composition is not None
    assert "./conf/" not in summary("name", again.composition) and "own" not in composition_record(again.composition)


def test_the_catalogue_has_both_and_sources_start_beside_their_own_conf(here: Path) -> None:
    paths = replace(default_paths(), store=here / "store")
    assert load_entry("blobs", paths)["title"] == "My blobs" and load_entry("cifar10", paths)["title"] == "CIFAR-10"
    assert paths.home("mine") == here and paths.home("cifar10") == places.ROOT
    with pytest.raises(Exception, match=f"{here}/pictures does not exist"):
        open_dataset("mine", "test", paths)


def test_a_checkout_keeps_its_folders_wherever_it_is_called(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FAROUT_DATA", "FAROUT_PACKS"):
        monkeypatch.delenv(name, raising=False)
    assert not places.INSTALLED and Paths().data_paths().store == places.ROOT / "data"
    monkeypatch.setenv("FAROUT_DATA", "elsewhere")
    assert Paths().data_paths().store == Path("elsewhere")


@pytest.mark.parametrize(
    ("called", "shown"),
    [
        ("train.py", "`python train.py a=1`, python scripts/prepare_data.py; python scripts/make_table.py"),
        ("/x/bin/farout-train", "`farout-train a=1`, farout-data; farout-make-table"),
        ("farout-eval.exe", "`farout-train a=1`, farout-data; farout-make-table"),
    ],
)
def test_commands_are_named_as_they_were_called(called: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "`python train.py a=1`, python scripts/prepare_data.py; python scripts/make_table.py"
    monkeypatch.setattr(sys, "argv", [called])
    assert as_typed(text) == shown
    assert str(ConfigError(text)) == shown
    for other in ("python train.pyc", "scripts/detect.py", "/a/python/train.py", "python scripts/verdicts.py"):
        assert as_typed(other) == other
