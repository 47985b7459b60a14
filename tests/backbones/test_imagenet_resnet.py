"""torchvision's ResNet-34 as CIDER fine-tunes it: the trunk, what is frozen, and where its weights come from."""

from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import ResNet34_Weights, resnet34

from farout.backbones import imagenet_resnet
from farout.backbones.imagenet_resnet import PUBLISHED, ImageNetResNet34, weights_file, weights_mark
from farout.errors import ConfigError, FaroutError


@pytest.fixture(scope="module")
def official():
    """torchvision's network with random weights."""
    torch.manual_seed(5)
    return resnet34()


@pytest.fixture(scope="module")
def file(official, tmp_path_factory):
    """Its state_dict, as torchvision's downloads are."""
    path = tmp_path_factory.mktemp("weights") / "resnet34.pth"
    torch.save(official.state_dict(), path)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_features_are_those_of_torchvisions_network(official, file, tmp_path, suffix):
    if suffix == ".safetensors":
        file = tmp_path / "resnet34.safetensors"
        save_file(official.state_dict(), file)
    model = ImageNetResNet34(3, str(file)).eval()
    model.load_pretrained()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    seen = []
    handle = official.avgpool.register_forward_hook(lambda *given: seen.append(given[2].flatten(1)))
    official.eval()(images)
    handle.remove()
    assert torch.equal(model.features(images), seen[0])
    assert torch.equal(model(images), model.linear(seen[0]))
    points = model.embed(images)
    assert points.shape == (2, 128)
    assert torch.allclose(points.norm(dim=1), torch.ones(2))


def test_sizes():
    """torchvision's 21,797,672 parameters without its last layer, and the heads."""
    with torch.device("meta"):
        model = ImageNetResNet34(100)
    heads = 512 * 512 + 512 + 512 * 128 + 128 + 512 * 100 + 100
    assert sum(p.numel() for p in model.parameters()) == 21_797_672 - (512 * 1000 + 1000) + heads
    assert all(p.requires_grad for p in model.parameters())


def test_only_the_named_parts_and_the_heads_train():
    with torch.device("meta"):
        model = ImageNetResNet34(10, trainable=["layer4", "bn1"])
    training = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    beginnings = ("trunk.layer4.", "trunk.bn1.", "projection.", "linear.")
    assert training == {name for name, _ in model.named_parameters() if name.startswith(beginnings)}
    with pytest.raises(ConfigError, match="there is no layer5, only conv1, bn1, layer1, layer2, layer3, layer4"):
        ImageNetResNet34(10, trainable=["layer5"])


def test_a_file_is_known_by_its_content(official, file, tmp_path):
    again = tmp_path / "elsewhere.pth"
    again.write_bytes(file.read_bytes())
    assert weights_mark(str(again)) == weights_mark(str(file))
    assert weights_mark(weights_mark(str(file))) == weights_mark(str(file)), "a run's record builds its network"
    again.write_bytes(file.read_bytes() + b"x")
    assert weights_mark(str(again)) != weights_mark(str(file))
    assert ResNet34_Weights.IMAGENET1K_V1.url.endswith(f"-{weights_mark(PUBLISHED).removeprefix('sha256-')}.pth")


def test_missing_and_foreign_weights_are_one_line(tmp_path):
    def refused(path):
        with pytest.raises(FaroutError) as error:
            ImageNetResNet34(3, str(path)).load_pretrained()
        assert "\n" not in str(error.value)
        return str(error.value)

    gone = tmp_path / "gone.pth"
    assert refused(gone) == f"backbone.weights={gone} is not there: give a file, imagenet1k_v1, or null for chance"
    with pytest.raises(FaroutError, match="is not there"):
        weights_mark(str(gone))
    text = tmp_path / "text.pth"
    text.write_text("no weights")
    assert str(text) in refused(text)
    other = tmp_path / "other.pth"
    torch.save({"conv1.weight": torch.zeros(1)}, other)
    assert "does not fit torchvision's resnet34" in refused(other)
    listed = tmp_path / "list.pth"
    torch.save([1, 2], listed)
    assert "it holds none" in refused(listed)


def test_weights_are_found_in_their_wrappers_and_never_guessed(official, tmp_path):
    path, state = tmp_path / "wrapped.pth", official.state_dict()
    wrapped = {f"module.{name}": value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    torch.save({"state_dict": wrapped, "epoch": 3}, path)
    model = ImageNetResNet34(3, str(path))
    model.load_pretrained()
    assert torch.equal(model.trunk.layer4[0].conv1.weight, state["layer4.0.conv1.weight"])
    torch.save({"state_dict": state, "ema": {name: value + 1 for name, value in state.items()}}, path)
    with pytest.raises(FaroutError, match=r"several sets of weights \(state_dict, ema\): save the one"):
        ImageNetResNet34(3, str(path)).load_pretrained()
    torch.save({**state, "bn1.bias": torch.full((64,), torch.nan)}, path)
    with pytest.raises(FaroutError, match="has NaN or infinity"):
        ImageNetResNet34(3, str(path)).load_pretrained()


def test_published_weights_without_a_network(tmp_path, monkeypatch):
    def unreachable(*given, **named):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    url = ResNet34_Weights.IMAGENET1K_V1.url
    folder = tmp_path / "hub" / "checkpoints"
    with pytest.raises(FaroutError) as error:
        ImageNetResNet34(3, PUBLISHED).load_pretrained()
    assert "\n" not in str(error.value)
    assert f"download {url} to {folder}, or give backbone.weights=FILE" in str(error.value)
    (folder / url.rpartition("/")[2]).write_text("half a download")
    with pytest.raises(FaroutError, match="is damaged: remove it and download"):
        weights_file(PUBLISHED)


def test_published_weights_from_the_cache_or_a_download(file, tmp_path, monkeypatch):
    asked = []

    def fetched(url, target, prefix, progress):
        asked.append((url, prefix))
        with open(target, "wb") as out:
            out.write(file.read_bytes())

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetched)
    published = weights_mark(str(file)).removeprefix("sha256-")
    monkeypatch.setattr(imagenet_resnet, "_published_hash", lambda: published)
    for _ in range(2):
        model = ImageNetResNet34(3, PUBLISHED)
        model.load_pretrained()
    assert asked == [(ResNet34_Weights.IMAGENET1K_V1.url, published)], "the second time it lies in the cache"
    assert torch.equal(model.trunk.conv1.weight, torch.load(file)["conv1.weight"])
