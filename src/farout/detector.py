"""A finished run, or any classifier, for use: pictures in, a class and a verdict out.

    detector = farout.Detector.from_run("outputs/runs/NAME", score="energy")
    detector.predict(["cat.jpg", "chart.png"])
    detector.save("detector.safetensors")

    weights = torchvision.models.ResNet18_Weights.DEFAULT
    model = torchvision.models.resnet18(weights=weights)
    detector = farout.Detector.from_model(model, weights.transforms(), calibration="my_photos/", score="energy")

A picture is in-distribution where its score reaches tau, which a given share (`tpr`) of in-distribution images that
the network did not train on reach. Test sets have no say in it. Pictures of another size than a run's input are
resized, the shorter side to it, bilinearly by PIL, and cropped in the centre; a classifier of your own has a transform.
"""

import json
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from farout.backbones import Backbone
from farout.config.coerce import Component, component
from farout.data import DataPaths, ImageSet, default_paths
from farout.data.given import Given, Preprocess
from farout.data.pictures import Picture, Pictures, batches
from farout.data.transform import AsGiven, Transform
from farout.engine.evaluate import collect
from farout.errors import ConfigError, FaroutError
from farout.evaluation.classifier import Classifier, ReadyClassifier, as_classifier
from farout.evaluation.evaluate import fitted_scores
from farout.files import write_bytes
from farout.runs.environment import choose_device
from farout.runs.inputs import capped
from farout.runs.lineage import has_labelled_images, labelled_images, overlaps, training_images, unseen_images
from farout.runs.run import Run, build_backbone, open_run
from farout.runs.scoring import head_of, score_file
from farout.scores import Fitting, Head, ImageScore, Outputs, Score
from farout.scores.state import decode, encode
from farout.shapes import NUMBER, misfit
from farout.version import __version__

FORMAT = 1
# The JSON in a saved detector.
SPEC = {"network": dict, "transform": dict, "score": dict, "classes": [str], "num_classes": int, "side": int}
SPEC |= {"run": str, "id_data": str, "tpr": NUMBER, "tau": NUMBER, "calibration": (dict, None), "format": int}
CONTENT = {"spec": SPEC, "score_state": dict}
METADATA = "farout_detector"
BATCH_SIZE = 256


class DetectorNote(UserWarning):
    """Something about a threshold that its user should know."""


@dataclass(frozen=True)
class Prediction:
    """What a detector says of one picture."""

    index: int  # of the class with the largest logit
    name: str
    score: float  # larger = more in-distribution
    in_distribution: bool


@dataclass(frozen=True)
class Spec:
    """All of a detector that is neither a weight nor a fitted tensor; JSON in a saved one.

    `network`, `transform` and `score` are arguments with `_target_` and `name`; `side` is the network's input in
    pixels; `calibration` says on what and how many images tau was chosen, `run` of which run. A model that was given
    has no `_target_`, but the name of its `head`; its transform and side are not known.
    """

    network: dict[str, Any]
    num_classes: int
    transform: dict[str, Any]
    score: dict[str, Any]
    classes: tuple[str, ...]
    side: int
    run: str
    id_data: str
    tpr: float
    tau: float = math.nan
    calibration: dict[str, Any] | None = None
    format: int = FORMAT
    version: str = __version__


