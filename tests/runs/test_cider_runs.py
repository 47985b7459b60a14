"""Whole runs of CIDER and SupCon: a tiny ResNet-18 with a projection head on digits, in this process."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from farout.config.compose import compose_settings
from farout.config.settings import ROOT, Settings
from farout.engine import fit as engine
from farout.engine.checkpoint import save_weights
from farout.methods import CIDER
from farout.report.page.rebuild import read_sphere, rebuild_report
from farout.reproduce import slices
from farout.runs import training
from farout.runs.geometry import Geometry, method_state
from farout.runs.inputs import training_data
from farout.runs.run import Run, run_of
from farout.runs.scoring import Predictor
from farout.runs.sink import summary_of
from farout.runs.training import train

CPU = torch.device("cpu")
TINY = ["method=cider", "transform=digits_views", "backbone.width=2", "backbone.projection_dim=8", "ood_data=smoke"]
TINY += ["max_eval_images=40", "max_fit_images=140", "score=[knn_k100,mahalanobis_cider]"]


@pytest.fixture
def cider(settings):
    return lambda *words: settings(*TINY, "backbone=resnet18_cider", *words)


def run(wanted: Settings) -> Run:
    return run_of(wanted, CPU)


def evaluations(wanted: Settings) -> list[dict]:
    return json.loads(run(wanted).results.read_text())["evaluations"]


@pytest.mark.drawn
def test_from_the_command_to_the_report(cider, capsys):
    wanted = cider()
    assert train(wanted) is None
    own = run(wanted)
    said = capsys.readouterr().out
    assert "classifier not trained, nearest class mean right in" in said
    prototypes = method_state(own)["prototypes"]
    assert prototypes.shape == (7, 8)
    assert torch.allclose(prototypes.norm(dim=1), torch.ones(7))
    for entry in evaluations(wanted):
        assert entry["id"]["accuracy"] is entry["id"]["ece"] is None
        assert "never trained" in entry["id"]["no_accuracy"]
        assert "calibration" not in entry
        assert {row["score"] for row in entry["rows"]} == {"knn_k100", "mahalanobis_cider"}
        assert entry["scores"]["knn_k100"]["fitted_on"] == 140
    flat = summary_of(evaluations(wanted)[0])
    assert all(isinstance(value, float) for value in flat.values()), "nothing without a figure goes to W&B"
    assert "energy/knn_k100/gaussian@500/auroc" in flat
    arrays = np.load(own.folder / "scores/id.npz")
    assert set(arrays) == {"knn_k100", "mahalanobis_cider", "label", "prediction", "belongs_to"}
    nearest = evaluations(wanted)[0]["geometry"]["features"]["nearest_class_accuracy"]
    assert (arrays["label"] == arrays["prediction"]).mean() == pytest.approx(nearest)
    assert not list((own.folder / "plots").glob("reliability.*"))
    for page in (own.folder / "report.html", rebuild_report(own.folder, own.folder / "again")):
        text = page.read_text()
        assert "accuracy of the nearest class mean" in text
        assert "never trained, so there is no confidence" in text
        assert "ECE (" not in text
        assert text.count("on two principal components") == 1


def degrees_of_mean(angles: np.ndarray) -> float:
    """The angle of the mean cosine of these angles."""
    return float(np.degrees(np.arccos(np.cos(np.radians(angles.astype(np.float64))).mean())))


@pytest.mark.drawn
def test_the_pictures_points_are_those_of_the_measures(cider):
    wanted = cider("score=knn_k100")
    train(wanted)
    entry = evaluations(wanted)[0]
    sphere = read_sphere(run(wanted).folder, entry)
    assert sphere.space == "embedding"
    assert set(sphere.angles) == {"id", "china_patches", "hopper_patches", "gaussian@500"}
    for name, angles in sphere.angles.items():
        assert degrees_of_mean(angles) == pytest.approx(entry["geometry"]["embedding"]["nearest"][name], abs=1e-3)
        assert (len(angles), sphere.points[name].shape) == (40, (40, 2))
    labels = np.load(run(wanted).folder / "scores/id.npz")["label"]
    assert [sphere.class_names[place] for place in sphere.labels] == ["0124567"[label] for label in labels]
    plots = {path.name for path in (run(wanted).folder / "plots").iterdir()}
    assert {"embedding.png", "embedding.svg", "angles.png", "angles.svg"} <= plots


def test_geometry_is_that_of_the_outputs(cider):
    """Angles by hand, from one pass in the order of the sets."""
    wanted = cider("geometry_images=60")
    train(wanted)
    found = evaluations(wanted)[0]["geometry"]
    own = run(wanted)
    model, transform = own.model(CPU), own.transform()
    images = training_data(wanted).labelled
    every = images.subset(np.linspace(0, len(images) - 1, 140).round().astype(int))
    some = every.subset(np.linspace(0, 139, 60).round().astype(int))  # of the 140 that max_fit_images leaves
    with torch.inference_mode():
        points = torch.nn.functional.normalize(model.features(transform(some.images)).double(), dim=1)
    means = torch.stack([points[some.labels == label].sum(0) for label in range(7)])
    means = torch.nn.functional.normalize(means, dim=1)
    cosines = (means @ means.T)[~torch.eye(7, dtype=torch.bool)]
    assert found["features"]["dispersion"] == pytest.approx(float(torch.rad2deg(torch.acos(cosines.mean()))), rel=1e-4)
    assert found["features"]["directions"] == "class means of 60 training images"
    prototypes = torch.nn.functional.normalize(method_state(own)["prototypes"].double(), dim=1)
    cosines = (prototypes @ prototypes.T)[~torch.eye(7, dtype=torch.bool)]
    assert found["embedding"]["dispersion"] == pytest.approx(float(torch.rad2deg(torch.acos(cosines.mean()))), rel=1e-6)
    assert found["embedding"]["directions"] == "prototypes of the method"
    for space in found.values():
        sets = {"china_patches", "hopper_patches", "gaussian@500"}
        assert set(space["nearest"]) == {"id", *sets}
        assert set(space["separability"]) == sets
        for name in sets:
            assert space["separability"][name] == pytest.approx(space["nearest"][name] - space["nearest"]["id"])
        assert space["mean_separability"] == pytest.approx(np.mean(list(space["separability"].values())))
        assert 0 <= space["compactness"] <= 180


def test_prototypes_travel_with_a_campaigns_slices(cider, tmp_path):
    wanted = cider("evaluate=false")
    train(wanted)
    own = run(wanted)
    slices.save(tmp_path / "state", [own], own.folder.parent, {})
    slices.restore(tmp_path / "state", tmp_path / "elsewhere")
    there = Run(tmp_path / "elsewhere" / own.name, own.identity)
    assert there.method_state.read_bytes() == own.method_state.read_bytes()
    assert there.finished
    assert not there.classifier_trained


def interrupted_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next training is killed before this step's update."""
    real = engine.Loop.update

    def update(self, batches, seed):
        if self.step == step:
            monkeypatch.setattr(engine.Loop, "update", real)
            raise KeyboardInterrupt
        return real(self, batches, seed)

    monkeypatch.setattr(engine.Loop, "update", update)


