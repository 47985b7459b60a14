"""Out-of-distribution detection, reproduced: Energy, Outlier Exposure, JEM and CIDER.

Runs are made on the command line (`python train.py --help`). What Python code may rely on is below; all else in the
package may change without notice. `import farout` loads nothing heavy: PyTorch comes with the first name that needs it.

A finished run, or any classifier, for use
    Detector                     classes, scores and a threshold: Detector.from_run("outputs/runs/NAME"), or from_model
    Prediction                   what Detector.predict says of an image
    Classifier                   a network of yours, where there is more to say of it than its transform

Evaluations of what was made elsewhere
    evaluate                     any classifier: scores, a protocol, a table
    evaluate_outputs             the same from logits and features
    Results                      what they found: to_pandas, to_latex, plot_roc, under another protocol
    load_dataset                 a data set of the catalogue, for evaluate and Detector.from_model
    load_results                 every evaluation below a folder as one data frame

Measures: NumPy arrays or tensors, fractions in [0, 1]
    detection_metrics            FPR95, AUROC and AUPR of ID and OOD scores, with ID or OOD as the positive class
    expected_calibration_error   how far confidence is from accuracy

Scores of outputs from anywhere, as functions of NumPy arrays or tensors: from farout.scores.functional import ...
    msp, max_logit, energy, uniform_cross_entropy, gen              of logits, image by image
    gradnorm, she, knn, mahalanobis, mahalanobis_cider, rmds        of features too; most also of training features
    react, ash, scale, dice, vim                                    of features and the last layer

The papers' losses, alone
    energy_margin_loss           Energy: both squared hinges, unweighted
    uniform_cross_entropy        Outlier Exposure: cross-entropy of the uniform distribution and the prediction
    update_prototypes            CIDER: prototypes moved by a batch of embeddings
    compactness_loss             CIDER: embeddings pulled to the prototypes of their classes
    dispersion_loss              CIDER: prototypes pushed apart
    langevin_chain               JEM: samples of an energy

Networks
    WideResNet, ResNet18         tensors in the order of the official code, so that its weights fit

What extensions build on (docs/extending.md)
    Method, Batch                a batch becomes a loss
    Score, Outputs               the outputs of a forward pass become a number per image, larger for ID
    Backbone                     images become features become logits

Errors: one line that says what is wrong and what to do
    FaroutError                  all of them
    ConfigError                  an option
    MissingDataError             a data set, or a file
    UnwritableError              a file that the disk does not take
"""

import os
from typing import TYPE_CHECKING

from farout.lazy import lazy_names
from farout.version import __version__

if TYPE_CHECKING:  # for type checkers and editors: the same names as below
    from farout.backbones.base import Backbone
    from farout.backbones.resnet import ResNet18
    from farout.backbones.wide_resnet import WideResNet
    from farout.data.named import load_dataset
    from farout.detector import Detector, Prediction
    from farout.errors import ConfigError, FaroutError, MissingDataError, UnwritableError
    from farout.evaluation.classifier import Classifier
    from farout.evaluation.evaluate import evaluate, evaluate_outputs
    from farout.evaluation.results import Results, load_results
    from farout.methods.base import Batch, Method
    from farout.methods.cider import compactness_loss, dispersion_loss, update_prototypes
    from farout.methods.energy import energy_margin_loss
    from farout.methods.langevin import langevin_chain
    from farout.methods.outlier_exposure import uniform_cross_entropy
    from farout.metrics.calibration import expected_calibration_error
    from farout.metrics.detection import detection_metrics
    from farout.scores.base import Outputs, Score

__all__ = [
    "Backbone",
    "Batch",
    "Classifier",
    "ConfigError",
    "Detector",
    "FaroutError",
    "Method",
    "MissingDataError",
    "Outputs",
    "Prediction",
    "ResNet18",
    "Results",
    "Score",
    "UnwritableError",
    "WideResNet",
    "__version__",
    "compactness_loss",
    "detection_metrics",
    "dispersion_loss",
    "energy_margin_loss",
    "evaluate",
    "evaluate_outputs",
    "expected_calibration_error",
    "langevin_chain",
    "load_dataset",
    "load_results",
    "uniform_cross_entropy",
    "update_prototypes",
]

_MODULES = {  # where each name is defined
    "farout.backbones.base": ("Backbone",),
    "farout.backbones.resnet": ("ResNet18",),
    "farout.backbones.wide_resnet": ("WideResNet",),
    "farout.data.named": ("load_dataset",),
    "farout.detector": ("Detector", "Prediction"),
    "farout.evaluation.classifier": ("Classifier",),
    "farout.evaluation.evaluate": ("evaluate", "evaluate_outputs"),
    "farout.evaluation.results": ("Results", "load_results"),
    "farout.errors": ("ConfigError", "FaroutError", "MissingDataError", "UnwritableError"),
    "farout.methods.base": ("Batch", "Method"),
    "farout.methods.cider": ("compactness_loss", "dispersion_loss", "update_prototypes"),
    "farout.methods.energy": ("energy_margin_loss",),
    "farout.methods.langevin": ("langevin_chain",),
    "farout.methods.outlier_exposure": ("uniform_cross_entropy",),
    "farout.metrics.calibration": ("expected_calibration_error",),
    "farout.metrics.detection": ("detection_metrics",),
    "farout.scores.base": ("Outputs", "Score"),
}
# OpenMP threads that spin while they wait for a core that another process holds make training on a shared machine
# 11 times slower (ResNet-20 on 2 cores under a load of 4). It must be said before torch loads its OpenMP library.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__getattr__, __dir__ = lazy_names(__name__, _MODULES, others=("__version__",))