class Detector:
    """A network, its transform, a fitted score and a threshold; made by `from_run` or `load`.

    Attributes:
        spec: what it is made of, and how tau was chosen.
        classes: names by class index.
        device: where the network is.
    """

    spec: Spec
    device: torch.device

    def __init__(self, spec: Spec, network: Backbone | ReadyClassifier, score: Score, device: torch.device) -> None:
        self.spec, self.device = spec, device
        self._given = network if isinstance(network, ReadyClassifier) else None
        model = network.network if isinstance(network, ReadyClassifier) else network
        self.model = model.to(device).eval().requires_grad_(False)
        self.transform: Transform = (
            AsGiven(self._given.std) if self._given else component(spec.transform, "transform").build()
        )
        self._score = score

    @classmethod
    def from_run(
        cls,
        run_dir: str | Path,
        score: str | Component = "energy",
        tpr: float = 0.95,
        calibration_images: Pictures | None = None,
        device: str = "auto",
        *,
        side: int | None = None,
        max_fit_images: int | None = None,
    ) -> "Detector":
        """The detector of a finished run.

        Args:
            run_dir: a folder of outputs/runs.
            score: a file of conf/score, or a component with arguments of your own. What it fits, it fits on the
                images that the run trained on.
            tpr: share of the calibration images that are to be accepted.
            calibration_images: in-distribution pictures that the network did not train on; None: the run's holdout,
                as far as the runs that it started from held it out too.
            device: auto, cpu, cuda or cuda:N.
            side: of the network's input, in pixels, where neither the run nor its data tell.
            max_fit_images: at most so many training images are fitted on; None: all.

        Raises FaroutError, in one line that says what to do: no finished run, no image that may choose a threshold.
        Warns (DetectorNote) of calibration images that were trained on or belong to the test set.
        """
        run, paths = open_run(run_dir), default_paths()
        _check_share(tpr)
        place = choose_device(device)
        wanted = score_component(score)
        fitted: Score = wanted.build()
        if fitted.candidates():
            raise ConfigError(f"score {fitted.name} asks to be tuned: give the values that `python eval.py` chose")
        if not run.classifier_trained:
            _note(f"the classifier of {run.name} was never trained: trust its score, not the classes that it predicts")
        spec = _spec(run, wanted, tpr, side or _side(run, calibration_images, paths), paths)
        calibration, source = _calibration(run, calibration_images, spec.side, paths)
        detector = cls(spec, run.model(place), fitted, place)
        detector._fit(run, max_fit_images, paths)
        detector._choose_tau(calibration, source)
        return detector

    @classmethod
    def from_model(
        cls,
        model: nn.Module | Classifier,
        transform: Preprocess | None = None,
        num_classes: int | None = None,
        score: str | Component = "energy",
        calibration: Given = None,
        train: Given = None,
        tpr: float = 0.95,
    ) -> "Detector":
        """The detector of any classifier that ends in a linear layer: torchvision's, timm's, your own.

        Images (`calibration`, `train`, and those that it judges later) are pictures (files, PIL images, arrays,
        tensors), folders, torch data sets or DataLoaders: see `farout.data.given`.

        Args:
            model: images (B, C, H, W) -> logits; it is copied. Or a `farout.Classifier` that says more of it.
            transform: what makes the network's input (C, H, W) of a PIL image, e.g. torchvision's
                `weights.transforms()`; None: only the network's input itself is given, as float tensors.
            num_classes: to be checked; None takes what the last linear layer has.
            score: a file of conf/score, or a component with arguments of your own.
            calibration: in-distribution images that the network did not train on; they choose tau.
            train: in-distribution training images, with labels where the score needs them; for scores that are fitted
                (knn, mahalanobis, vim, react, dice).
            tpr: share of the calibration images that are to be accepted.

        Raises FaroutError, in one line that says what to do.
        """
        _check_share(tpr)
        if calibration is None:
            raise FaroutError(
                "there is no calibration image: give calibration, images that the network did not train on"
            )
        ready = as_classifier(model, transform, num_classes).ready(calibration)
        wanted = score_component(score)
        (fitted,) = fitted_scores([wanted.build()], *_fitted_on(ready, wanted, train), {}).values()
        name = type(ready.network.model).__name__
        network = {"name": name, "head": ready.network.head_path}
        facts = {"name": wanted.name, "_target_": wanted.target, **wanted.arguments}
        spec = Spec(network, len(ready.classes), {}, facts, ready.classes, side=0, run=name, id_data="given", tpr=tpr)
        detector = cls(spec, ready, fitted, ready.device)
        decode(fitted, *encode(fitted))
        detector._choose_tau(calibration, "given by the caller")
        return detector

    @property
    def tau(self) -> float:
        """Scores of at least this are in-distribution."""
        return self.spec.tau

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self.spec.classes

    @property
    def score_name(self) -> str:
        """As in tables."""
        return self._score.name

    def score(self, images: Given) -> Tensor:
        """(N,) scores on the CPU, larger = more in-distribution.

        Args:
            images: one picture or a sequence: uint8 tensors (3, H, W), or floats in [0, 1]; arrays (H, W, 3); PIL
                images; paths, where a folder stands for the images below it. Or one tensor or array of N. A detector
                that was made of a model also takes torch data sets and DataLoaders.

        Raises FaroutError naming a picture that cannot be read, and for scores that are NaN.
        """
        return self._judge(images)[1]

    def predict(self, images: Given) -> list[Prediction]:
        """Class, score and verdict of each picture (see `score` for what a picture is), in the same order."""
        winners, scores = self._judge(images)
        return [
            Prediction(index, self.classes[index], value, value >= self.tau)
            for index, value in zip(winners.tolist(), scores.double().tolist(), strict=True)
        ]

    def _judge(self, images: Given) -> tuple[Tensor, Tensor]:
        """Predicted classes (N,) and scores (N,)."""
        winners, scores = [torch.empty(0, dtype=torch.int64)], []
        for batch in self._sets(images):
            outputs = self._outputs(batch)
            winners.append(outputs.logits.argmax(1))
            scores.append(self._values(batch, outputs))
        found = torch.cat(scores) if scores else torch.empty(0)
        if found.isnan().any():
            raise FaroutError(f"score {self.score_name} of {self.spec.run} is NaN: the network is broken")
        return torch.cat(winners), found

    def _sets(self, images: Given) -> Iterator[ImageSet]:
        if self._given is None:
            yield from map(_as_set, batches(images, self.spec.side, BATCH_SIZE))
            return
        for batch in self._given.inputs(images):
            yield ImageSet("pictures", "", batch.images, batch.labels, (), raw=True)

    def _outputs(self, image_set: ImageSet) -> Outputs:
        return collect(self.model, self.transform, image_set, self.device, BATCH_SIZE)

    def _values(self, batch: ImageSet, outputs: Outputs) -> Tensor:
        if isinstance(self._score, ImageScore) and "images" in self._score.needs:
            std = self.transform.std.flatten().to(self.device)
            images = self.transform(batch.images[:].to(self.device), raw=batch.raw)
            return self._score.on_images(self.model, images, std).detach().cpu()
        return self._score(outputs).detach().cpu()

    def _fit(self, run: Run, limit: int | None, paths: DataPaths) -> None:
        """Fits the score, and lays its tensors out as a loaded detector has them: equal bits need equal memory."""
        if self._score.needs:
            train = self._outputs(capped(training_images(run, paths), limit)) if "train" in self._score.needs else None
            self._score.fit(Fitting(head_of(self.model), train))
        decode(self._score, *encode(self._score))

    def _choose_tau(self, calibration: Given, source: str) -> None:
        values = self.score(calibration)
        tau = threshold(values, self.spec.tpr)
        self.spec = replace(self.spec, tau=tau, calibration={"source": source, "n": len(values)})
        needed = math.ceil(1 / (1 - self.spec.tpr)) if self.spec.tpr < 1 else 1
        if len(values) < needed:
            _note(f"{len(values)} calibration images are few for tpr={self.spec.tpr:g}: {needed} or more tell more")

    def save(self, path: str | Path) -> None:
        """Everything in ONE safetensors file, without pickle; raises FaroutError where the score cannot be saved."""
        state, fitted = encode(self._score)
        tensors = {f"model.{key}": value.detach().cpu().contiguous() for key, value in self.model.state_dict().items()}
        tensors |= {f"score.{key}": value for key, value in fitted.items()}
        known: set[int] = set()
        for key, value in tensors.items():  # the format has no room for tensors that share memory
            storage = value.untyped_storage().data_ptr()
            tensors[key] = value.clone() if storage in known else value
            known.add(storage)
        text = json.dumps({"spec": asdict(self.spec), "score_state": state})
        write_bytes(Path(path), save(tensors, metadata={METADATA: text}))

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str = "auto",
        *,
        model: nn.Module | None = None,
        transform: Preprocess | None = None,
    ) -> "Detector":
        """The detector that `save` wrote, with the same scores, bit for bit on the same device.

        Args:
            path: the file. Nothing in it is executed.
            device: auto, cpu, cuda or cuda:N.
            model, transform: those that the detector was made of, where it was made of a model: a file holds weights
                but no code. The model's own weights do not matter.

        Raises FaroutError for a file that is damaged or no detector, and where the model is missing or another.
        """
        place = choose_device(device)
        content, tensors = _read(Path(path))
        if wrong := misfit(content, CONTENT):
            raise FaroutError(f"{path} is damaged ({wrong}): save the detector again")
        try:
            if content["spec"]["format"] != FORMAT:
                raise FaroutError(f"{path} has the format of another version of farout: save the detector again")
            spec = Spec(**{**content["spec"], "classes": tuple(content["spec"]["classes"])})
            network = _network(spec, model, transform, device)
            score: Score = _component(spec.score, "score").build()
            decode(score, content["score_state"], _under("score.", tensors))
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError) as error:
            raise FaroutError(f"{path} is damaged ({' '.join(str(error).split())}): save the detector again") from None
        _load_model(network, _under("model.", tensors), path)
        return cls(spec, network, score, place)

    def __repr__(self) -> str:
        return f"Detector({self.spec.run}, score={self.score_name}, tau={self.tau:.6g}, tpr={self.spec.tpr:g})"


