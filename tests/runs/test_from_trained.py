"""CIDER, SupCon and JEM that go on from a trained classifier: what is new, what stays, and what cannot be a parent."""

import torch
from safetensors.torch import load_file
from torch import Tensor

from farout.backbones.projected_resnet import ProjectedCifarResNet
from farout.config.compose import compose_settings, parent_settings
from farout.config.settings import Settings
from farout.runs.run import Run, build_backbone, run_in, run_of
from farout.runs.training import train

CPU = torch.device("cpu")
CIDER = ["method=cider", "transform=digits_views", "backbone=resnet20_cider", "score=[knn_k100]"]


def run(wanted: Settings) -> Run:
    return run_of(wanted, CPU)


def weights(of: Run) -> dict[str, Tensor]:
    return load_file(of.weights)


def test_only_the_last_stage_and_a_fresh_head_move(settings):
    parent = settings("method=ce", "evaluate=false")
    train(parent)
    words = [*CIDER, f"init_from={run(parent).folder}", "evaluate=false", "backbone.trainable=[layer3]"]
    child = settings(*words, "weight_decay=0.1")
    train(child)
    before, after = weights(run(parent)), weights(run(child))
    torch.manual_seed(child.seed)
    fresh = build_backbone(child.backbone, 7).state_dict()
    assert {name.partition(".")[0] for name in after.keys() - before.keys()} == {"projection"}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    for name, value in after.items():
        frozen = name.startswith(("conv1.", "bn1.", "layer1.", "layer2.", "linear.")) and not name.endswith(statistics)
        if name.startswith("projection."):
            assert not torch.equal(value, fresh[name]) and (value - fresh[name]).abs().max() < 0.2, name
        else:
            assert torch.equal(value, before[name]) == frozen, name
    assert run(child).record["identity"]["backbone"]["trainable"] == ["layer3"]
    assert run(settings(*words[:-1])).name != run(child).name, "what trains is part of the run"
    assert "trainable" not in run(settings(*words[:-1], "backbone.trainable=null")).identity["backbone"]


def test_frozen_statistics_are_the_parents_when_all_else_has_moved(settings):
    parent = settings("method=ce", "evaluate=false")
    train(parent)
    words = [*CIDER, f"init_from={run(parent).folder}", "evaluate=false"]
    child = settings(*words, "backbone.freeze_statistics=true")
    train(child)
    before, after = weights(run(parent)), weights(run(child))
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    for name, value in before.items():
        still = name.endswith(statistics) or name.startswith("linear.")
        assert torch.equal(value, after[name]) == still, name
    assert run(child).record["identity"]["backbone"]["freeze_statistics"] is True
    usual = run(settings(*words))
    assert usual.name == run(settings(*words, "backbone.freeze_statistics=false")).name != run(child).name
    assert "freeze_statistics" not in usual.identity["backbone"], "runs of before keep their names"


def test_the_head_starts_as_the_seed_has_it_and_the_trunk_as_the_parent(settings):
    parent = settings("method=ce", "evaluate=false")
    train(parent)
    model = ProjectedCifarResNet(20, 7)
    own = {name: value.clone() for name, value in model.state_dict().items() if name.startswith("projection.")}
    run(parent).start(model)
    assert len(own) == 4
    assert all(torch.equal(model.state_dict()[name], value) for name, value in {**weights(run(parent)), **own}.items())


def test_a_wrong_parent_is_one_line_and_leaves_no_run(settings, command, runs):
    parent = settings("method=ce", "evaluate=false")
    train(parent)
    start, before = f"init_from={run(parent).folder}", runs()
    of_other_blocks = settings("method=ce", "evaluate=false", "backbone=resnet18", "backbone.width=2")
    train(of_other_blocks)
    known = runs()
    for words, said in {
        (start, "backbone=resnet18_cider"): "a projection head, e.g. backbone=resnet20_cider, of the same width",
        (start, "backbone.width=8"): "a projection head, e.g. backbone=resnet20_cider, of the same width",
        (start, "transform.mean=[0.4,0.4,0.4]"): "add transform.mean=[0.5,0.5,0.5] transform.std=[0.5,0.5,0.5]",
        (start, "backbone.trainable=[layer4]"): "there is no layer4, only conv1, bn1, layer1, layer2, layer3",
        ("init_from=RUN",): "RUN is not a run folder",
        (
            f"init_from={run(of_other_blocks).folder}",
            "backbone=resnet34_cider",
            "backbone.width=2",
        ): "init_from was trained with backbone=resnet18, whose tensors are others: choose that one",
    }.items():
        done = command("train", *CIDER, *words)
        assert (done.status, done.err.count("\n")) == (2, 1), words
        assert said in done.err
        assert runs() == known
    assert len(before) == 1


def test_jem_and_the_classifier_beside_it_start_from_the_small_scales_classifier():
    rows = [compose_settings([f"experiment=jem/small_from_trained/cifar10_{row}"]) for row in ("jem", "ce")]
    parents = {run_in(parent_settings(row), "fp32", None).name for row in rows}
    assert parents == {run_in(compose_settings(["experiment=jem/small/cifar10_ce"]), "fp32", None).name}
    jem, classifier = (row.schedule.record() for row in rows)
    assert {key: jem[key] for key in classifier} == classifier, "as long, at the same rates"
    swept = compose_settings(["experiment=jem/small_from_trained/cifar10_jem", "backbone.trainable=[layer3]"])
    assert run_in(parent_settings(swept), "fp32", None).name in parents, "its parent trained whole"


def test_cider_and_what_stands_beside_it_see_as_many_images():
    rows = ("ce", "supcon", "cider")
    own = {row: compose_settings([f"experiment=cider/small_from_trained/cifar10_{row}"]) for row in rows}
    views = {row: wanted.transform.arguments["views"] * wanted.schedule.epochs for row, wanted in own.items()}
    assert views["ce"] == views["supcon"] == views["cider"]
    assert {wanted.schedule.lr_schedule for wanted in own.values()} == {"cosine"}, "annealed, or the start is lost"
    cider, supcon = own["cider"], own["supcon"]
    assert cider.schedule.record() == supcon.schedule.record()
    assert cider.transform.arguments == supcon.transform.arguments
