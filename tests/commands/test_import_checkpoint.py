"""Weights trained elsewhere become runs of ours, and score what their authors published."""

import argparse
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.models import resnet18, resnet34, resnet50

from farout.backbones import Backbone, load_foreign_state
from farout.backbones.allconv import AllConv
from farout.backbones.cifar_resnet import CifarResNet
from farout.backbones.plain_wide_resnet import PlainWideResNet
from farout.backbones.projected_resnet import ProjectedResNet18
from farout.backbones.resnet import ResNet18
from farout.backbones.torchvision_resnet import TorchvisionResNet
from farout.backbones.weight_files import read_sets
from farout.backbones.weight_sets import weight_sets
from farout.backbones.wide_resnet import WideResNet
from farout.data import DataPaths, ImageSet, open_dataset
from farout.engine.evaluate import accuracy, collect
from farout.metrics import detection_metrics
from farout.places import conf_names
from farout.runs import imported
from farout.runs.evaluation import evaluate
from farout.runs.overrides import compose_evaluation
from farout.runs.run import Run, open_run
from farout.scores import Outputs
from farout.scores.energy import Energy
from farout.scores.msp import MSP
from script_loader import load_script

CPU = torch.device("cpu")

# AUROC (MSP, energy) of the public ResNet-56 on every second CIFAR-10 test image against all images of the smaller
# packs, measured once with an independent script. Larger ones (cropped houses, letters) repeated what these show.
SANITY = {
    ("dtd10", "test"): (0.858, 0.852),
    ("camvid", "test"): (0.915, 0.964),
    ("imagenet_sample", "test"): (0.841, 0.852),
    ("faces", "test"): (0.841, 0.873),
}


def _imported(packs: Path, outputs: Path, depth: int) -> Run:
    file = packs / f"checkpoints/cifar10_resnet{depth}.th"
    options = ["--backbone", f"resnet{depth}", "--transform", "imagenet_stats", "--id", "cifar10"]
    assert load_script("import_checkpoint").main([str(file), *options, "--outputs", str(outputs)]) == 0
    return open_run(outputs / f"runs/imported-cifar10_resnet{depth}")


@pytest.fixture(scope="module")
def resnet56(packs: Path, data_paths: DataPaths, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Outputs]:
    """The run, and its outputs on all test images of CIFAR-10."""
    run = _imported(packs, tmp_path_factory.mktemp("imported"), 56)
    return run, _outputs(run, open_dataset("cifar10", "test", data_paths))


def _outputs(run: Run, images: ImageSet) -> Outputs:
    return collect(run.model(CPU).to(memory_format=torch.channels_last), run.transform(), images, CPU, batch_size=125)


@pytest.mark.data
def test_resnet56_has_its_published_accuracy(resnet56: tuple[Run, Outputs]) -> None:
    assert round(accuracy(resnet56[1]), 4) == 0.9339


@pytest.mark.data
def test_resnet20_is_right_where_it_was(packs: Path, data_paths: DataPaths, tmp_path: Path) -> None:
    """Of all images it has the published 91.73 %; every fifth of them tells as much in a fifth of the time."""
    images = open_dataset("cifar10", "test", data_paths).subset(range(0, 10_000, 5))
    assert round(2000 * accuracy(_outputs(_imported(packs, tmp_path, 20), images))) == 1846


@pytest.mark.data
@pytest.mark.parametrize("name", SANITY, ids=lambda name: name[0])
def test_resnet56_agrees_with_the_sanity_values(
    resnet56: tuple[Run, Outputs], data_paths: DataPaths, name: tuple[str, str]
) -> None:
    run, full = resnet56
    half = Outputs(full.logits[::2], full.features[::2])
    ood = _outputs(run, open_dataset(*name, data_paths))
    for score, expected in zip((MSP(), Energy()), SANITY[name], strict=True):
        assert detection_metrics(score(half), score(ood))["auroc"] == pytest.approx(expected, abs=0.002)


State = dict[str, Tensor]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The import script as a module: no new process for each file."""
    return load_script("import_checkpoint")


@pytest.fixture
def refused(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line with which an import ends, which leaves no run behind."""

    def call(content: Any, *options: str, **how: Any) -> str:
        file = tmp_path / "weights.pt"
        torch.save(content, file, **how)
        given = [] if "--id" in options else ["--id", "cifar10"]
        assert script.main([str(file), *given, *options, "--outputs", str(tmp_path)]) == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ") and message.count("\n") == 1, message
        assert not (tmp_path / "runs").exists()
        return message

    return call