def _check_share(tpr: float) -> None:
    if not 0 < tpr <= 1:
        raise ConfigError(f"tpr={tpr:g} is a share of images to accept: give one in (0, 1], e.g. 0.95")


def _fitted_on(ready: ReadyClassifier, score: Component, train: Given) -> tuple[Head, Outputs | None]:
    """What a score of a given model may learn from."""
    wanted = train is not None and "train" in score.build().needs
    return head_of(ready.network), ready.passes(train, title="train").outputs if wanted else None


def _network(
    spec: Spec, model: nn.Module | None, transform: Preprocess | None, device: str
) -> Backbone | ReadyClassifier:
    """The network of a saved detector, with weights still to come."""
    if "_target_" in spec.network:
        if model is not None:
            raise FaroutError(f"this is a detector of {spec.run}, which has its own network: leave model out")
        _component(spec.transform, "transform")
        return build_backbone(_component(spec.network, "backbone"), spec.num_classes)
    if model is None:
        raise FaroutError(f"this detector was made of a model, {spec.run}: give it to load, load(path, model=..., ...)")
    known = Classifier(model, transform, spec.num_classes, classes=spec.classes, device=device)
    return known.with_head(str(spec.network["head"]))


def score_component(score: str | Component) -> Component:
    """A file of conf/score by its name; components pass."""
    return score if isinstance(score, Component) else score_file(score)


