"""Everything that training or evaluation would refuse later, found before the first step and before any folder."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from farout.config.parse import plain_protocol
from farout.config.settings import Settings
from farout.data import DataPaths, open_dataset
from farout.data.streams import holdout_split
from farout.errors import ConfigError, FaroutError, MissingDataError
from farout.metrics import linear_probe
from farout.runs.inputs import EvaluationData, ImageSets, TrainingData, evaluation_data, spread
from farout.runs.run import Run, build_backbone, open_run
from farout.runs.scoring import score_file
from farout.scores import Score, TrainFacts


@dataclass(frozen=True)
class Checks:
    """What settings ask for against the images that there are."""

    settings: Settings

    def training(self, data: TrainingData) -> None:
        """Raise ConfigError or FaroutError for what training, validation or the evaluation after it would refuse."""
        settings = self.settings
        self._norm()
        self._parent()
        settings.transform.build().check_side(int(data.labelled.images.shape[-1]))
        labels = data.labelled.labels
        assert labels is not None  # as `training_data` has seen
        if settings.holdout > 0:
            self._scores([score_file(settings.method_score).build()], labels[data.train_rows])
            self._corruptions()
        if settings.evaluate:
            self.evaluation(labels[data.train_rows])

    def evaluation(self, train_labels: Tensor) -> EvaluationData:
        """What an evaluation needs, opened; raise where it would refuse. `train_labels` are of all that trained, (N,).

        Raises:
            MissingDataError: the ID test set, or every OOD set of the list, is not there.
            FaroutError: the protocol, all the scores or the probe ask for more images than there are.
            ConfigError: the labels of ID do not fit, or a score cannot be tuned.
        """
        settings = self.settings
        data = evaluation_data(settings)
        check_any(data, settings.ood_data.name)
        self._test_labels(data)
        sizes = {name: len(images) for name, images in data.ood.items()}
        for protocol in (settings.protocol, plain_protocol()):
            protocol.check_sizes(len(data.id_test), sizes)
        self._scores([component.build() for component in settings.scores], train_labels)
        if settings.linear_probe:
            linear_probe.check_labels(train_labels[spread(len(train_labels), settings.max_fit_images)])
        return data

    def _norm(self) -> None:
        settings = self.settings
        if settings.allow_batch_norm or settings.method.kind.admits_batch_norm:
            return
        with torch.device("meta"):
            model = build_backbone(settings.backbone, settings.id_data.num_classes)
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
            raise ConfigError(
                f"method={settings.method.name} needs a network without batch norm, and "
                f"backbone={settings.backbone.name} has it: choose backbone=wrn_28_10_jem or wrn_10_2_jem, "
                "or add allow_batch_norm=true"
            )

    def _parent(self) -> None:
        settings = self.settings
        if settings.init_from in (None, "auto"):
            return
        with torch.device("meta"):
            model = build_backbone(settings.backbone, settings.id_data.num_classes)
        open_run(settings.init_from).check_start(model)

    def _test_labels(self, data: EvaluationData) -> None:
        labels, own = data.id_test.labels, self.settings.id_data
        if labels is None:
            raise ConfigError(f"id_data={own.name} has no labels in its test split: give class folders")
        if int(labels.max()) >= own.num_classes or int(labels.min()) < 0:
            raise ConfigError(f"id_data={own.name}: the test split has labels outside 0 to {own.num_classes - 1}")

    def _scores(self, scores: list[Score], labels: Tensor) -> None:
        """Raise the first score's trouble where no score is without."""
        settings = self.settings
        with torch.device("meta"):
            width = build_backbone(settings.backbone, settings.id_data.num_classes).head.in_features
        images = len(spread(len(labels), settings.max_fit_images))
        train_facts = TrainFacts(images, int(width), settings.id_data.num_classes)
        troubles = []
        for score in scores:
            try:
                score.check(train_facts)
                if score.candidates():
                    self._corruptions()
            except FaroutError as trouble:
                troubles.append(trouble)
        if len(troubles) == len(scores):
            raise troubles[0]

    def _corruptions(self) -> None:
        ImageSets(self.settings).corruption_images()


def check_any(data: EvaluationData, ood_data: str) -> None:
    """Raise where no OOD set takes part: ConfigError for an empty list, else MissingDataError with the first reason."""
    if data.ood:
        return
    if not data.missing:
        raise ConfigError("ood_data.sets is empty: name at least one OOD set, e.g. ood_data=smoke")
    name, reason = next(iter(data.missing.items()))
    more = f" (and {len(data.missing) - 1} more)" if len(data.missing) > 1 else ""
    raise MissingDataError(
        f"no set of ood_data={ood_data} can be evaluated: {name}{more} - {reason}; or choose another list"
    )


def train_labels(run: Run, paths: DataPaths) -> Tensor:
    """(N,) labels of the images that a run was trained on."""
    own, known = run.identity["id_data"], run.identity
    labels = open_dataset(own["name"], own["train_split"], paths).labels
    if labels is None:
        raise ConfigError(f"id_data={own['name']} has no labels: give class folders")
    rule = known.get("holdout_rule", "permuted")
    return labels[holdout_split(len(labels), known.get("holdout") or 0.0, rule)[0]]