def test_weights_that_do_not_fit_are_refused_with_the_differences(refused: Callable[..., str]) -> None:
    message = refused({"conv1.weight": torch.zeros(8, 3, 3, 3), "strange": torch.zeros(1)}, "--backbone", "resnet20")
    assert message.startswith("error: the weights do not fit CifarResNet")
    for part in ("missing", "unexpected: strange", "conv1.weight (8, 3, 3, 3) in the file"):
        assert part in message


def test_without_a_name_the_nearest_network_and_its_differences_are_told(refused: Callable[..., str]) -> None:
    state = WideResNet(40, 2, 10).state_dict()
    del state["bn1.weight"]
    state["block2.layer.0.conv1.weight"] = torch.zeros(64, 32, 1, 1)
    message = refused({f"module.{key}": value for key, value in state.items()})
    assert "fit no file of conf/backbone; nearest is wrn_40_2: 1 missing: bn1.weight; 1 shape:" in message
    assert "(64, 32, 1, 1) in the file, (64, 32, 3, 3) in the network" in message
    assert len(refused({f"x{i}": torch.zeros(1) for i in range(1000)})) < 2000


def test_weights_of_another_number_of_classes_are_told_so(refused: Callable[..., str]) -> None:
    message = refused(_cider(ProjectedResNet18(100)))
    assert "the weights are a resnet18_cider for 100 classes, but --id cifar10 has 10" in message


def test_weights_that_fit_several_networks_want_a_choice(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imported, "conf_names", lambda group: ["wrn_40_2", "resnet20", "wrn_40_2"])
    assert "fit wrn_40_2, wrn_40_2: choose one with --backbone" in refused(WideResNet(40, 2, 10).state_dict())


class Code:
    """What a pickle could do."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_not_executed(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    state = WideResNet(40, 2, 10).state_dict()
    message = refused({"state_dict": state, "extra": Code()}, _use_new_zipfile_serialization=zipped)
    assert "holds Python objects besides weights" in message and "save model.state_dict() alone" in message
    assert "WideResNet" in refused(WideResNet(10, 1, 10)), "a whole pickled network names its class"
    assert not (tmp_path / "executed").exists()


def test_weights_that_are_not_numbers_are_refused(refused: Callable[..., str]) -> None:
    state = WideResNet(40, 2, 10).state_dict()
    state["fc.bias"][3] = torch.nan
    assert "have NaN or infinity in 1 tensors (fc.bias" in refused(state)
    for empty in ({}, {"state_dict": {}}, [torch.zeros(1)], {"state_dict": {"a": 1}}):
        assert "holds no state dict" in refused(empty)


def test_files_that_are_no_weights_are_refused_in_one_line(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("weights.pt", "weights.safetensors"):
        (tmp_path / name).write_bytes(b"not weights")
    for name in ("weights.pt", "weights.safetensors", "absent.pt"):
        words = [str(tmp_path / name), "--backbone", "resnet20", "--id", "cifar10", "--outputs", str(tmp_path)]
        assert script.main(words) == 2
        message = capsys.readouterr().err
        assert name in message and message.count("\n") == 1, message
    assert not (tmp_path / "runs").exists()


# --- files as the official code saves them, made of our own networks' weights


def _renamed(network: Backbone, names: dict[str, str]) -> State:
    def official(key: str) -> str:
        for ours, theirs in names.items():
            if key.startswith(ours):
                return theirs + key.removeprefix(ours)
        return key

    return {official(key): value for key, value in network.state_dict().items()}


def _energy(network: Backbone) -> State:
    """wetliu/energy_ood and hendrycks/outlier-exposure, trained on several GPUs before PyTorch 0.4.1."""
    return {f"module.{key}": value for key, value in network.state_dict().items() if "num_batches" not in key}


def _allconv(network: Backbone) -> State:
    return _renamed(network, {"layers.": "features."})


def _jem(network: Backbone) -> dict[str, Any]:
    """wgrathwohl/JEM: two more linear layers, and the replay buffer beside the weights."""
    state = _renamed(network, {"fc.": "class_output.", "": "f."})
    dim = network.feature_dim
    state |= {"f.linear.weight": torch.ones(10, dim), "f.linear.bias": torch.ones(10)}
    state |= {"energy_output.weight": torch.ones(1, dim), "energy_output.bias": torch.ones(1)}
    return {"model_state_dict": state, "replay_buffer": torch.rand(20, 3, 32, 32)}


def _cider(network: Backbone) -> dict[str, Any]:
    """deeplearning-wisc/cider: encoder, classifier and head; optimiser and prototypes beside the weights."""
    state = _renamed(network, {"linear.": "fc.", "projection.": "head.", "": "encoder."})
    return {
        "epoch": 500,
        "state_dict": state,
        "opt_state_dict": {"state": {}, "param_groups": [{"lr": 0.5, "params": [0]}]},
        "dis_state_dict": {"prototypes": torch.rand(10, 128)},
    }


def _supcon(network: Backbone) -> dict[str, Any]:
    """SupContrast and CIDER's early cross-entropy baseline: command-line arguments beside the weights."""
    state = _renamed(network, {"linear.": "fc.", "": "encoder.module."})
    return {"opt": argparse.Namespace(batch_size=512), "model": state, "epoch": 100}