@pytest.mark.parametrize("words", [["prototype_rule=ema"], ["prototype_rule=learnable", "trainer.precision=bf16"]])
def test_killed_and_repeated_it_ends_in_the_same_bits(cider, tmp_path, monkeypatch, words):
    words = [*words, "evaluate=false", "max_steps=6", "epochs=2", "batch_size=50", "lr_schedule=steps"]
    words += ["milestones=[1]", "warm_up_epochs=1", "trainer.checkpoint_steps=2"]
    whole = cider(*words)
    train(whole)
    broken = replace(whole, paths=replace(whole.paths, outputs=str(tmp_path / "broken")))
    interrupted_at(5, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(broken)
    assert run(broken).checkpoint.exists()
    passes = []
    real = CIDER.prepare
    monkeypatch.setattr(CIDER, "prepare", lambda *given: passes.append(given) or real(*given))
    train(broken)
    assert passes == [], "a resumed run has its prototypes"
    for file in ("weights.safetensors", "method.safetensors"):
        assert (run(whole).folder / file).read_bytes() == (run(broken).folder / file).read_bytes()
    assert run(whole).record["trained"]["losses"] == run(broken).record["trained"]["losses"]


def test_prototypes_start_from_every_training_image_and_no_other(cider, monkeypatch):
    wanted = cider("evaluate=false", "holdout=0.2", "max_steps=1", "proto_m=1")
    seen = []
    real = CIDER.prepare

    def prepare(self, model, batches, passed=()):
        kept = list(passed)
        seen.extend(kept)
        real(self, model, batches, kept)

    monkeypatch.setattr(CIDER, "prepare", prepare)
    train(wanted)
    data = training_data(wanted)
    expected = wanted.transform.build()(data.labelled.images[data.train_rows])
    assert torch.equal(torch.cat([batch.images for batch in seen]), expected)
    assert torch.equal(torch.cat([batch.targets for batch in seen]), data.labelled.labels[data.train_rows])
    torch.manual_seed(wanted.seed)
    model = training.build_backbone(wanted.backbone, 7).eval()
    with torch.inference_mode():
        points = model.embed(expected)
    labels = data.labelled.labels[data.train_rows]
    sums = torch.stack([points[labels == label].sum(0) for label in range(7)])
    # With proto_m=1 the initial prototypes are the final ones.
    kept = load_file(run(wanted).folder / "method.safetensors")["prototypes"]
    assert torch.allclose(kept, torch.nn.functional.normalize(sums, dim=1), atol=1e-5)


RATES = json.loads((ROOT / "tests/vectors/vectors_jem_cider.json").read_text())["cider"]["learning_rate"]


@pytest.mark.parametrize(
    ("words", "case"),
    [
        ("experiment=cider/full/cifar10_cider_code", RATES[0]),
        ("experiment=cider/full/cifar100_cider_code", RATES[0]),
        ("experiment=cider/full/cifar10_cider", RATES[2]),
        ("experiment=cider/full/cifar100_supcon", RATES[2]),
        ("experiment=cider/full/cifar10_cider warm_up_epochs=0 negative_first_epoch=false", RATES[3]),
    ],
)
def test_experiments_have_the_official_learning_rates(words, case):
    """From the configuration's words to each recorded rate; 98 updates are an epoch of 50,000 images."""
    wanted = compose_settings(words.split())
    assert -(-50_000 // wanted.schedule.batch_size) == 98
    optimisation = wanted.schedule.optimisation()
    for point in case["points"]:
        rate = optimisation.rate(point["epoch"] * 98 + point["batch"], 500 * 98, 98)
        assert rate == pytest.approx(point["lr"], rel=1e-12, abs=1e-15)
    assert (min(point["lr"] for point in case["points"]) < 0) == wanted.schedule.negative_first_epoch


@pytest.mark.parametrize("name", ["cifar10_cider", "cifar100_cider", "cifar10_supcon", "cifar100_supcon"])
def test_the_first_releases_slip_is_there_and_can_be_left_out(name):
    """The official first release runs epoch 0 at negative rates; without its slip no rate is negative."""
    first = compose_settings([f"experiment=cider/full/{name}"]).schedule.optimisation()
    assert first.rate(0, 49_000, 98) == pytest.approx(-0.0489)
    plain = compose_settings([f"experiment=cider/full/{name}", "negative_first_epoch=false"]).schedule.optimisation()
    rates = [plain.rate(update, 49_000, 98) for update in range(0, 49_000, 7)]
    assert min(rates) > 0
    assert max(rates) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "momentum", "weight"),
    [("cifar10_cider", 0.99, 2), ("cifar100_cider", 0.5, 2), ("cifar100_cider_code", 0.5, 1)],
)
def test_the_releases_differ_in_their_weights_too(name, momentum, weight):
    """CIFAR-100's w became 1 on 2023-04-28, after the checkpoints were released."""
    knobs = compose_settings([f"experiment=cider/full/{name}"]).method.arguments
    assert (knobs["proto_m"], knobs["w"]) == (momentum, weight)


