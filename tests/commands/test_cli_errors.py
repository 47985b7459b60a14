"""Every mistake on the command line: one line that says what is allowed, status 2, and no run folder."""

import errno
import os
import re

import pytest

from farout.commands.arguments import plain

WRONG = {
    # Unknown options, added or not; the message lists what there is.
    "method=energy m_inn=-25": r"unknown option m_inn \(did you mean m_in\?\): method=energy has m_in, m_out",
    "method=energy +m_inn=-25": r"unknown option m_inn \(did you mean m_in\?\): method=energy has m_in, m_out",
    "method=energy ++m_inn=-25": r"unknown option m_inn \(did you mean m_in\?\)",
    "m_in=-25": r"unknown option m_in \(of method=energy\): method=ce has epochs",
    "+m_in=-25": r"unknown option m_in \(of method=energy\): method=ce has epochs",
    "method=oe ++m_in=-25": r"unknown option m_in \(of method=energy\): method=oe has oe_weight",
    "epoch=3": r"did you mean epochs\?",
    "trainer.devise=cpu": r"unknown option trainer\.devise \(did you mean device\?\)",
    "+trainer.devise=cpu": r"unknown option trainer\.devise \(did you mean device\?\)",
    "++trainer.devise=cpu": r"unknown option trainer\.devise \(did you mean device\?\)",
    "backbone.dept=20": r"unknown option backbone\.dept \(did you mean depth\?\): backbone has .*depth, width",
    "+backbone.num_classes=3": r"unknown option backbone\.num_classes",
    "+score.energy.temp=2": r"unknown option score\.energy\.temp: .* has temperature",
    "+method.m_in=-25 method=energy": r"unknown option method\.m_in",
    "+paths.output=x": r"unknown option paths\.output \(did you mean outputs\?\)",
    "+pretrain.epoch=3": r"unknown option pretrain\.epoch \(did you mean epochs\?\)",
    "+logger.projekt=x": r"unknown option logger\.projekt",
    "+transform.flips=true": r"unknown option transform\.flips \(did you mean flip\?\)",
    "+id_data.classes=3": r"unknown option id_data\.classes",
    "+ood_data.set=[svhn]": r"unknown option ood_data\.set ",
    "+protocol.bin=3": r"unknown option protocol\.bin ",
    "run=x": r"unknown option run\b",
    "+run=x": r"unknown option run\b",
    # Files of groups.
    "method=enrgy": r"method=enrgy is not there: choose from ce, cider, energy, jem, oe",
    "backbone=resnet2": r"backbone=resnet2 is not there: choose from allconv, .*resnet20",
    "score=[msp,foo]": r"score=foo is not there: choose from all, .*msp",
    "scale=big": r"scale=big is not there: choose from .*full, medium, small, smoke",
    "scale=": r"scale= is not there",
    "experiment=energy/nothing": r"experiment=energy/nothing is not there: choose from .*energy/full/cifar10_energy_ft",
    "experiment=energy/cifar10_softmax": r"is now experiment=energy/full/cifar10_softmax:",
    "experiment=[jem/cifar10]": r"experiment=jem/cifar10 is now experiment=jem/full/cifar10_jem:",
    "outliers=gaussian": r"outliers=gaussian is not there: choose from",
    "method=energy outliers=null": r"method=energy trains on outliers: set outliers=NAME",
    "schedule=small/ce": r"unknown option schedule",
    # Groups taken away or flattened.
    "~backbone": r"backbone is missing",
    "score=[]": r"score is missing",
    "pretrain=3": r"pretrain is missing or no group",
    "~epochs": r"epochs is missing",
    "~backbone.depth": r"backbone=resnet20 cannot be built .*depth",
    # Kinds and blanks.
    "method=energy m_in=": r"m_in is blank",
    "method=energy m_in=null": r"m_in is blank",
    "method=energy m_in=abc": r"m_in=abc is not a number",
    "method=energy m_in=nan": r"m_in=nan is not a number",
    "method=energy m_in=true": r"m_in=True is not a number",
    "epochs=": r"epochs is blank",
    "epochs=1.5": r"epochs=1.5 is not a whole number",
    "nesterov=maybe": r"nesterov=maybe is not true or false",
    "trainer.compile=1": r"trainer\.compile=1 is not an option: choose from auto, graphs, True, False",
    "trainer.precision=fp16": r"choose from auto, fp32, (tf32, )?bf16",
    "logger.mode=onlin": r"did you mean online\?",
    "outlier_order=random": r"choose from shuffle, window",
    "ood_data.sets=svhn": r"write ood_data\.sets=\[a,b\]",
    "paths.outputs=": r"paths\.outputs is blank",
    # Values that cannot be.
    "epochs=0": r"epochs=0 must be at least 1",
    "batch_size=0": r"batch_size=0 must be at least 1",
    "max_steps=0": r"max_steps=0 must be at least 1",
    "lr=0": r"lr=0 must be positive",
    "momentum=0": r"add nesterov=false",
    "seed=-1": r"seed=-1 must not be negative",
    "seed=99999999999999999999999": r"seed=99999999999999999999999 ",
    "holdout=1": r"holdout=1 is a share",
    "holdout=0.00001": r"leaves one side empty",
    "max_eval_images=0": r"max_eval_images=0 must be at least 1",
    "trainer.log_every=0": r"trainer\.log_every=0 must be at least 1",
    "trainer.eval_batch_size=0": r"trainer\.eval_batch_size=0",
    "trainer.checkpoint_steps=0": r"trainer\.checkpoint_steps=0",
    "trainer.checkpoint_minutes=-1": r"must not be negative",
    "trainer.device=cude": r"trainer\.device=cude is not a device: choose auto, cpu",
    "trainer.device=meta": r"trainer\.device=meta is not a device",
    "trainer.device=cuda:99": r"trainer\.device=cuda:99, but there is",
    "backbone.depth=21": r"depth=21 is no CIFAR ResNet",
    "backbone.width=0": r"backbone=resnet20 cannot be built",
    "backbone.name=a/b": r"backbone\.name=a/b names a folder",
    "method.name=../x": r"method\.name=\.\./x names a folder",
    "transform.std=[0,1,1]": r"those of std above 0",
    "transform.crop_padding=-1": r"must not be negative",
    "score.energy.temperature=0": r"temperature",
    "protocol.recall=2": r"protocol\.recall=2",
    "method.score=foo": r"method\.score=foo is not a score",
    "method._target_=os.path.join": r"is no training method",
    "method=energy m_in=25": r"m_in=25 has the wrong sign",
    "method=energy m_in=-5 m_out=-7": r"m_in=-5 must lie below m_out=-7",
    "method=energy temperature=0": r"temperature=0 must be positive",
    "method=oe oe_weight=-1": r"oe_weight=-1 is negative",
    "method=energy pretrain.epochs=0": r"pretrain\.epochs=0 must be at least 1",
    "method=energy pretrain.holdout=2": r"pretrain\.holdout=2 is a share",
    # Data sets and runs that are not there.
    "id_data.name=nothing": r"no data set 'nothing'",
    "ood_data.sets=[gaussian,nothing]": r"no data set 'nothing'",
    "ood_data.sets=[digits@3]": r"takes no argument",
    "id_data.num_classes=5": r"id_data=digits \(train\) has 7 classes, not 5: set id_data\.num_classes=7",
    "method=energy init_from=/nowhere": r"/nowhere is not a run folder",
    # What Hydra does not parse.
    "epochs": r"missing EQUAL",
    "epochs={": r"no viable alternative",
    "seed=1,2": r"Ambiguous value",
    "=3": r"=3 has no name: write NAME=VALUE",
}