def _openood_cider(network: Backbone) -> State:
    return _renamed(network, {"linear.": "backbone.fc.", "projection.": "head.", "": "backbone."})


def _solo_learn(network: Backbone) -> dict[str, Any]:
    state = _renamed(network, {"linear.": "classifier.", "fc.": "classifier.", "": "backbone."})
    return {"state_dict": {key.replace(".shortcut.", ".downsample."): value for key, value in state.items()}}


def _weiaicunzai(network: Backbone) -> State:
    """weiaicunzai/pytorch-cifar100: stages numbered from 2, residual functions as sequences."""
    state = _renamed(network, {"conv1.": "conv1.0.", "bn1.": "conv1.1.", "linear.": "fc."})
    for i in (1, 2, 3, 4):
        state = {re.sub(f"^layer{i}", f"conv{i + 1}_x", key): value for key, value in state.items()}
    parts = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4}
    return {
        re.sub(r"_x\.(\d)\.(conv1|bn1|conv2|bn2)", lambda m: f"_x.{m[1]}.residual_function.{parts[m[2]]}", key): value
        for key, value in state.items()
    }


@pytest.mark.parametrize(
    ("network", "save", "backbone"),
    [
        (lambda: ProjectedResNet18(7), _openood_cider, "resnet18_cider"),
        (lambda: ResNet18(7), _solo_learn, "resnet18"),
        (lambda: TorchvisionResNet(18, 7), _solo_learn, "resnet18_imagenet"),
        (lambda: ResNet18(7), _weiaicunzai, "resnet18"),
        (lambda: ResNet18(7), lambda n: {"net": _energy(n), "acc": 93.0, "epoch": 9}, "resnet18"),
    ],
)
def test_names_of_other_code_bases(
    script: ModuleType, network: Callable[[], Backbone], save: Callable[[Backbone], Any], backbone: str
) -> None:
    ours = network()
    id_data = imported.read_id_data("digits")
    chosen = imported.choose_backbone(weight_sets(save(ours)), conf_names("backbone"), id_data)
    assert chosen.spec.name == backbone
    copy = network()
    load_foreign_state(copy, chosen.match.weights.state)
    wanted = {key: value for key, value in ours.state_dict().items() if value.is_floating_point()}
    assert all(torch.equal(copy.state_dict()[key], value) for key, value in wanted.items())


# (what it is, network, its official file, what the import chooses: network and normalisation)
OFFICIAL = {
    "energy": (lambda: WideResNet(40, 2, 7, 0.3), _energy, "wrn_40_2", "digits"),
    "allconv": (lambda: AllConv(7), _allconv, "allconv", "digits"),
    "jem": (lambda: PlainWideResNet(28, 10, 7), _jem, "wrn_28_10_jem", "jem"),
    "cider": (lambda: ProjectedResNet18(7), _cider, "resnet18_cider", "cider"),
    "cider_ce": (lambda: ResNet18(7), _supcon, "resnet18", "digits"),
}


