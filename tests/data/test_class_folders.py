"""A folder in ImageNet's layout: which files count, what they look like at test time, and what is wrong with it."""

import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from farout.data import available, open_dataset, register_folder
from farout.data.class_folders import name_with_classes, read_class_list
from farout.data.decode import ResizeCrop
from farout.data.duplicates import find_duplicates
from farout.data.image_set import ImageSet
from farout.data.prepare import splits_to_prepare
from farout.engine.cache import output_key
from farout.errors import ConfigError, FaroutError, MissingDataError


@pytest.fixture
def opened(here, imagenet_folder):
    """The training images of the three classes."""
    classes = read_class_list(imagenet_folder / "classes.txt")
    name = name_with_classes("imagenet100", classes)
    register_folder(name, imagenet_folder, classes, here)
    return lambda split="train": open_dataset(name, split, here)


def test_images_are_those_of_torchvisions_transforms_bit_for_bit(opened, imagenet_folder):
    official = transforms.Compose([transforms.Resize(224), transforms.CenterCrop(224), transforms.PILToTensor()])
    for split, folder in (("train", "train"), ("test", "val")):
        found = opened(split)
        assert found.classes == ("n01440764", "n02102040", "n03000684")
        paths = [path for wnid in found.classes for path in sorted((imagenet_folder / folder / wnid).iterdir())]
        expected = torch.stack([official(Image.open(path).convert("RGB")) for path in paths])
        assert len(found) == len(paths) == found.info["n"]
        assert torch.equal(found.images[:], expected)
        assert [found.classes[label] for label in found.labels] == [path.parent.name for path in paths]


def test_rows_are_read_like_those_of_a_tensor(opened):
    found = opened()
    whole = torch.from_numpy(found.images.numpy())
    assert found.images.shape == tuple(whole.shape)
    rows = torch.tensor([7, 0, 7])
    assert torch.equal(found.images[rows], whole[rows])
    assert torch.equal(found.images[3], whole[3])
    assert torch.equal(found.images[-1], whole[-1])
    assert torch.equal(found.images[2:5], whole[2:5])
    some = found.subset([5, 1])
    assert torch.equal(some.images[:], whole[[5, 1]])
    assert torch.equal(some.labels, found.labels[[5, 1]])
    assert (some.info["n"], some.info["of"]) == (2, len(found))


def test_nothing_but_an_index_is_stored(opened, here):
    opened()
    assert {path.name for path in here.store.rglob("*") if path.is_file()} == {"meta.json"}


def test_the_list_may_have_any_order_comments_and_blank_lines(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("# mine\nn2 # a dog\n\n  n10\nn1\n")
    assert read_class_list(path) == ["n1", "n10", "n2"]
    assert name_with_classes("x", ["n1", "n2"]) != name_with_classes("x", ["n1", "n3"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# only this\n", "names no class: one WNID a line"),
        ("n1\nn2\nn1\n", "'n1' is there twice"),
        ("n1 tench\n", "'n1 tench' is there twice or is no folder's name"),
        ("../n1\n", "no folder's name"),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_a_list_that_means_nothing_is_refused(tmp_path, text, said):
    path = tmp_path / "list.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_class_list(path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_folders_classes_and_images_are_named(here, imagenet_folder):
    def refused(classes, folder=imagenet_folder):
        with pytest.raises(MissingDataError) as error:
            register_folder("imagenet100@0", folder, classes, here)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert f"{imagenet_folder / 'elsewhere' / 'train'} is no folder" in refused(["n1"], imagenet_folder / "elsewhere")
    assert refused(["n01440764", "n9"]).startswith("class n9 of the class list has no folder in ")
    assert refused(["n8", "n9"]).startswith("class n8 (and 1 more) of the class list")
    (imagenet_folder / "train/n7").mkdir()
    (imagenet_folder / "train/n7/readme.txt").write_text("no image")
    assert "class n7 of the class list has no image in " in refused(["n7"])
    shutil.rmtree(imagenet_folder / "val/n02102040")
    assert f"no folder in {imagenet_folder / 'val'}" in refused(["n02102040"])


def test_without_a_folder_the_error_says_how_to_give_one(here):
    assert not available("imagenet100", "train", here)
    with pytest.raises(MissingDataError, match=r"add id_data\.folder=FOLDER, with train/CLASS.* id_data\.class_list="):
        open_dataset("imagenet100", "train", here)
    with pytest.raises(ConfigError, match=r"not built: `python train\.py` reads it where it lies"):
        splits_to_prepare("imagenet100", None, here)


def test_what_changes_in_the_folder_is_noticed_and_where_it_lies_does_not_matter(opened, here, imagenet_folder):
    before = opened()
    key = output_key("network", before)
    assert find_duplicates([before], before).tolist() == list(range(len(before)))
    moved = imagenet_folder.rename(imagenet_folder.with_name("moved"))
    with pytest.raises(MissingDataError, match="is no folder"):
        opened()
    register_folder(before.name, moved, before.classes, here)
    assert opened().info == before.info
    assert output_key("network", opened()) == key
    shutil.copy(moved / "val/n03000684/0.JPEG", moved / "train/n03000684/another.JPEG")
    after = opened()
    assert len(after) == len(before) + 1
    assert after.info["sha256"] != before.info["sha256"]
    assert output_key("network", after) != key
    assert len(find_duplicates([opened("test")], after)) == 1, "hashes of the files that were there before are dropped"


def test_a_file_that_is_overwritten_in_place_is_noticed_and_a_damaged_index_is_written_again(opened, imagenet_folder):
    """As cv2.imwrite, PIL's save and cp do: the folder's own time stays."""
    before = opened()
    folder = imagenet_folder / "train/n02102040"
    status = folder.stat()
    Image.new("RGB", (90, 90), "red").save(folder / "1.JPEG")
    os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = opened()
    assert after.info["sha256"] != before.info["sha256"] and len(after) == len(before)
    for content in (b"", b"[]", b"{", b"\xff", b'{"source": 3}'):
        (after.folder / "meta.json").write_bytes(content)
        with pytest.raises(MissingDataError, match=r"damaged: add id_data\.folder=FOLDER"):
            opened()


def test_outputs_are_kept_by_selection(opened):
    found = opened()
    keys = [output_key("network", found.subset(rows)) for rows in ([0, 1], [1, 0], [0, 2], [0, 1])]
    assert len(set(keys)) == 3
    assert keys[0] == keys[3]
    assert output_key("network", found) != output_key("other", found)
    assert output_key("network", found) != output_key("network", opened("test"))


def test_copies_among_stored_images_are_found(opened):
    found = opened()
    noise = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    other = ImageSet("ood", "test", torch.cat([noise, found.images[torch.tensor([4, 9])]]), None, (), False)
    assert find_duplicates([found], other).tolist() == [2, 3]


def test_a_damaged_file_is_named(opened, imagenet_folder):
    path = imagenet_folder / "train/n02102040/1.JPEG"
    path.write_bytes(path.read_bytes()[:200])
    found = opened()
    with pytest.raises(FaroutError) as error:
        found.images[:]
    assert str(error.value).startswith(f"{path} cannot be read (")
    assert "\n" not in str(error.value)
    assert np.asarray(found.images[0]).shape == (3, 224, 224)


def test_what_images_of_a_folder_are_known_by_stays() -> None:
    # Runs record it in a hash, so it must outlive every name in the code.
    assert str(ResizeCrop(32, [32, 48])) == "Handling(resize=32, crop=[32, 48], filter='bilinear')"
    assert str(ResizeCrop()) == "Handling(resize=None, crop=None, filter='bilinear')"
