"""JEM against the official functions, and what its sampler and buffer promise."""

import json
import math
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from farout.config.compose import compose_settings
from farout.errors import ConfigError, FaroutError
from farout.methods import JEM, Batch
from farout.methods.jem import class_energy, joint_energy
from farout.methods.langevin import Clamps, ReplayBuffer, frozen, langevin_chain

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors/vectors_jem_cider.json").read_text())["jem"]
PAPER: dict[str, Any] = {
    "p_x_weight": 1.0,
    "p_y_given_x_weight": 1.0,
    "p_x_y_weight": 0.0,
    "class_cond_p_x_sample": False,
    "buffer_size": 6,
    "reinit_freq": 0.05,
    "sgld_steps": 3,
    "sgld_lr": 1.0,
    "sgld_std": 0.01,
    "clamp_gradient": None,
    "clamp_images": None,
    "sgld_precision": "fp32",
    "restart_sgld_steps": 0,
}


class TinyNet(nn.Module):
    """The vectors' network: (N, 1, 2, 2) -> 4 -> 5 -> 3 logits."""

    num_classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.output = nn.Linear(4, 5), nn.Linear(5, 3)
        self.double()
        known = VECTORS["tiny_net"]
        self.load_state_dict(
            {
                "hidden.weight": tensor(known["hidden_weight"]),
                "hidden.bias": tensor(known["hidden_bias"]),
                "output.weight": tensor(known["class_weight"]),
                "output.bias": tensor(known["class_bias"]),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.output(F.leaky_relu(self.hidden(x.flatten(1)), 0.2))


def tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def cosines(count: int, factor: float, shape: tuple[int, ...], phase: float = 0.0) -> Tensor:
    k = torch.arange(1, count + 1, dtype=torch.float64)
    return torch.cos(factor * k + phase).view(shape)


def close(value: Tensor | float, expected: Any, relative: float = 1e-9) -> None:
    torch.testing.assert_close(torch.as_tensor(value).double(), tensor(expected), rtol=relative, atol=1e-12)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The vectors' draws in place of torch's: rows, fresh images, who restarts, and the noise of each step."""
    known = VECTORS["sgld_chain_unconditional"]
    step = count(1)

    def noise(shape: tuple[int, ...], **_: Any) -> Tensor:
        return cosines(math.prod(shape), 1.7, tuple(shape), 0.5 * next(step))

    def integers(low: int, high: int, shape: tuple[int, ...], **_: Any) -> Tensor:
        drawn = known["drawn_indices"] if high == 6 else VECTORS["sgld_chain_class_conditional"][OFFSETS]
        return torch.tensor(drawn)

    monkeypatch.setattr("farout.methods.langevin.torch.randn", noise)
    monkeypatch.setattr("farout.methods.langevin.torch.randint", integers)
    monkeypatch.setattr("farout.methods.langevin.torch.rand", lambda *_, **__: tensor(DRAWS))
    monkeypatch.setattr("farout.methods.langevin.uniform", lambda *_: tensor(known["fresh_images"]))
    yield


OFFSETS = "drawn_within_class_offsets"
DRAWS = VECTORS["sgld_chain_unconditional"]["uniform_draws_for_reinit_test"]


def jem(**changes: Any) -> JEM:
    method = JEM(**{**PAPER, **changes})
    method.replay_buffer.images = tensor(VECTORS["sgld_chain_unconditional"]["buffer"])
    return method


def batches() -> dict[str, Batch]:
    known = VECTORS["iteration_losses"]
    labelled = Batch(cosines(16, 0.35, (4, 1, 2, 2)), torch.tensor(known["y"]))
    return {"unlabelled": Batch(cosines(16, 0.6, (4, 1, 2, 2))), "labelled": labelled}


def test_energies_are_those_of_the_official_model() -> None:
    known, net = VECTORS["energies"], TinyNet()
    x, y = tensor(known["x"]), torch.tensor(known["y"])
    close(-joint_energy(net)(x), known["f(x)=logsumexp=log p(x)+log Z"])
    close(-class_energy(net, y)(x)[:, None], known["f(x,y)=selected logit (shape (3,1))"])


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize("known", VECTORS["sgld_chain_unconditional"]["trajectory"], ids=lambda k: k["n_steps"])
def test_a_scripted_chain_goes_the_official_way(known: dict[str, Any]) -> None:
    method = jem(sgld_steps=known["n_steps"])
    close(method.sample(TinyNet(), 4), known["samples"])


@pytest.mark.usefixtures("scripted")
def test_a_scripted_chain_leaves_the_official_buffer() -> None:
    method = jem()
    method.sample(TinyNet(), 4)
    close(method.replay_buffer.images, VECTORS["sgld_chain_unconditional"]["buffer_after_3_steps"])


@pytest.mark.usefixtures("scripted")
def test_class_conditional_chains_stay_in_their_class_s_rows() -> None:
    known, method = VECTORS["sgld_chain_class_conditional"], jem()
    close(method.sample(TinyNet(), 4, torch.tensor(known["y"])), known["samples"])
    close(method.replay_buffer.images, known["buffer_after"])


def test_a_seeded_buffer_starts_as_the_official_one() -> None:
    """The rest of this vector follows torch 2.13's way to draw few numbers, which later versions do not have."""
    known, method, net = VECTORS["sgld_chain_torch_seed0"], JEM(**PAPER), TinyNet()
    torch.manual_seed(0)
    method.prepare(net, {"unlabelled": Batch(torch.zeros(4, 1, 2, 2))})
    close(method.replay_buffer.images, known["buffer0"], 2e-5)


@pytest.mark.usefixtures("scripted")
def test_the_joint_loss_and_its_gradients() -> None:
    known, net = VECTORS["iteration_losses"], TinyNet()
    losses = jem().loss(net, batches())
    close(losses["p_x"], known["l_p_x"])
    close(losses["p_y_given_x"], known["cross_entropy"])
    close(losses["total"], known["total_weights_1_1_0"])
    losses["total"].backward()
    close(net.output.weight.grad, known["grad_class_weight"])  # type: ignore[arg-type]
    close(net.hidden.weight.grad, known["grad_hidden_weight"])  # type: ignore[arg-type]


@pytest.mark.usefixtures("scripted")
def test_the_factored_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = jem(p_x_weight=0.0, p_y_given_x_weight=0.0, p_x_y_weight=1.0).loss(TinyNet(), batches())
    assert losses.keys() == {"total", "p_x_y"}
    close(losses["total"], VECTORS["iteration_losses"]["l_p_x_y (weights 0,0,1)"])


def test_class_conditional_samples_of_p_x_are_scored_by_the_joint_energy() -> None:
    torch.manual_seed(1)
    method, net = jem(class_cond_p_x_sample=True, sgld_std=0.0, reinit_freq=0.0), TinyNet()
    before = method.replay_buffer.images.clone()
    losses = method.loss(net, batches())
    changed = (method.replay_buffer.images != before).flatten(1).any(1).nonzero().flatten()
    assert len(changed) >= 1
    ends = method.replay_buffer.images[changed]
    labels = torch.div(changed, 2, rounding_mode="floor")
    close(ends, method.refine(net, before[changed], 3, labels).tolist())
    assert losses["energy_samples"] != losses["energy_data"]


def test_the_energy_of_noise_is_read_from_the_same_images_without_a_draw() -> None:
    torch.manual_seed(4)
    method, net = jem(), TinyNet()
    state = torch.get_rng_state()
    first, again = (method.log_scalars(net)["energy_noise"] for _ in range(2))
    assert torch.equal(first, again) and torch.equal(torch.get_rng_state(), state) and not first.requires_grad
    many = torch.rand(20_000, 1, 2, 2, dtype=torch.float64) * 2 - 1
    energies = joint_energy(net)(many).detach()
    assert abs(float(first - energies.mean())) < 5 * float(energies.std()) / 8  # 64 images, uniform in [-1, 1]


def test_the_chain_is_exact_on_a_quadratic_energy() -> None:
    x = torch.tensor([[2.0, -1.0], [0.5, 4.0]], dtype=torch.float64)
    ends = langevin_chain(lambda z: 0.5 * z.square().sum(1), x, 5, 0.1, 0.0)
    close(ends, (x * 0.9**5).tolist())
    assert x[0, 0] == 2  # the start is not the chain's to change


def test_the_chain_samples_a_gaussian_when_noise_and_step_agree() -> None:
    """With noise sqrt(2 step) and a small step the stationary law is exp(-E): here N(0, 1 / (1 - step / 2))."""
    generator = torch.Generator().manual_seed(0)
    step, n = 0.1, 40_000
    ends = langevin_chain(
        lambda z: 0.5 * z.square().sum(1), torch.zeros(n, 1), 80, step, math.sqrt(2 * step), generator
    )
    variance = 1 / (1 - step / 2)
    assert abs(float(ends.mean())) < 5 * math.sqrt(variance / n)
    assert abs(float(ends.var()) / variance - 1) < 5 * math.sqrt(2 / n)


def test_squared_energies_are_added_with_their_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    method, net, samples = jem(energy_l2_weight=0.25, p_x_weight=0.5), TinyNet(), cosines(16, 0.9, (4, 1, 2, 2))
    monkeypatch.setattr(method, "sample", lambda *_: samples)
    losses = method.loss(net, batches())
    data, drawn = (torch.logsumexp(net(x), 1) for x in (batches()["unlabelled"].images, samples))
    squares = (data**2).mean() + (drawn**2).mean()
    close(losses["energy_l2"], float(squares))
    close(losses["total"], float(0.5 * (drawn - data).mean() + losses["p_y_given_x"] + 0.25 * squares))
    assert losses["energy_l2"].requires_grad


def test_a_weight_of_zero_on_squared_energies_keeps_the_run_it_was() -> None:
    words = ["experiment=jem/small/cifar10_jem"]
    with_none, with_some = (compose_settings([*words, f"energy_l2_weight={w}"]).method for w in (0, 0.1))
    assert with_none.record() == compose_settings(words).method.record()
    assert with_some.record() == {**with_none.record(), "energy_l2_weight": 0.1}
    assert "energy_l2_weight" not in with_none.record() and with_none.build().energy_l2_weight == 0


def test_clamps_bound_gradients_and_images() -> None:
    x = torch.tensor([[10.0, -0.3]])
    one = langevin_chain(lambda z: 0.5 * z.square().sum(1), x, 1, 1.0, 0.0, clamps=Clamps(1.0))
    torch.testing.assert_close(one, torch.tensor([[9.0, 0.0]]))
    two = langevin_chain(lambda z: 0.5 * z.square().sum(1), x, 1, 1.0, 0.0, clamps=Clamps(1.0, 1.0))
    torch.testing.assert_close(two, torch.tensor([[1.0, 0.0]]))


def test_a_chain_is_the_same_with_a_generator_of_the_same_seed() -> None:
    def chain() -> Tensor:
        return langevin_chain(lambda z: z.sum(1), torch.zeros(3, 2), 4, 0.1, 0.5, torch.Generator().manual_seed(7))

    assert torch.equal(chain(), chain())


def test_noise_of_zero_draws_nothing() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    langevin_chain(lambda z: z.sum(1), torch.zeros(3, 2), 4, 0.1, 0.0)
    assert torch.equal(torch.rand(1), expected)


def test_chains_compute_no_parameter_gradients_and_leave_the_network_as_it_was() -> None:
    net = TinyNet().train()
    net.hidden.bias.requires_grad_(False)
    seen: list[bool] = []

    def watching(x: Tensor) -> Tensor:
        seen.extend(p.requires_grad for p in net.parameters())
        seen.append(net.training)
        return -net(x).logsumexp(1)

    with frozen(net):
        langevin_chain(watching, torch.zeros(2, 1, 2, 2).double(), 2, 1.0, 0.01)
    assert not any(seen)
    assert all(p.grad is None for p in net.parameters())
    assert net.training and net.hidden.weight.requires_grad and not net.hidden.bias.requires_grad


def test_chains_run_where_gradients_are_switched_off() -> None:
    with torch.inference_mode():
        ends = langevin_chain(lambda z: z.square().sum(1), torch.ones(2, 2), 1, 0.25, 0.0)
    torch.testing.assert_close(ends, torch.full((2, 2), 0.5))


def test_the_later_of_two_samples_of_one_row_stays() -> None:
    buffer = ReplayBuffer(5, 0.0)
    buffer.images = torch.zeros(5, 1)
    buffer.write(torch.tensor([3, 0, 3, 3]), torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    assert buffer.images.flatten().tolist() == [2, 0, 0, 4, 0]


def test_restarted_rows_are_fresh_noise_within_bounds() -> None:
    torch.manual_seed(0)
    buffer = ReplayBuffer(4000, 0.05)
    buffer.fill(torch.zeros(1, 3, 2, 2))
    assert buffer.images.shape == (4000, 3, 2, 2)
    assert -1 <= float(buffer.images.min()) < -0.99 and 0.99 < float(buffer.images.max()) <= 1
    rows, start = buffer.draw(4000)
    fresh = (start != buffer.images[rows]).flatten(1).any(1)
    assert abs(int(fresh.sum()) - 200) < 5 * math.sqrt(4000 * 0.05 * 0.95)


def test_the_buffer_belongs_to_the_state() -> None:
    method = JEM(**PAPER)
    method.prepare(TinyNet(), {"unlabelled": Batch(torch.zeros(4, 1, 2, 2))})
    other = JEM(**PAPER)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.replay_buffer.images, method.replay_buffer.images)


def test_restarts_lengthen_the_chains() -> None:
    method = JEM(**{**PAPER, "sgld_steps": 20, "restart_sgld_steps": 5})
    method.restarted(3)
    assert method.steps == 35


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"p_x_weight": -1.0}, "p_x_weight=-1"),
        ({"p_x_weight": 0.0, "p_y_given_x_weight": 0.0}, "nothing to train"),
        ({"sgld_steps": -1}, "sgld_steps=-1"),
        ({"sgld_lr": 0.0}, "sgld_lr=0"),
        ({"sgld_std": -0.1}, "sgld_std=-0.1"),
        ({"reinit_freq": 1.5}, "reinit_freq=1.5"),
        ({"buffer_size": 0}, "buffer_size=0"),
        ({"clamp_images": 0.0}, "clamp_images=0"),
        ({"energy_l2_weight": -0.1}, "energy_l2_weight=-0.1"),
        ({"energy_l2_weight": 0.1, "p_x_weight": 0.0}, "it needs p_x_weight"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        JEM(**{**PAPER, **changes})


def test_a_buffer_that_the_classes_cannot_share_is_refused() -> None:
    method = JEM(**{**PAPER, "buffer_size": 7, "class_cond_p_x_sample": True})
    with pytest.raises(ConfigError, match="multiple of the 3 classes"):
        method.prepare(TinyNet(), {"unlabelled": Batch(torch.zeros(4, 1, 2, 2))})


def test_a_step_without_prepare_says_so() -> None:
    with pytest.raises(FaroutError, match="call prepare"):
        JEM(**PAPER).loss(TinyNet(), batches())