@pytest.fixture(params=OFFICIAL)
def official(request: pytest.FixtureRequest, script: ModuleType, tmp_path: Path) -> tuple[Backbone, Run]:
    """A network with random weights and batch statistics, and the run that the import made of its official file."""
    build, save, backbone, transform = OFFICIAL[request.param]
    torch.manual_seed(0)
    network = build()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    file = tmp_path / f"{request.param}.pth.tar"
    torch.save(save(network), file)
    assert script.main([str(file), "--id", "digits", "--outputs", str(tmp_path)]) == 0
    run = open_run(tmp_path / f"runs/imported-{request.param}.pth")
    assert run.identity["backbone"]["name"] == backbone
    assert run.identity["transform"]["name"] == transform
    return network.eval(), run


def test_eval_scores_what_the_official_file_holds(official: tuple[Backbone, Run], data_paths: DataPaths) -> None:
    network, run = official
    words = [f"run={run.folder}", "ood_data.sets=[gaussian@500]", "max_eval_images=5", "logger=none"]
    words += ["score=[msp,energy]"]
    settings = compose_evaluation([*words, "trainer.device=cpu", "geometry_images=0"])
    evaluate(replace(settings, paths=replace(settings.paths, outputs=str(run.folder.parents[1]))))
    images = open_dataset("digits", "test", data_paths).images
    chosen = images[np.linspace(0, len(images) - 1, 5).round().astype(int)]
    with torch.no_grad():
        logits = network(run.transform()(chosen))
    found = np.load(run.folder / "scores/id.npz")
    np.testing.assert_allclose(found["energy"], logits.logsumexp(1), rtol=1e-4)
    evaluation = json.loads(run.results.read_text())["evaluations"][0]
    if isinstance(network, ProjectedResNet18):  # its authors never train the classifier
        assert evaluation["id"]["accuracy"] is None
        assert not {"prediction", "confidence"} & set(found)
    else:
        assert found["prediction"].tolist() == logits.argmax(1).tolist()
        assert evaluation["id"]["accuracy"] is not None


def test_the_projection_comes_along(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = ProjectedResNet18(7).eval()
    torch.save(_cider(network), tmp_path / "net.pt")
    assert script.main([str(tmp_path / "net.pt"), "--id", "digits", "--outputs", str(tmp_path)]) == 0
    assert "never train the classifier" in capsys.readouterr().out
    model = open_run(tmp_path / "runs/imported-net").model(CPU)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        embedded = model.embed(images)
        torch.testing.assert_close(embedded, network.embed(images))
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(2))


# --- what else wraps weights: other people's training loops


@pytest.fixture(scope="module")
def resnet20() -> State:
    torch.manual_seed(0)
    return CifarResNet(20, 10).state_dict()


@pytest.fixture
def taken(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[float, str]]:
    """(by how much all weights of ResNet-20 were multiplied in what was imported, what the import said)."""

    def call(content: Any, *options: str, original: State) -> tuple[float, str]:
        torch.save(content, tmp_path / "net.pt")
        words = [str(tmp_path / "net.pt"), "--id", "cifar10", "--backbone", "resnet20", *options]
        assert script.main([*words, "--outputs", str(tmp_path)]) == 0, capsys.readouterr().err
        weight = load_file(tmp_path / "runs/imported-net/weights.safetensors")["conv1.weight"]
        return float((weight / original["conv1.weight"]).median()), capsys.readouterr().out

    return call


def _times(state: State, factor: float, prefix: str = "") -> State:
    return {prefix + key: value * factor if value.is_floating_point() else value for key, value in state.items()}


