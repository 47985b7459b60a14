"""Same overrides, same run: what is part of a run's identity and what is not."""

import json
from dataclasses import replace

import pytest
import torch

from farout.config.compose import compose_settings, parent_settings
from farout.config.settings import ROOT, Settings
from farout.errors import ConfigError
from farout.report.records import is_run_record
from farout.reproduce.command_lines import command_of
from farout.reproduce.trials import Trial
from farout.runs.run import Run, fingerprint, identity_of, parent_run, run_in, run_of

CPU = torch.device("cpu")
CHILD = "method=energy"
# Written down before the learning rate had other courses than the cosine.
KNOWN = {
    "method=ce scale=small": "ce-resnet20-cifar10-9d103470-s1",
    "method=energy scale=small outliers=cifar100": "energy-resnet20-cifar10-cifar100-ab92b12c-s1",
    "method=oe scale=small outliers=cifar100": "oe-resnet20-cifar10-cifar100-82fa5b48-s1",
    "experiment=oe/full/svhn_baseline": "ce-wrn_16_4-svhn-3d68fbd8-s1",
    "experiment=jem/small/cifar10_jem": "jem-wrn_10_2_jem-cifar10-8d79d20e-s1",
    # Was 8342f126 while its outliers were not flipped: those weights are others.
    "experiment=oe/full/svhn_oe_scratch": "oe_scratch-wrn_16_4-svhn-random_images_300k-17cb4e98-s1",
}
COURSES = [
    "lr_schedule=epoch_cosine",
    "lr_schedule=steps milestones=[2]",
    "lr_schedule=steps lr_factor=0.5",
    "lr_schedule=steps warm_up_epochs=2",
    "lr_schedule=epoch_cosine warm_up_epochs=2 warm_up_lr=0.002",
    "lr_schedule=epoch_cosine warm_up_epochs=2 negative_first_epoch=true",
]
UNDONE = ["milestones=[]", "lr_factor=0.1", "warm_up_epochs=0", "warm_up_lr=0.001", "negative_first_epoch=false"]


def name(settings: Settings) -> str:
    return run_of(settings, CPU).name


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("m_in=-25 m_out=-7", ""),
        ("m_in=-25", "m_in=-25.0"),
        ("m_in=-25", "m_in='-25'"),
        ("m_in=-25", "m_in=-2.5e1"),
        ("epochs=3", "epochs=3.0"),
        ("max_steps=null", "max_steps=null epochs=1"),
        ("lr=0.001", "lr=1e-3"),
        ("holdout=0", "holdout=0.0"),
        ("transform.mean=[0.5,0.5,0.5]", ""),
        ("init_from=auto", ""),
        ("trainer.precision=fp32", "trainer.precision=auto"),
    ],
)
def test_equivalent_spellings_are_one_run(settings, one, other):
    assert name(settings(CHILD, *one.split())) == name(settings(CHILD, *other.split()))


@pytest.mark.parametrize(
    "words",
    [
        "logger=wandb",
        "logger=wandb logger.project=other",
        "trainer.device=cpu",
        "trainer.compile=true",
        "trainer.channels_last=false",
        "trainer.checkpoint_steps=1 trainer.budget_minutes=3 trainer.log_every=1 trainer.eval_batch_size=7",
        "paths.data=/somewhere paths.packs=/else",
        "score=msp",
        "score.energy.temperature=2",
        "protocol=oe",
        "protocol.bins=7",
        "ood_data=stand_in",
        "ood_data.sets=[gaussian]",
        "evaluate=false",
        "max_eval_images=10",
        "method.score=msp",
    ],
)
def test_how_and_where_are_no_part_of_it(settings, words):
    assert name(settings(CHILD, *words.split())) == name(settings(CHILD))


