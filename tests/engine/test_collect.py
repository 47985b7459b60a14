"""One forward pass a set, in full precision whatever the network trained in."""

import pytest
import torch

from farout.backbones.cifar_resnet import CifarResNet
from farout.data import ImageSet
from farout.data.transform import Transform
from farout.engine.evaluate import accuracy, collect, share_correct
from farout.engine.precision import allow_tf32, tf32_allowed
from farout.scores import Outputs

CPU = torch.device("cpu")
TRANSFORM = Transform((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), flip=True, crop_padding=4)


@pytest.fixture
def model() -> CifarResNet:
    torch.manual_seed(0)
    return CifarResNet(depth=8, num_classes=5, width=4)


@pytest.fixture
def image_set() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (23, 3, 32, 32), generator=generator).to(torch.uint8)
    return ImageSet("tiny", "test", images, torch.arange(23) % 5, tuple("abcde"), raw=False, info={})


def test_equals_the_model_on_unaugmented_images(model, image_set):
    outputs = collect(model, TRANSFORM, image_set, CPU, batch_size=10)
    with torch.inference_mode():
        model.eval()
        expected = model(TRANSFORM(image_set.images))
        features = model.features(TRANSFORM(image_set.images))
    assert torch.allclose(outputs.logits, expected, atol=1e-6)
    assert torch.allclose(outputs.features, features, atol=1e-6)
    assert torch.equal(outputs.labels, image_set.labels)


def test_batch_norm_is_left_alone_even_after_training_mode(model, image_set):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    one, two = (collect(model, TRANSFORM, image_set, CPU, batch_size=size) for size in (4, 23))
    assert torch.allclose(one.logits, two.logits, atol=1e-6)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_reduced_precision_is_ignored_and_restored(model, image_set):
    expected = collect(model, TRANSFORM, image_set, CPU).logits
    with model.precision(torch.bfloat16):
        assert not torch.equal(model(TRANSFORM(image_set.images)), expected), "bf16 shows, so the next line can fail"
        assert torch.equal(collect(model, TRANSFORM, image_set, CPU).logits, expected)
        assert model.autocast_dtype == torch.bfloat16


def test_the_share_of_correct_ones_alone_is_the_accuracy_in_full_precision(model, image_set):
    expected = accuracy(collect(model, TRANSFORM, image_set, CPU))
    assert 0 < expected < 1
    with model.precision(torch.bfloat16):
        for size in (4, 23):
            assert share_correct(model, TRANSFORM, image_set, CPU, size) == pytest.approx(expected)
        assert model.autocast_dtype == torch.bfloat16


@pytest.mark.parametrize("measure", [collect, share_correct])
def test_a_pass_that_breaks_off_leaves_the_network_its_precision(model, image_set, monkeypatch, measure):
    def interrupted(images):
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "features", interrupted)
    with model.precision(torch.bfloat16):
        with pytest.raises(KeyboardInterrupt):
            measure(model, TRANSFORM, image_set, CPU, 4)
        assert model.autocast_dtype == torch.bfloat16


@pytest.mark.parametrize("measure", [collect, share_correct])
def test_tf32_is_not_for_measuring(model, image_set, monkeypatch, measure):
    seen, real = [], type(model).features
    monkeypatch.setattr(type(model), "features", lambda *given: seen.append(tf32_allowed()) or real(*given))
    allow_tf32(True)
    try:
        measure(model, TRANSFORM, image_set, CPU, 23)
        assert seen == [False] and tf32_allowed()
    finally:
        allow_tf32(False)


def test_raw_sets_reach_the_network_as_they_are(model):
    noise = torch.randn(6, 3, 32, 32)
    outputs = collect(model, TRANSFORM, ImageSet("noise", "test", noise, None, (), raw=True, info={}), CPU)
    with torch.inference_mode():
        assert torch.allclose(outputs.logits, model.eval()(noise), atol=1e-6)
    assert outputs.labels is None


def test_accuracy():
    outputs = Outputs(torch.eye(3), torch.zeros(3, 1), torch.tensor([0, 1, 1]))
    assert accuracy(outputs) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="labels"):
        accuracy(Outputs(torch.eye(3), torch.zeros(3, 1)))
