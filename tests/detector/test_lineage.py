"""Which images no network of a line has seen: the chain of parents is followed, or the reason says why not."""

import json
import shutil
from collections.abc import Callable

import numpy as np
import pytest
import torch

from farout.data import DataPaths, ImageSet
from farout.data.streams import holdout_split
from farout.errors import FaroutError
from farout.runs import lineage
from farout.runs.lineage import ancestry, training_images, unseen_images
from farout.runs.run import Run

Trained = Callable[..., Run]


def test_the_holdout_of_the_whole_line(run: Run, data_paths: DataPaths, digits: ImageSet) -> None:
    assert [member.identity["method"]["name"] for member in ancestry(run)] == ["energy", "ce"]
    found = unseen_images(run, data_paths)
    rows, held = holdout_split(len(digits), 0.2)
    assert torch.equal(found.images, digits.images[held.sort().values]), "digits have no copies"
    assert torch.equal(training_images(run, data_paths).images, digits.images[rows])


def test_a_parent_that_saw_the_holdout_is_told(trained: Trained, data_paths: DataPaths) -> None:
    child = trained("method=energy", "holdout=0.2")
    with pytest.raises(FaroutError, match=r"from ce-resnet20.* train again with pretrain\.holdout=0\.2") as caught:
        unseen_images(child, data_paths)
    assert "\n" not in str(caught.value)


def test_a_parent_that_held_out_more_or_less_leaves_what_both_held_out(
    trained: Trained, data_paths: DataPaths, digits: ImageSet
) -> None:
    child = trained("method=energy", "holdout=0.2", "pretrain.holdout=0.1")
    both = set(holdout_split(len(digits), 0.2)[1].tolist()) & set(holdout_split(len(digits), 0.1)[1].tolist())
    found = unseen_images(child, data_paths)
    assert np.array_equal(found.images.numpy(), digits.images[sorted(both)].numpy())


def test_named_parents_are_known_by_their_weights(trained: Trained, data_paths: DataPaths) -> None:
    parent = trained("method=ce", "holdout=0.2")
    child = trained("method=energy", "holdout=0.2", f"init_from={parent.folder}")
    assert [member.name for member in ancestry(child)] == [child.name, parent.name]
    assert len(unseen_images(child, data_paths)) > 0
    parent.weights.write_bytes(parent.weights.read_bytes() + b"x")
    with pytest.raises(FaroutError, match=r"started from a run \(weights-.*nobody can tell"):
        unseen_images(child, data_paths)


def test_a_line_that_is_not_there_is_told(run: Run, data_paths: DataPaths, tmp_path) -> None:
    alone = Run(tmp_path / run.name, run.identity)
    shutil.copytree(run.folder, alone.folder)
    with pytest.raises(FaroutError, match=r"that is not in .* nobody can tell whether that saw the holdout"):
        unseen_images(alone, data_paths)


def test_a_parent_of_another_set_is_told(trained: Trained, data_paths: DataPaths) -> None:
    child = trained("method=energy", "holdout=0.2", "pretrain.holdout=0.2")
    parent = ancestry(child)[1]
    record = json.loads((parent.folder / "run.json").read_text())
    record["identity"]["id_data"]["name"] = "others"
    (parent.folder / "run.json").write_text(json.dumps(record))
    with pytest.MonkeyPatch.context() as patch:  # the changed record has another fingerprint
        patch.setattr(lineage, "parent_of", lambda mark, member: Run(parent.folder, record["identity"]))
        with pytest.raises(FaroutError, match="was trained on others; whether it saw the holdout cannot be told"):
            unseen_images(child, data_paths)


def test_data_that_changed_since_training_are_told(trained: Trained, data_paths: DataPaths) -> None:
    run = trained("method=ce", "holdout=0.2")
    record = json.loads((run.folder / "run.json").read_text())
    record["data"]["labelled"]["sha256"] = "0" * 64
    (run.folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(FaroutError, match="has changed since"):
        unseen_images(run, data_paths)


def test_copies_of_training_images_are_not_unseen(digits: ImageSet) -> None:
    images, seen = digits.subset(range(20)), digits.subset([*range(15, 60)])
    assert torch.equal(lineage._without_copies(images, seen).images, digits.images[:15])
    assert len(lineage._without_copies(images, digits.subset(range(30, 60)))) == 20