CHANGES = [
    "m_in=-24",
    "m_out=-6",
    "energy_weight=0.2",
    "temperature=2",
    "backbone=resnet56",
    "backbone.width=8",
    "outliers=cifar100",
    "outlier_order=window",
    "max_outlier_images=100",
    "transform.flip=true",
    "transform.crop_padding=2",
    "transform.mean=[0.4,0.5,0.5]",
    "transform.outlier_augmentation=none",
    "epochs=2",
    "max_steps=4",
    "batch_size=9",
    "outlier_batch_size=17",
    "lr=0.002",
    "lr_end=0",
    "momentum=0.8",
    "nesterov=false",
    "weight_decay=0",
    "holdout=0.1",
    "trainer.precision=bf16",
    "init_from=null",
    "pretrain.epochs=2",
    "pretrain.lr=0.05",
    "pretrain.holdout=0.1",
    "seed=2",
    "id_data=cifar10",
    "id_data.num_classes=8",
    "method=oe",
]


@pytest.mark.parametrize("words", CHANGES)
def test_each_part_of_the_identity_makes_another_run(settings, words):
    assert name(settings(CHILD, *words.split())) != name(settings(CHILD))


def test_all_changes_differ_from_each_other(settings):
    names = [name(settings(CHILD, *words.split())) for words in CHANGES]
    assert len(set(names)) == len(names)


def test_the_name_tells_method_network_data_outliers_and_seed(settings):
    assert name(settings(CHILD, "seed=3")).startswith("energy-resnet20-digits-flower_patches-")
    assert name(settings(CHILD, "seed=3")).endswith("-s3")
    fingerprints = {name(settings(CHILD, f"seed={seed}")).split("-")[-2] for seed in (1, 2)}
    # The parent is of the same seed, and its mark leaves the seed out.
    assert len(fingerprints) == 1


@pytest.mark.parametrize(
    "words",
    [
        "outliers=cifar100",
        "outlier_batch_size=3",
        "outlier_order=window",
        "max_outlier_images=9",
        "transform.outlier_augmentation=flip",
    ],
)
def test_cross_entropy_knows_nothing_of_outliers(settings, words):
    assert name(settings("method=ce", words)) == name(settings("method=ce"))


def test_a_fingerprint_that_runs_on_disk_depend_on(settings):
    """If this fails, the definition of identity changed and every finished run is lost: do not just edit the name."""
    assert name(settings("method=energy")) == "energy-resnet20-digits-flower_patches-6e991f58-s1"


@pytest.mark.parametrize(("words", "expected"), KNOWN.items())
def test_runs_of_before_other_learning_rate_schedules_are_still_found(words, expected):
    settings = compose_settings(words.split())
    if "scale=small" in words:  # which asked for bf16, where it has auto now
        above = run_in(parent_settings(settings), "bf16", None) if settings.init_from == "auto" else None
        assert run_in(settings, "bf16", above).name == expected
    else:
        assert name(settings) == expected
    said = identity_of(settings, "fp32", CPU)["schedule"]
    assert ("lr_schedule" in said) == ("milestones" in said) == (settings.method.name == "jem")


@pytest.mark.parametrize("words", COURSES)
def test_another_course_of_the_learning_rate_is_another_run(settings, words):
    usual, other = settings("epochs=9"), settings("epochs=9", *words.split())
    assert name(other) != name(usual)
    assert name(settings("epochs=9", *words.split(), "lr_schedule=cosine", *UNDONE)) == name(usual)
    changed = {key: value for key, value in other.schedule.record().items() if key not in usual.schedule.record()}
    assert set(changed) == {word.partition("=")[0] for word in words.split()}


# --- the parent of a fine-tuning run


def parent(settings: Settings) -> Run:
    found = parent_run(settings, CPU)
    assert found is not None
    return found


@pytest.mark.parametrize("child", ["method=energy", "method=oe"])
@pytest.mark.parametrize("words", ["", "backbone=resnet56", "seed=2", "transform.crop_padding=2", "scale=small"])
def test_the_parent_is_the_cross_entropy_run(settings, child, words):
    expected = run_of(settings("method=ce", *words.split()), CPU)
    assert parent(settings(child, *words.split())).identity == expected.identity