@pytest.mark.parametrize("words", WRONG)
def test_one_line_and_no_folder(words, command, runs):
    done = command("train", *words.split())
    assert done.status == 2
    assert re.fullmatch(r"error: [^\n]+\n", done.err), done.err
    assert re.search(WRONG[words], done.err), done.err
    assert done.out == ""
    assert runs() == []


def test_an_unusable_outputs_folder(command, tmp_path):
    (tmp_path / "file").write_text("")
    done = command("train", f"paths.outputs={tmp_path / 'file'}")
    assert done.status == 2
    assert re.fullmatch(r"error: [^\n]+file[^\n]*\n", done.err)


def test_eval_of_nothing(command, runs):
    assert "does not exist: train it with the same overrides" in command("eval").err
    assert "is not a run folder" in command("eval", "run=/nowhere").err
    assert re.search(r"unknown option seeed .*\brun\b", command("eval", "seeed=3").err), "eval.py has the option run"
    assert runs() == []


def test_missing_data_says_how_to_get_it(command, runs, tmp_path):
    store, packs = f"paths.data={tmp_path / 'store'}", f"paths.packs={tmp_path / 'packs'}"
    done = command("train", "id_data=cifar10", store, packs)
    assert done.status == 2
    assert re.fullmatch(r"error: CIFAR-10[^\n]*prepare_data\.py cifar10[^\n]*\n", done.err), done.err
    assert runs() == []


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EROFS, "runs cannot be written (the disk is read-only): give a folder that you may write to"),
        (errno.ENOSPC, "runs cannot be written (the disk is full): make room and repeat the command"),
        (errno.EACCES, "runs: Permission denied"),  # which may be about reading
    ],
)
def test_what_a_disk_refuses_where_nobody_thought_of_it_says_what_to_do(number, said):
    assert plain(OSError(number, os.strerror(number), "runs")).startswith(said)