def test_selection_goes_by_the_methods_score_and_claims_no_accuracy(cider):
    wanted = cider("evaluate=false", "holdout=0.2", "max_eval_images=30")
    figure = train(wanted)
    record = run(wanted).record["validation"]
    assert figure == record["fpr95"]
    assert record["score"] == "knn_k100"
    assert record["accuracy"] is None
    assert 0 <= record["nearest_class_accuracy"] <= 1
    assert {kind: row for kind, row in record["corruptions"].items() if not 0 <= row["auroc"] <= 1} == {}


def test_supcon_has_no_prototypes_and_its_directions_are_class_means(cider):
    wanted = cider("method=supcon", "linear_probe=true", "score=knn_k100")
    train(wanted)
    assert not run(wanted).method_state.exists()
    first = evaluations(wanted)[0]
    assert first["geometry"]["embedding"]["directions"] == "class means of 140 training images"
    probe = first["id"]["linear_probe"]
    assert probe["fitted_on"] == 140
    assert 0.3 < probe["accuracy"] <= 1, "random features tell digits apart better than chance, 1 in 7"


@pytest.mark.drawn
def test_a_network_with_a_classifier_keeps_its_accuracy_and_gets_a_probe_when_asked(settings, capsys):
    words = ["method=ce", "ood_data=smoke", "max_eval_images=40", "score=msp"]
    train(settings(*words))
    wanted = settings(*words, "linear_probe=true")
    train(wanted)
    first, _, last, _ = evaluations(wanted)
    assert 0 <= first["id"]["accuracy"] <= 1
    assert "no_accuracy" not in first["id"] and "linear_probe" not in first["id"]
    assert set(first["geometry"]) == {"features"}
    assert first["geometry"]["features"]["directions"] == "class means of 140 training images"
    assert not run(wanted).method_state.exists()
    assert last["id"]["linear_probe"]["accuracy"] > 0.3
    capsys.readouterr()
    train(wanted)
    assert "nothing left to do" in capsys.readouterr().out
    points = run(wanted).folder / "geometry.npz"
    assert read_sphere(run(wanted).folder, last).space == "features"
    train(settings(*words, "score=energy", "geometry_images=0"))
    assert not points.exists(), "an older evaluation's points would be drawn beside the newer record"
    assert "No geometry: not asked for (geometry_images=0)." in (run(wanted).folder / "report.html").read_text()


def test_where_there_is_no_geometry_the_record_says_why(settings):
    wanted = settings("method=ce", "evaluate=false")
    train(wanted)
    off = Geometry(Predictor(run(wanted), replace(wanted, geometry_images=0), CPU))
    assert off.facts() == {"reason": "not asked for (geometry_images=0)"}
    assert off.spaces == {}
    assert off.sphere([]) is None
    model = run(wanted).model(CPU)
    for parameter in model.parameters():
        parameter.data.zero_()
    run(wanted).write_record(files={})  # or its hash would tell that these are other weights
    save_weights(run(wanted).weights, model)
    collapsed = Geometry(Predictor(run(wanted), wanted, CPU))
    assert "the network has collapsed" in collapsed.facts()["reason"]
    assert collapsed.sphere([]) is None


def test_networks_without_a_projection_head_are_refused_at_once(command, runs):
    done = command("train", "method=cider", "evaluate=false")
    assert done.status == 2
    assert done.err == (
        "error: method=cider needs a network with a projection head, and backbone=resnet20 has none: "
        "choose backbone=resnet18_cider\n"
    )
    assert runs() == []