@pytest.mark.parametrize(
    "words",
    [
        "lr=0.01 epochs=5 batch_size=3 momentum=0.5 weight_decay=0 max_steps=1",
        "outliers=cifar100 outlier_batch_size=3 outlier_order=window",
        "trainer.precision=bf16",
        "holdout=0.2",
        "m_in=-12 m_out=-3",
        "evaluate=false score=msp",
    ],
)
def test_the_childs_training_does_not_touch_the_parent(settings, words):
    assert parent(settings(CHILD, *words.split())).identity == parent(settings(CHILD)).identity


@pytest.mark.parametrize(
    "part", ["epochs=2", "max_steps=1", "batch_size=3", "lr=0.01", "lr_end=0", "nesterov=false", "holdout=0.1"]
)
def test_pretrain_is_the_parents_own(settings, part):
    own = parent(settings(CHILD, f"pretrain.{part}"))
    assert own.identity == run_of(settings("method=ce", part), CPU).identity
    assert own.name != parent(settings(CHILD)).name


def test_parents_have_no_parents_and_children_from_scratch_none(settings):
    assert parent_run(settings("method=ce"), CPU) is None
    assert parent_run(settings(CHILD, "init_from=null"), CPU) is None
    assert parent_settings(settings(CHILD)).init_from is None


# --- precision


def test_auto_takes_up_a_run_begun_in_the_other_precision(settings):
    auto, bf16 = settings("method=ce"), settings("method=ce", "trainer.precision=bf16")
    assert run_of(auto, CPU).identity["precision"] == "fp32"
    begun = run_of(bf16, CPU)
    begun.folder.mkdir(parents=True)
    begun.write_record()
    assert run_of(auto, CPU) == begun
    assert run_of(settings("method=ce", "trainer.precision=fp32"), CPU).identity["precision"] == "fp32"
    own = run_in(auto, "fp32", None)
    own.folder.mkdir(parents=True)
    own.write_record()
    assert run_of(auto, CPU) == own, "the device's own precision goes first"


# --- names are folders


@pytest.mark.parametrize("word", [f"ood_data.sets=[{name}]" for name in ("../cifar100", "/etc", "a/b", "..", ".x")])
def test_a_name_never_leaves_its_folder(settings, word):
    with pytest.raises(ConfigError, match=r"is no name of a (data set|run's folder)"):
        run_of(settings(CHILD, word), CPU)
    with pytest.raises(ConfigError, match="names a folder"):
        settings("backbone.name=../x")
    with pytest.raises(ConfigError, match="is no name of a run's folder"):
        run_of(settings(f"backbone.name={'x' * 200}"), CPU)


# --- runs that are recorded


RECORDS = [path for path in sorted((ROOT / "results").glob("*.json")) if is_run_record(path)]
OWN = [path for path in RECORDS if not json.loads(path.read_text())["run"].startswith("imported-")]


@pytest.mark.parametrize("path", [path for path in OWN if path.stem.endswith("-s1")], ids=lambda path: path.stem)
def test_every_run_of_the_results_is_found_again_by_its_command(path):
    """Whatever it started from, and whatever files of conf/ have come to say since."""
    record = json.loads(path.read_text())
    identity = {key: value for key, value in record["identity"].items() if key != "scale"}
    words = command_of(Trial(record, record["evaluations"][-1])).split()[1:]
    own = replace(compose_settings([word for word in words if not word.startswith("init_from=")]), init_from=None)
    assert {**identity_of(own, identity["precision"], CPU), "parent": identity["parent"]} == identity
    assert record["run"].split("-")[-2] == fingerprint(identity)


def test_full_runs_of_another_device_are_found_beside_each_other(tmp_path):
    """The classifier first, as it decides what its children are called; all were trained in bf16."""
    rows = {
        "softmax": "ce-wrn_40_2-cifar10-288a3327-s1",
        "energy_ft": "energy-wrn_40_2-cifar10-cifar100-8719f444-s1",
        "oe_ft": "oe-wrn_40_2-cifar10-cifar100-55f6d137-s1",
    }
    for row, expected in rows.items():
        words = ["outliers=cifar100", "trainer.precision=bf16", f"paths.outputs={tmp_path}"]
        run = run_of(compose_settings([f"experiment=energy/full/cifar10_{row}", *words]), CPU)
        assert run.name == expected
        run.folder.mkdir(parents=True)
        run.write_record()
