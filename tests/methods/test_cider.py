"""CIDER against the official functions' numbers, the plain recursion, and the cases upstream leaves undefined."""

import io
import json
import math
import re
import runpy
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from farout.backbones.projected_resnet import ProjectedResNet18
from farout.engine.fit import Checkpointing, Optimisation, fit
from farout.engine.schedules import WarmUp, step_decay, warmup_cosine, warmup_steps
from farout.errors import ConfigError, FaroutError
from farout.methods import Batch
from farout.methods.cider import (
    CIDER,
    batch_mean_prototypes,
    compactness_loss,
    dispersion_loss,
    update_prototypes,
)
from farout.methods.sphere import HostLabels, rank_order

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "vectors_jem_cider.json").read_text())["cider"]


KNOBS = {"w": 2.0, "proto_m": 0.95, "temperature": 0.1, "base_temperature": 0.07}
KNOBS |= {"terms": "both", "prototype_rule": "ema"}


def cider(**options: object) -> CIDER:
    """CIDER with the current official settings, but for some options."""
    return CIDER(**{**KNOBS, **options})  # type: ignore[arg-type]


def double(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


LABELS = torch.tensor(VECTORS["inputs"]["labels"])
INITIAL = double(VECTORS["inputs"]["prototypes_init"])
RAW = double(VECTORS["inputs"]["prototypes_raw"])


def features() -> Tensor:
    return double(VECTORS["inputs"]["features"]).requires_grad_()


def unit(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1).to(dtype)


def agree(ours: Tensor, expected: object, rel: float = 1e-9) -> None:
    wanted = torch.as_tensor(np.array(expected), dtype=ours.dtype)
    assert ours.shape == wanted.shape
    assert torch.allclose(ours, wanted, rtol=rel, atol=rel * float(wanted.abs().max()))


def recursion(prototypes: Tensor, features: Tensor, labels: Tensor, momentum: float) -> Tensor:
    """Sample by sample, as the paper's equation reads."""
    rows = list(prototypes.unbind())
    for feature, label in zip(features.unbind(), labels.tolist(), strict=True):
        rows[label] = F.normalize(momentum * rows[label] + (1 - momentum) * feature, dim=0)
    return torch.stack(rows)


class Embedder(nn.Module):
    """A network whose embedding is a normalised linear map of the "images" (B, D)."""

    def __init__(self, weight: Tensor, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.num_classes = num_classes
        self.norm = nn.BatchNorm1d(weight.shape[1], dtype=weight.dtype)
        self.modes: list[bool] = []

    def embed(self, images: Tensor) -> Tensor:
        self.modes.append(self.training)
        self.norm(images)  # for its statistics only
        return F.normalize(images @ self.weight.T, dim=1)


class Given(nn.Module):
    """A network whose images are the embeddings already."""

    num_classes = 5

    def embed(self, images: Tensor) -> Tensor:
        return images


def started(prototypes: Tensor, **options: object) -> CIDER:
    """CIDER with these prototypes, as after `prepare`."""
    method = cider(**{"proto_m": 0.5, **options})
    method.prototypes.data = prototypes.clone()
    return method


# The vectors.


@pytest.mark.parametrize("case", VECTORS["comp_loss"], ids=lambda case: str(case["temperature"]))
def test_compactness_matches(case):
    z = features()
    loss = compactness_loss(z, RAW, LABELS, case["temperature"], case["base_temperature"])
    loss.backward()
    assert loss.item() == pytest.approx(case["loss_float64"], rel=1e-9)
    agree(z.grad, case["grad_wrt_features_float64"])
    single = compactness_loss(features().float(), RAW.float(), LABELS, case["temperature"])
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(case["loss_float32"], rel=2e-5)


@pytest.mark.parametrize("case", VECTORS["dis_loss"], ids=lambda case: str(case["proto_m"]))
def test_update_and_dispersion_match(case):
    z = features()
    moved = update_prototypes(INITIAL, z, LABELS, case["proto_m"])
    loss = dispersion_loss(moved, case["temperature"], case["base_temperature"])
    loss.backward()
    assert loss.item() == pytest.approx(case["loss_float64"], rel=1e-9)
    agree(moved, case["prototypes_after"])
    agree(z.grad, case["grad_wrt_features_float64"])
    single = dispersion_loss(
        update_prototypes(INITIAL.float(), features().float(), LABELS, case["proto_m"]), case["temperature"]
    )
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(case["loss_float32"], rel=2e-5)


def test_batch_order_matters():
    case = VECTORS["dis_loss_reversed_batch_order"]
    order = torch.tensor(case["order"])
    moved = update_prototypes(INITIAL, features()[order], LABELS[order], case["proto_m"])
    assert dispersion_loss(moved, 0.1).item() == pytest.approx(case["loss_float64"], rel=1e-9)
    agree(moved, case["prototypes_after"])


def second_features() -> Tensor:
    i, j = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(4, dtype=torch.float64)
    return F.normalize(torch.sin(0.4 * (i + 1) + 0.7 * (j + 1) * (i + 1) + 0.11 * j), dim=1)


def test_state_carries_over_and_the_graph_does_not():
    case = VECTORS["dis_loss_two_consecutive_calls"]
    method = started(INITIAL, proto_m=case["proto_m"], terms="dispersion")
    first, second = features(), second_features().requires_grad_()
    losses = [method.loss(Given(), {"labelled": Batch(z, LABELS)})["total"] for z in (first, second)]
    losses[1].backward()
    assert [loss.item() for loss in losses] == pytest.approx(case["losses_float64"], rel=1e-9)
    assert first.grad is None
    agree(second.grad, case["grad_wrt_features_second_call_float64"])
    agree(method.prototypes, case["prototypes_after_second"])


@pytest.mark.parametrize("case", VECTORS["dis_loss_64x16"], ids=lambda case: str(case["proto_m"]))
def test_larger_batch_matches(case):
    draw = np.random.RandomState(7)
    z = F.normalize(torch.from_numpy(draw.normal(size=(64, 16))), dim=1).requires_grad_()
    draw.randint(0, 10, 64)
    prototypes = F.normalize(torch.from_numpy(draw.normal(size=(10, 16))), dim=1)
    labels = torch.tensor(case["labels"])
    moved = update_prototypes(prototypes, z, labels, case["proto_m"])
    dispersion, compactness = dispersion_loss(moved, 0.1), compactness_loss(z, moved.detach(), labels, 0.1)
    (dispersion + compactness).backward()
    assert dispersion.item() == pytest.approx(case["dis_loss"], rel=1e-9)
    assert compactness.item() == pytest.approx(case["comp_loss_temp0.1"], rel=1e-9)
    agree(moved, case["prototypes_after"])
    agree(z.grad.norm(dim=1), case["grad_norm_per_sample_of_(dis+comp)"])
    assert torch.equal(moved[6], prototypes[6])  # the class that the batch lacks


@pytest.mark.parametrize("case", VECTORS["total_loss"], ids=lambda case: f"w{case['w']}")
def test_method_total_matches(case):
    z = features()
    losses = started(INITIAL, w=case["w"], proto_m=case["proto_m"]).loss(Given(), {"labelled": Batch(z, LABELS)})
    losses["total"].backward()
    assert list(losses) == ["total", "dispersion", "compactness"]
    for name, key in (("total", "total"), ("dispersion", "dis"), ("compactness", "comp")):
        assert losses[name].item() == pytest.approx(case[key], rel=1e-9)
    agree(z.grad, case["grad_wrt_features"])


def test_learnable_dispersion_matches():
    case = VECTORS["dis_loss_learnable_prototypes"]
    prototypes = RAW.clone().requires_grad_()
    loss = dispersion_loss(prototypes, case["temperature"])
    loss.backward()
    assert loss.item() == pytest.approx(case["loss_float64"], rel=1e-9)
    agree(prototypes.grad, case["grad_wrt_prototypes"])


def init_case() -> tuple[Embedder, list[Batch], list[list[float]]]:
    case = VECTORS["init_class_prototypes"]
    weight = json.loads(case["model"].partition("W=")[2])
    loader = [Batch(torch.tensor(part["x"]), torch.tensor(part["y"])) for part in case["loader"]]
    return Embedder(torch.tensor(weight), 3), loader, case["prototypes"]


def test_initial_prototypes_match():
    model, loader, expected = init_case()
    method = cider()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    method.prepare(model, {}, iter(loader))
    agree(method.prototypes, expected, rel=2e-5)
    assert model.training and model.modes == [False, False]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not method.prototypes.requires_grad


def test_a_class_without_training_images_gets_its_prototype_from_its_first_sample():
    assert VECTORS["init_with_empty_class"]["prototype_class3_is_nan_after_a_batch_containing_class3"]  # upstream
    model, loader, expected = init_case()
    model.num_classes = 4
    method = cider(proto_m=0.5)
    method.prepare(model, {}, loader)
    agree(method.prototypes[:3], expected, rel=2e-5)
    assert torch.equal(method.prototypes[3], torch.zeros(4))

    known = method.prototypes[:3].clone()
    without = method.loss(model, {"labelled": loader[0]})
    assert all(loss.isfinite() for loss in without.values())
    alone = started(known)
    for name, loss in alone.loss(model, {"labelled": loader[0]}).items():
        assert without[name].item() == pytest.approx(loss.item(), rel=1e-5)  # the missing class changes nothing

    images = torch.tensor([[1.0, 2.0, 3.0]])
    model.eval()  # batch norm has no statistics of one image
    losses = method.loss(model, {"labelled": Batch(images, torch.tensor([3]))})
    losses["total"].backward()
    assert model.weight.grad.isfinite().all()
    assert torch.allclose(method.prototypes[3], model.embed(images)[0], atol=1e-6)
    assert all(loss.isfinite() for loss in losses.values())


def test_nan_prototypes_are_dropped_and_recover():
    broken = INITIAL.clone()
    broken[1] = float("nan")
    z = features()
    rest = torch.tensor([0, 2, 3, 4])
    assert dispersion_loss(broken, 0.1).item() == pytest.approx(dispersion_loss(INITIAL[rest], 0.1).item(), rel=1e-12)
    moved = update_prototypes(broken, z, LABELS, 0.5)
    assert moved.isfinite().all()
    assert torch.allclose(moved[1], z[3])
    total = dispersion_loss(moved, 0.1) + compactness_loss(z, broken, LABELS, 0.1)
    total.backward()
    assert z.grad.isfinite().all()
    kept = LABELS != 1
    renumbered = torch.tensor([0, -1, 1, 2, 3])[LABELS[kept]]
    without = compactness_loss(z[kept], INITIAL[rest], renumbered, 0.1)
    assert compactness_loss(z, broken, LABELS, 0.1).item() == pytest.approx(without.item(), rel=1e-12)


# The recursion itself.


@settings(max_examples=60, deadline=None)
@given(
    classes=st.integers(1, 7),
    labels=st.lists(st.integers(0, 6), max_size=40),
    momentum=st.sampled_from([0.0, 0.3, 0.5, 0.95, 0.99, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_equals_the_plain_recursion_in_value_and_gradient(classes, labels, momentum, seed):
    y = torch.tensor([label % classes for label in labels], dtype=torch.long)
    tensors = [unit(classes, 6, seed=seed), unit(len(labels), 6, seed=seed + 1)]
    results = []
    for update in (update_prototypes, recursion):
        prototypes, z = (tensor.clone().requires_grad_() for tensor in tensors)
        moved = update(prototypes, z, y, momentum)
        (moved * unit(classes, 6, seed=seed + 2)).sum().backward()
        results.append((moved.detach(), prototypes.grad, torch.zeros_like(z) if z.grad is None else z.grad))
    for ours, plain in zip(*results, strict=True):
        assert torch.allclose(ours, plain, rtol=1e-9, atol=1e-10)


def test_gradient_is_the_derivative():
    inputs = (2 * unit(4, 5).requires_grad_(), 3 * unit(9, 5, seed=1).requires_grad_())
    labels = torch.tensor([0, 1, 1, 0, 3, 0, 0, 1, 3])
    assert torch.autograd.gradcheck(lambda p, z: update_prototypes(p, z, labels, 0.7), inputs)


def test_the_batch_is_packed_by_occurrence():
    order = rank_order(torch.tensor([2, 0, 2, 2, 0]), 4, torch.device("cpu"))
    assert order.samples.tolist() == [0, 1, 2, 4, 3]
    assert order.sizes == [2, 2, 1]
    assert order.present.tolist() == [2, 0]
    assert order.last.tolist() == [4, 3]


def test_batch_of_one_and_of_none():
    z = unit(1, 4, seed=3).requires_grad_()
    moved = update_prototypes(INITIAL, z, torch.tensor([2]), 0.5)
    agree(moved[2], F.normalize(INITIAL[2] + z[0], dim=0).tolist())
    assert torch.equal(moved[[0, 1, 3, 4]], INITIAL[[0, 1, 3, 4]])
    dispersion_loss(moved, 0.1).backward()
    assert z.grad.abs().max() > 0

    nothing, none = torch.empty(0, 4, dtype=torch.float64, requires_grad=True), torch.empty(0, dtype=torch.long)
    unmoved = update_prototypes(INITIAL, nothing, none, 0.5)
    assert torch.equal(unmoved, INITIAL)
    losses = started(INITIAL).loss(Given(), {"labelled": Batch(nothing, none)})
    assert losses["compactness"].item() == 0
    assert losses["total"].item() == pytest.approx(dispersion_loss(INITIAL, 0.1).item())
    losses["total"].backward()


def test_opposite_sample_at_half_momentum_has_no_direction_and_no_gradient():
    z = torch.stack([-INITIAL[0], unit(4, seed=5)]).requires_grad_()
    stopped = update_prototypes(INITIAL, z[:1], torch.tensor([0]), 0.5)
    assert torch.equal(stopped[0], torch.zeros(4, dtype=torch.float64))
    onward = update_prototypes(INITIAL, z, torch.tensor([0, 0]), 0.5)
    assert torch.allclose(onward[0], z[1])
    onward.pow(3).sum().backward()
    assert z.grad.isfinite().all() and z.grad[0].abs().max() == 0 and z.grad.abs().max() < 1e3


def test_half_precision_features_are_updated_in_full_precision():
    z, labels = unit(200, 16, dtype=torch.float32), torch.arange(200) % 3
    prototypes = unit(3, 16, seed=1, dtype=torch.float32)
    half = z.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moved = update_prototypes(prototypes, half, labels, 0.95)
        loss = dispersion_loss(moved, 0.1) + compactness_loss(half, moved.detach(), labels, 0.1)
    assert moved.dtype == loss.dtype == torch.float32
    exact = half.detach().double()
    wanted = recursion(prototypes.double(), exact, labels, 0.95)
    agree(moved, wanted.tolist(), rel=1e-5)
    expected = dispersion_loss(wanted, 0.1) + compactness_loss(exact, wanted, labels, 0.1)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    assert half.grad.dtype == torch.bfloat16 and half.grad.isfinite().all()


def test_arguments_stay_as_they_are():
    prototypes, z = INITIAL.clone(), features()
    moved = update_prototypes(prototypes, z, LABELS, 0.5)
    moved.add_(1.0)
    assert torch.equal(prototypes, INITIAL) and torch.equal(z, features())


@pytest.mark.parametrize(
    ("prototypes", "z", "labels", "momentum", "message"),
    [
        (INITIAL, torch.ones(2, 3), torch.zeros(2, dtype=torch.long), 0.5, r"must be \(C, D\) and \(B, D\)"),
        (INITIAL, torch.ones(2, 4), torch.zeros(3, dtype=torch.long), 0.5, "need as many labels"),
        (INITIAL, torch.ones(2, 4), torch.tensor([0, 5]), 0.5, "do not fit 5 prototypes"),
        (INITIAL, torch.ones(2, 4), torch.tensor([0, -1]), 0.5, "do not fit 5 prototypes"),
        (INITIAL, torch.ones(2, 4), torch.tensor([0, 1]), 1.5, r"must lie in \[0, 1\]"),
    ],
)
def test_wrong_arguments_are_named(prototypes, z, labels, momentum, message):
    with pytest.raises(FaroutError, match=message):
        update_prototypes(prototypes, z, labels, momentum)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("rule", ["ema", "batch_mean", "learnable"])
def test_a_step_on_the_gpu_equals_the_cpu_and_never_synchronises(rule):
    z, labels = unit(512, 16, dtype=torch.float32), torch.randint(10, (512,), generator=torch.manual_seed(0))
    prototypes = unit(10, 16, seed=1, dtype=torch.float32)
    outcomes = []
    for device in ("cpu", "cuda"):
        method = started(prototypes, prototype_rule=rule).to(device)
        images, targets = z.to(device).requires_grad_(), labels.to(device)
        torch.cuda.set_sync_debug_mode("error" if device == "cuda" else "default")
        try:
            total = method.loss(Given(), {"labelled": Batch(images, targets)})["total"]
            total.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        outcomes.append((total.detach().cpu(), method.prototypes.detach().cpu(), images.grad.cpu()))
    for here, there in zip(*outcomes, strict=True):
        assert torch.allclose(here, there, rtol=1e-4, atol=1e-6)


def test_host_labels_are_the_labels():
    assert HostLabels(LABELS).read().tolist() == LABELS.tolist()


# Losses at their edges.


def test_fewer_than_two_prototypes_have_no_dispersion():
    single = unit(1, 4).requires_grad_()
    dispersion_loss(single, 0.1).backward()
    assert dispersion_loss(single, 0.1).item() == 0 and single.grad.abs().max() == 0
    mostly_empty = torch.cat([unit(1, 4), torch.zeros(2, 4, dtype=torch.float64)])
    assert dispersion_loss(mostly_empty, 0.1).item() == 0
    assert math.isnan(dispersion_loss(torch.full((3, 4), float("nan")), 0.1).item())  # divergence is not hidden


def test_losses_are_stable_at_small_temperatures():
    z = unit(6, 4, dtype=torch.float32).requires_grad_()
    prototypes = torch.cat([z.detach()[:2], -z.detach()[:2]])
    loss = compactness_loss(z, prototypes, torch.tensor([0, 1, 2, 3, 0, 1]), 1e-3) + dispersion_loss(prototypes, 1e-3)
    loss.backward()
    assert loss.isfinite() and z.grad.isfinite().all()


def test_base_temperature_scales_and_the_papers_formula_is_an_option():
    z = features().detach()
    cross_entropy = F.cross_entropy(z @ F.normalize(RAW, dim=1).T / 0.1, LABELS)
    paper = compactness_loss(z, RAW, LABELS, 0.1, base_temperature=0.1)
    assert paper.item() == pytest.approx(cross_entropy.item(), rel=1e-12)
    assert compactness_loss(z, RAW, LABELS, 0.1).item() == pytest.approx(cross_entropy.item() / 0.7, rel=1e-12)
    assert dispersion_loss(RAW, 0.2, 0.2).item() == pytest.approx(dispersion_loss(RAW, 0.2).item() / 2, rel=1e-12)


# The method and its ablations.


def test_ablations_keep_one_term_unweighted():
    whole = started(INITIAL).loss(Given(), {"labelled": Batch(features(), LABELS)})
    for term in ("compactness", "dispersion"):
        method = started(INITIAL, terms=term)
        losses = method.loss(Given(), {"labelled": Batch(features(), LABELS)})
        assert list(losses) == ["total", term]
        assert losses["total"].item() == losses[term].item() == pytest.approx(whole[term].item(), rel=1e-12)
        agree(method.prototypes, VECTORS["dis_loss"][0]["prototypes_after"])  # they move all the same


def test_compactness_sees_prototypes_as_constants():
    z = features()
    started(INITIAL, terms="compactness").loss(Given(), {"labelled": Batch(z, LABELS)})["total"].backward()
    apart = features()
    moved = update_prototypes(INITIAL, apart.detach(), LABELS, 0.5)
    compactness_loss(apart, moved, LABELS, 0.1).backward()
    agree(z.grad, apart.grad.tolist())


def test_learnable_prototypes_are_parameters_that_both_terms_move():
    method = started(RAW, prototype_rule="learnable")
    assert [name for name, _ in method.named_parameters()] == ["prototypes"]
    z = features()
    losses = method.loss(Given(), {"labelled": Batch(z, LABELS)})
    losses["total"].backward()
    expected = RAW.clone().requires_grad_()
    apart = features()
    (dispersion_loss(expected, 0.1) + 2.0 * compactness_loss(apart, expected, LABELS, 0.1)).backward()
    agree(method.prototypes.grad, expected.grad.tolist())
    agree(z.grad, apart.grad.tolist())
    assert torch.equal(method.prototypes.data, RAW)  # only the optimiser moves them


def test_batch_means_forget_the_past_and_keep_absent_classes():
    z = features()
    method = started(INITIAL, prototype_rule="batch_mean", terms="dispersion")
    method.loss(Given(), {"labelled": Batch(z, LABELS)})["total"].backward()
    for label in (0, 1, 2, 4):
        agree(method.prototypes[label], F.normalize(z[label == LABELS].sum(0), dim=0).tolist())
    agree(method.prototypes[3], INITIAL[3].tolist())
    assert z.grad.norm(dim=1).min() > 0
    other = batch_mean_prototypes(-INITIAL, features(), LABELS)
    agree(other[[0, 1, 2, 4]], method.prototypes[[0, 1, 2, 4]].tolist())


def test_evaluation_mode_leaves_the_prototypes_alone():
    method = started(INITIAL).eval()
    method.loss(Given(), {"labelled": Batch(features(), LABELS)})
    assert torch.equal(method.prototypes, INITIAL)


@pytest.mark.parametrize("rule", ["ema", "batch_mean", "learnable"])
def test_resuming_is_exact_prototypes_included(rule):
    def fresh() -> tuple[Embedder, CIDER, torch.optim.SGD]:
        torch.manual_seed(0)
        model, method = Embedder(torch.randn(6, 3), 4), cider(proto_m=0.9, prototype_rule=rule)
        parameters = [*model.parameters(), *method.parameters()]
        return model, method, torch.optim.SGD(parameters, 0.1, 0.9, weight_decay=1e-4, nesterov=True)

    def train(parts: tuple[Embedder, CIDER, torch.optim.SGD], steps: range) -> None:
        model, method, optimizer = parts
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            images = torch.randn(12, 3, generator=generator)
            optimizer.zero_grad()
            method.loss(model, {"labelled": Batch(images, torch.arange(12) % 4)})["total"].backward()
            optimizer.step()

    whole = fresh()
    whole[1].prepare(whole[0], {}, [Batch(torch.randn(20, 3), torch.arange(20) % 4)])
    start = whole[1].prototypes.detach().clone()
    train(whole, range(3))
    saved = [_through_disk(part.state_dict()) for part in whole]
    train(whole, range(3, 6))
    again = fresh()
    for part, state in zip(again, saved, strict=True):
        part.load_state_dict(state)
    train(again, range(3, 6))
    assert torch.equal(whole[1].prototypes, again[1].prototypes)
    assert torch.equal(whole[0].weight, again[0].weight)
    assert not torch.allclose(start, whole[1].prototypes)  # the optimiser knows the parameter that prepare filled


def _through_disk(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


class Prepared(CIDER):
    """CIDER that has its training images at hand."""

    def prepare(self, model: nn.Module, batches: Mapping[str, Batch], train_images: Iterable[Batch] = ()) -> None:
        super().prepare(model, batches, [image_batch(step)["labelled"] for step in range(4)])


def image_batch(step: int) -> dict[str, Batch]:
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(4, (8,), generator=generator).repeat(2)
    return {"labelled": Batch(torch.randn(16, 3, 8, 8, generator=generator) + labels[:, None, None, None], labels)}


@pytest.mark.parametrize("rule", ["ema", "learnable"])
def test_an_interrupted_run_of_the_real_loop_ends_where_the_whole_one_does(tmp_path, rule):
    def run(path: Path, pause: bool) -> tuple[ProjectedResNet18, CIDER, dict[str, float]]:
        torch.manual_seed(0)
        model = ProjectedResNet18(4, width=2, projection_dim=8)
        method = Prepared(**{**KNOBS, "prototype_rule": rule})
        rule_of_saving = Checkpointing(path, minutes=None, steps=2)
        batches = stopping(3) if pause else image_batch
        result = fit(model, method, batches, Optimisation(lr=0.05), 6, checkpointing=rule_of_saving)
        return model, method, result.losses

    def stopping(at: int) -> Callable[[int], dict[str, Batch]]:
        def batches(step: int) -> dict[str, Batch]:
            if step == at:
                raise KeyboardInterrupt
            return image_batch(step)

        return batches

    whole = run(tmp_path / "whole", pause=False)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", pause=True)
    resumed = run(tmp_path / "broken", pause=False)
    assert torch.equal(whole[1].prototypes, resumed[1].prototypes)
    assert whole[2] == resumed[2]
    for name, value in whole[0].state_dict().items():
        assert torch.equal(value, resumed[0].state_dict()[name]), name


def test_the_benchmark_checks_equality_and_reaches_its_ratios(capsys):
    path = Path(__file__).parents[2] / "scripts" / "benchmark" / "cider.py"
    threads = torch.get_num_threads()
    try:
        assert runpy.run_path(str(path))["main"](["--rounds", "3"]) == 0
    finally:
        torch.set_num_threads(threads)
    ratios = [float(ratio) for ratio in re.findall(r"ratio ([0-9.]+)", capsys.readouterr().out)]
    assert len(ratios) == 2 and ratios[0] >= 3 and ratios[1] >= 8


def test_unprepared_and_unfit_networks_are_named():
    with pytest.raises(FaroutError, match="call prepare"):
        cider().loss(Given(), {"labelled": Batch(features(), LABELS)})
    with pytest.raises(FaroutError, match="training images"):
        cider().prepare(Given(), {})
    plain = nn.Linear(4, 4)
    plain.num_classes = 5
    with pytest.raises(ConfigError, match="projection head"):
        cider().prepare(plain, {}, [Batch(torch.ones(1, 4), torch.tensor([0]))])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"w": -1.0}, "w=-1 is negative"),
        ({"proto_m": 1.1}, "proto_m=1.1 must lie"),
        ({"temperature": 0.0}, "temperature=0 must be positive"),
        ({"base_temperature": -0.07}, "base_temperature=-0.07 must be positive"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        cider(**options)


# Learning rates.


CIFAR, IMAGENET, STEPS, NO_WARM_UP = VECTORS["learning_rate"]
SLIP = WarmUp(counts_from_one=True)


def points(case: dict, steps_per_epoch: int) -> list[tuple[int, float]]:
    return [(point["epoch"] * steps_per_epoch + point["batch"], point["lr"]) for point in case["points"]]


@pytest.mark.parametrize(("update", "expected"), points(CIFAR, 98))
def test_official_cosine_with_its_negative_epoch(update, expected):
    assert warmup_cosine(update, 98, 500, 0.5, 0.5e-3, SLIP) == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(("update", "expected"), points(IMAGENET, 248))
def test_official_cosine_for_fine_tuning(update, expected):
    assert warmup_cosine(update, 248, 20, 0.005, 0.005e-3, SLIP) == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(("update", "expected"), points(STEPS, 98))
def test_official_steps_with_the_negative_epoch(update, expected):
    ours = warmup_steps(update, 98, 0.5, [100, 150, 180], 0.1, SLIP)
    assert ours == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(("update", "expected"), points(NO_WARM_UP, 98))
def test_official_steps_without_warm_up(update, expected):
    assert warmup_steps(update, 98, 0.5, [100, 150, 180], 0.1) == pytest.approx(expected, rel=1e-12)


def test_warm_up_is_positive_unless_asked_otherwise():
    rates = [warmup_cosine(update, 98, 500, 0.5, 0.5e-3, WarmUp()) for update in range(98 * 20)]
    assert rates[0] == pytest.approx(1e-3) and min(rates) == rates[0]
    assert all(later > earlier for earlier, later in pairwise(rates[:981]))
    assert rates[980] == pytest.approx(0.4995, abs=1e-4)  # the cosine takes over where the rise ends
    assert rates[979] == pytest.approx(rates[980], abs=6e-4)


def test_a_milestone_is_the_last_epoch_at_the_old_rate():
    assert [step_decay(epoch, 1.0, [2, 4], 0.3) for epoch in range(6)] == pytest.approx([1, 1, 1, 0.3, 0.3, 0.09])
