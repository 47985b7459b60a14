"""What evaluation, validation or training would refuse later is refused before there is a run folder."""

import json
from dataclasses import replace

import pytest
import torch

from farout.config.coerce import Component
from farout.errors import FaroutError, MissingDataError
from farout.runs.checks import Checks, check_any
from farout.runs.evaluation import evaluate
from farout.runs.inputs import evaluation_data, training_data
from farout.runs.run import run_of
from farout.runs.training import train
from farout.scores import Score

CPU = torch.device("cpu")
SMALL = ["method=ce", "ood_data.sets=[gaussian@20]", "max_eval_images=8", "geometry_images=0", "protocol=plain"]

REFUSED = {
    "protocol.ratio=999999": r"64 ID images are too few for 1 OOD image in 999999: lower protocol\.ratio",
    "protocol=energy max_eval_images=1": r"1 ID images are too few for 1 OOD image in 5",
    "protocol.bins=99999999999999": r"protocol\.bins=99999999999999: give at most 10,000",
    "protocol.redraws=99999999999999999999": r"protocol\.redraws=99999999999999999999: give at most 10,000",
    "protocol.bootstrap=1000000000": r"protocol\.bootstrap=1000000000: give at most 100,000",
    "score=[knn] score.knn.k=10000000": r"score knn_k10000000 has 882 training images: set k to at most as many",
    "score=[knn] score.knn.k=51 max_fit_images=50": r"score knn_k51 has 50 training images",
    "score=[knn] score.knn.k=800 holdout=0.1": r"score knn_k800 has 794 training images",
    "score=[vim] score.vim.dimension=64": r"a principal space of 64 dimensions leaves nothing of 64 features",
    "score=[odin] score.odin.tune=true id_data.corruption_base=null": r"no validation corruptions to choose by",
    "score=[odin] score.odin.tune=true id_data.corruption_base=cifarx": r"no data set 'cifarx'",
    "holdout=0.1 method.score=knn max_fit_images=20": r"score knn has 20 training images",
    "linear_probe=true max_fit_images=1": r"a linear probe tells classes apart",
    "ood_data.sets=[gaussian@-5]": r"gaussian@-5: -5 is no number of images: give 1 to 100,000, e\.g\. gaussian@2000",
    "ood_data.sets=[gaussian@abc]": r"gaussian@abc: abc is no number of images",
    "ood_data.sets=[gaussian@0]": r"gaussian@0: 0 is no number",
    "ood_data.sets=[blobs@1e3]": r"blobs@1e3: 1e3 is no number",
    "ood_data.sets=[gaussian@100000000000]": r"gaussian@100000000000: .* give 1 to 100,000",
    "ood_data.sets=[interp@nothing]": r"no data set 'nothing'",
    "ood_data.sets=[]": r"ood_data\.sets is empty: name at least one",
    "ood_data.sets=[digits]": r"no set of ood_data=\w+ can be evaluated: digits - it is the in-distribution set",
    "transform.crop_padding=100000 evaluate=false": r"transform\.crop_padding=100000: .*at most.* 32",
    "method=jem evaluate=false": r"method=jem needs a network without batch norm, and backbone=resnet20 has it",
}


@pytest.mark.parametrize("words", REFUSED)
def test_before_training_and_before_any_folder(words, settings, runs):
    with pytest.raises(FaroutError, match=REFUSED[words]) as refused:
        train(settings("method=ce", *words.split()))
    assert "\n" not in str(refused.value)
    assert runs() == []


def test_what_can_be_done_is_not_refused(settings):
    """One impossible score beside a possible one is skipped later; sets that are not there are left out."""
    words = ["score=[msp,knn]", "score.knn.k=5000", "ood_data.sets=[svhn,gaussian@20]", "max_eval_images=1"]
    own = settings("method=ce", "protocol=plain", *words)
    absent = replace(own, paths=replace(own.paths, packs="/nowhere"))
    Checks(absent).training(training_data(absent))
    assert list(Checks(absent).evaluation(training_data(absent).labelled.labels).ood) == ["gaussian@20"]
    batch_norm = settings("method=jem", "evaluate=false", "allow_batch_norm=true")
    Checks(batch_norm).training(training_data(batch_norm))
    wrn = settings("method=jem", "backbone=wrn_10_2_jem", "evaluate=false")
    Checks(wrn).training(training_data(wrn))


def test_images_that_are_all_copies_leave_a_set_out(settings, monkeypatch):
    from farout.runs import inputs

    monkeypatch.setattr(inputs, "find_duplicates", lambda _, images: torch.arange(len(images)).numpy())
    data = evaluation_data(own := settings(*SMALL))
    assert data.missing == {"gaussian@20": "none of its 20 images is left: training or ID has copies of all"}
    with pytest.raises(MissingDataError, match="gaussian@20 - none of its 20 images"):
        check_any(data, own.ood_data.name)


class Broken(Score):
    """Cannot be fitted, or gives no numbers."""

    def __init__(self, name: str, needs: bool = False) -> None:
        self.name, self.needs = name, ("head",) if needs else ()

    def fit(self, fitting):
        raise FaroutError(f"score {self.name} wants what nobody has")

    def __call__(self, outputs):
        return outputs.logits.amax(1) * float("nan")


def broken(name: str, needs: bool) -> Component:
    return Component(name, f"{__name__}.Broken", {"name": name, "needs": needs})


def test_a_score_that_cannot_be_had_is_skipped_and_the_only_one_is_an_error(settings, capsys):
    own = settings(*SMALL, "score=msp")
    train(replace(own, evaluate=False))
    run = run_of(own, CPU)
    evaluate(replace(own, scores=(broken("unfit", True), *own.scores, broken("nan", False))))
    (entry,) = json.loads(run.results.read_text())["evaluations"]
    assert {row["score"] for row in entry["rows"]} == {"msp"}
    assert entry["skipped_scores"]["unfit"] == "score unfit wants what nobody has"
    assert "8 NaN or infinite values" in entry["skipped_scores"]["nan"]
    assert "skipped: score unfit wants" in capsys.readouterr().out
    before = {path: path.read_bytes() for path in run.folder.rglob("*.*") if path.suffix in (".json", ".npz", ".html")}
    for alone in (broken("unfit", True), broken("nan", False)):
        with pytest.raises(FaroutError, match=r"wants what nobody has|NaN or infinite"):
            evaluate(replace(own, scores=(alone,)))
    for words, message in ((["ood_data.sets=[digits]"], "in-distribution set"), (["ood_data.sets=[]"], "is empty")):
        with pytest.raises(FaroutError, match=message):
            evaluate(settings(*SMALL, "score=msp", *words))
    assert before == {path: path.read_bytes() for path in before}, "a refused evaluation leaves all as it was"
    assert evaluate(own) is None