# (the file; options; the weights that are wanted have 1 times the original's values, others 2 times; what is said)
WRAPPED: dict[str, tuple[Callable[[State], Any], list[str], list[str]]] = {
    "compiled": (lambda s: _times(s, 1, "_orig_mod."), [], []),
    "compiled within DataParallel": (lambda s: _times(s, 1, "module._orig_mod."), [], []),
    "Lightning": (
        lambda s: {"state_dict": {**_times(s, 1, "model."), "loss.weight": torch.ones(10)}, "epoch": 3},
        [],
        ["took state_dict.model of the file", "left out, because they are no part of it: loss.weight"],
    ),
    "deep": (
        lambda s: {"state": {"model": _times(s, 1, "a.b.")}, "optimizer": {"state": {0: {"m": torch.ones(3)}}}},
        [],
        ["took state.model.a.b of"],
    ),
    "EMA of timm": (
        lambda s: {"state_dict": s, "state_dict_ema": _times(s, 2)},
        [],
        ["took state_dict of the file; the file also holds state_dict_ema: choose with --entry"],
    ),
    "EMA, chosen": (
        lambda s: {"state_dict": _times(s, 2), "state_dict_ema": s},
        ["--entry", "state_dict_ema"],
        ["took state_dict_ema, an average of the weights, of the file"],
    ),
    "EMA first and nested": (
        lambda s: {"ema": {"module": _times(s, 2)}, "model": s},
        [],
        ["took model of the file; the file also holds ema.module"],
    ),
    "EMA alone": (lambda s: {"model_ema": s}, [], ["took model_ema, an average"]),
    "student and teacher in one dict": (
        lambda s: {**_times(s, 2, "teacher.net."), **_times(s, 1, "student.")},
        [],
        ["took student of the file; the file also holds teacher.net"],
    ),
    "teacher, chosen": (
        lambda s: {"x": {**_times(s, 1, "teacher.net."), **_times(s, 2, "student.")}},
        ["--entry", "x.teacher"],
        ["took x.teacher.net, an average"],
    ),
    "an average beside bare names": (
        lambda s: {**s, **_times(s, 2, "ema_model.")},
        [],
        ["took the weights at the top of the file; the file also holds ema_model"],
    ),
    "SWA": (lambda s: {"n_averaged": torch.tensor(5), **_times(s, 1, "module.")}, [], ["left out", "n_averaged"]),
    "half precision": (
        lambda s: {key: value.bfloat16() for key, value in s.items()},
        [],
        ["stored as bfloat16, taken as float32"],
    ),
    "another set that fits": (
        lambda s: {"state_dict": s, "best": _times(s, 2)},
        [],
        ["took state_dict of the file; the file also holds best"],
    ),
    "by hand": (lambda s: {"best": s, "last": _times(s, 2)}, ["--entry", "best"], ["took best of the file"]),
}


@pytest.mark.parametrize("what", WRAPPED)
def test_weights_are_found_where_others_put_them(what: str, taken: Callable[..., Any], resnet20: State) -> None:
    save, options, wanted = WRAPPED[what]
    factor, said = taken(save(resnet20), *options, original=resnet20)
    assert factor == pytest.approx(1, rel=0.01)
    assert all(part in said for part in wanted), said


def test_where_several_sets_are_as_likely_a_choice_is_wanted(refused: Callable[..., str], resnet20: State) -> None:
    own = ["--backbone", "resnet20"]
    message = refused({**_times(resnet20, 1, "nets.0."), **_times(resnet20, 2, "nets.1.")}, *own)
    assert "several sets of weights that fit (nets.0, nets.1): choose one with --entry" in message
    assert "fit (best, last)" in refused({"best": resnet20, "last": _times(resnet20, 2)}, *own)
    message = refused({"state_dict": resnet20, "ema": _times(resnet20, 2)}, "--entry", "emma")
    assert "has no weights under --entry emma: it holds state_dict, ema" in message


def test_what_is_no_plain_number_is_refused(refused: Callable[..., str], resnet20: State) -> None:
    own = ["--backbone", "resnet20"]
    message = refused({**resnet20, "conv1.weight": resnet20["conv1.weight"].to(torch.int8)}, *own)
    assert "no plain floating-point numbers in 1 tensors (conv1.weight: int8" in message
    huge = torch.zeros(1).expand(10**12)  # a terabyte that takes four bytes in the file
    assert "linear.bias (1000000000000,) in the file" in refused({**resnet20, "linear.bias": huge}, *own)
    large = {**resnet20, "linear.bias": torch.full((10,), 1e300, dtype=torch.float64)}
    assert "infinity in 1 tensors (linear.bias" in refused(large, *own)


def test_another_network_that_fits_is_named(refused: Callable[..., str], resnet20: State) -> None:
    message = refused({"state_dict": resnet20}, "--backbone", "resnet34_imagenet")
    assert "do not fit ImageNetResNet34 (--backbone resnet34_imagenet), but --backbone resnet20" in message
    message = refused({f"features.{i}.weight": torch.zeros(1) for i in range(200)})
    assert "fit no file of conf/backbone, nor nearly" in message and "nearest" not in message