def threshold(scores: Tensor, tpr: float) -> float:
    """The largest tau that a share of at least `tpr` of `scores` (N,) reaches; raises FaroutError for no score."""
    if len(scores) == 0:
        raise FaroutError("there is no calibration image: give some that the network did not train on")
    accepted = max(1, math.ceil(tpr * len(scores) - 1e-9))
    return float(scores.double().sort(descending=True).values[accepted - 1])


def _spec(run: Run, score: Component, tpr: float, side: int, paths: DataPaths) -> Spec:
    names: Sequence[str] = labelled_images(run, paths).classes if has_labelled_images(run, paths) else ()
    if len(names) != run.num_classes:
        names = [str(index) for index in range(run.num_classes)]
    return Spec(
        network={**run.identity["backbone"], "_target_": run.targets["backbone"]},
        num_classes=run.num_classes,
        transform={**run.identity["transform"], "_target_": run.targets["transform"]},
        score={"name": score.name, "_target_": score.target, **score.arguments},
        classes=tuple(names),
        side=side,
        run=run.name,
        id_data=run.identity["id_data"]["name"],
        tpr=tpr,
    )


def _side(run: Run, calibration: Pictures | None, paths: DataPaths) -> int:
    """The network's input in pixels: from the run's record, its data, or a tensor of calibration images."""
    recorded = ((run.record.get("data") or {}).get("labelled") or {}).get("side")
    if recorded is not None:
        return int(recorded)
    if has_labelled_images(run, paths):
        return int(labelled_images(run, paths).images.shape[-1])
    if isinstance(calibration, Tensor) and calibration.dim() == 4 and calibration.shape[2] == calibration.shape[3]:
        return int(calibration.shape[3])
    raise FaroutError(
        f"nothing tells the size of {run.name}'s input ({run.identity['id_data']['name']} is not here): give side=32"
    )


def _calibration(run: Run, given: Pictures | None, side: int, paths: DataPaths) -> tuple[Tensor, str]:
    """Images (N, 3, side, side) that choose tau, and what they are; the caller's are looked over."""
    if given is None:
        held = unseen_images(run, paths)
        return held.images[:], f"holdout of {held.name} ({held.split})"
    parts = list(batches(given, side, BATCH_SIZE))
    images = torch.cat(parts) if parts else torch.empty(0, 3, side, side, dtype=torch.uint8)
    if len(images) and images.dtype == torch.uint8:
        for doubt in overlaps(_as_set(images), run, paths):
            _note(doubt)
    return images, "given by the caller"


def _as_set(images: Tensor) -> ImageSet:
    return ImageSet("pictures", "", images, None, (), raw=False)


def _note(text: str) -> None:
    warnings.warn(text, DetectorNote, stacklevel=4)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Metadata and tensors of a detector's file."""
    if not path.is_file():
        raise FaroutError(f"{path} is not there: give a file that Detector.save wrote")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA)
            names = file.keys() if text else []
            tensors = {key: file.get_tensor(key) for key in names}
    except (SafetensorError, OSError) as error:
        raise FaroutError(f"{path} cannot be read ({error}): give a file that Detector.save wrote") from None
    if not text:
        raise FaroutError(f"{path} is no detector: make one with python scripts/detect.py --save, or Detector.save")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise FaroutError(f"{path} is damaged: save the detector again") from None
    return content, tensors


def _component(values: dict[str, Any], where: str) -> Component:
    """A component that a file names: a class of ours, and of the kind that is wanted here."""
    target = str(values.get("_target_"))
    try:
        return component(values, where)
    except ConfigError as error:
        if not str(error).startswith(f"{where}._target_={target} "):
            raise
        raise FaroutError(f"the file's {where} is {target}, which is none: it was not saved by farout") from None


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _load_model(network: Backbone | ReadyClassifier, state: dict[str, Tensor], path: str | Path) -> None:
    model = network.network if isinstance(network, ReadyClassifier) else network
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise FaroutError(
            f"{path} does not fit its own network ({str(error).splitlines()[0]}): save it again"
        ) from None


__all__ = ["Detector", "DetectorNote", "Picture", "Pictures", "Prediction", "Spec", "threshold"]