@pytest.mark.parametrize("name", ["../x", "a/b", "/x", "", "x" * 300, "a b"])
def test_a_name_that_is_no_folders_is_refused(refused: Callable[..., str], resnet20: State, name: str) -> None:
    assert "names a folder: use up to 100 letters" in refused(resnet20, "--name", name, "--backbone", "resnet20")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_files_that_cannot_be_weights_are_refused_at_once(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "large.pt").open("wb") as file:
        file.truncate(20 * 2**30)  # takes no room on the disk
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / "program.pt"))
    for path, part in (("large.pt", "has 20.0 GiB"), ("program.pt", "is a TorchScript program"), ("", "is a folder")):
        assert script.main([str(tmp_path / path), "--id", "cifar10", "--outputs", str(tmp_path)]) == 2
        message = capsys.readouterr().err
        assert part in message and message.count("\n") == 1, message
    assert script.main([str(tmp_path / "x.pt"), "--id", "../x", "--outputs", str(tmp_path)]) == 2


def test_a_flipped_bit_is_noticed(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], resnet20: State
) -> None:
    torch.save(resnet20, tmp_path / "net.pt")
    content = bytearray((tmp_path / "net.pt").read_bytes())
    place = content.index(resnet20["layer3.0.conv1.weight"].numpy().tobytes())
    content[place + 100] ^= 1
    (tmp_path / "net.pt").write_bytes(content)
    assert script.main([str(tmp_path / "net.pt"), "--id", "cifar10", "--outputs", str(tmp_path)]) == 2
    assert "is damaged (Bad CRC-32" in capsys.readouterr().err


# --- torchvision's ResNets


@pytest.mark.parametrize(
    ("make", "stem", "backbone"),
    [
        (resnet18, "cifar", "resnet18"),
        (resnet34, "cifar", "resnet34"),
        (resnet18, "imagenet", "resnet18_imagenet"),
        (resnet34, "imagenet", "resnet34_imagenet_plain"),
        (resnet50, "imagenet", "resnet50_imagenet"),
    ],
)
def test_torchvisions_networks_give_the_same_logits(
    script: ModuleType, tmp_path: Path, make: Callable[..., Any], stem: str, backbone: str
) -> None:
    torch.manual_seed(0)
    theirs = make(num_classes=7)
    if stem == "cifar":
        theirs.conv1, theirs.maxpool = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False), torch.nn.Identity()
    images = torch.rand(4, 3, 32, 32)
    theirs(images)  # moves the running statistics of batch norm from where they begin
    save_file(theirs.state_dict(), tmp_path / "net.safetensors")
    assert script.main([str(tmp_path / "net.safetensors"), "--id", "digits", "--outputs", str(tmp_path)]) == 0
    run = open_run(tmp_path / "runs/imported-net")
    assert run.identity["backbone"]["name"] == backbone
    assert run.identity["transform"]["name"] == ("digits" if stem == "cifar" else "imagenet_stats")
    with torch.no_grad():
        torch.testing.assert_close(run.model(CPU)(images), theirs.eval()(images), rtol=0, atol=1e-6)


def test_safetensors_and_old_files_are_read_too(tmp_path: Path) -> None:
    state = WideResNet(10, 1, 5).state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    for name in ("a.safetensors", "b.pt"):
        (found,) = read_sets(tmp_path / name)
        assert found.state.keys() == state.keys()
        assert all(torch.equal(found.state[key], state[key]) for key in state)


def test_importing_again_is_harmless_and_another_file_wants_another_name(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["--outliers", "80 Million Tiny Images"]
    for seed, status, more in ((0, 0, told), (0, 0, []), (1, 2, [])):
        torch.manual_seed(seed)
        torch.save(WideResNet(16, 4, 10).state_dict(), tmp_path / "net.pt")
        words = [str(tmp_path / "net.pt"), "--id", "svhn", "--outputs", str(tmp_path), *more]
        assert script.main(words) == status
        if status == 0:
            assert open_run(tmp_path / "runs/imported-net").record["trained"].get("outliers") == (
                told[1] if more else None
            )
    assert "holds another import: choose another --name" in capsys.readouterr().err
    assert open_run(tmp_path / "runs/imported-net").identity["transform"]["name"] == "svhn"
