"""scripts/prepare_data.py against a local server with small archives of the official layouts."""

import functools
import gzip
import hashlib
import http.server
import io
import pickle
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import yaml
from PIL import Image
from torchvision import datasets

from farout.config.coerce import Component
from farout.config.settings import ROOT
from farout.data import open_dataset
from farout.data.pack import write_pack
from script_loader import load_script

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def script():
    return load_script("prepare_data")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path):
    """A folder and the address at which it is served."""
    folder = tmp_path / "www"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as service:
        threading.Thread(target=service.serve_forever, args=(0.01,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{service.server_port}"
        service.shutdown()


@pytest.fixture
def run(script, own):
    def run(*arguments: str) -> int:
        places = ["--conf", str(own.conf), "--data", str(own.store), "--packs", str(own.packs)]
        return script.main([*arguments, *places])

    return run


def md5(path: Path) -> str:
    return f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}"


def entry(url: str, checksum: str | None, reader: str, split: str = "test", **more) -> str:
    urls = [url] if isinstance(url, str) else url
    own = {"files": [{"urls": urls, "checksum": checksum}], "read": {"_target_": f"farout.data.official.{reader}"}}
    return yaml.safe_dump({"title": "Served", "splits": {split: {**own, **more}}})


def pictures(n: int, side: int = 32) -> np.ndarray:
    return RNG.integers(0, 256, (n, side, side, 3), np.uint8)


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def write_tar(path: Path, content: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_cifar10_python_archive(server, own, add_dataset, run, monkeypatch):
    folder, address = server
    images, labels = pictures(12), [3, 1, 2, 0] * 3
    rows = images.transpose(0, 3, 1, 2).reshape(12, -1)
    batches = {f"data_batch_{i + 1}": (rows[2 * i : 2 * i + 2], labels[2 * i : 2 * i + 2]) for i in range(5)}
    batches["test_batch"] = (rows[10:], labels[10:])
    content = {k: pickle.dumps({"data": x, "labels": y}) for k, (x, y) in batches.items()}
    content["batches.meta"] = pickle.dumps({"label_names": ["a", "b", "c", "d"]})
    archive = write_tar(folder / "cifar-10-python.tar.gz", {f"cifar-10-batches-py/{k}": v for k, v in content.items()})
    sums = {k: hashlib.md5(v).hexdigest() for k, v in content.items()}
    add_dataset(
        "cifar10",
        yaml.safe_dump(
            {
                "title": "Served CIFAR-10",
                "files": [{"urls": [f"{address}/{archive.name}"], "checksum": md5(archive)}],
                "read": {"_target_": "farout.data.official.cifar10"},
                "splits": {"train": {"size": 10}, "test": {"size": 2}},
            }
        ),
    )
    # torchvision's loader knows only the real batches: they are refused before anything is unpickled
    assert run("cifar10") == 2
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[k, sums[k]] for k in sorted(batches)[:5]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    assert run("cifar10") == 0
    train, test = open_dataset("cifar10", "train", own), open_dataset("cifar10", "test", own)
    assert np.array_equal(train.images.numpy(), images[:10].transpose(0, 3, 1, 2))
    assert test.labels.tolist() == labels[10:] and train.classes == ("a", "b", "c", "d")
    assert train.info["archives"] == {archive.name: md5(archive)}
    assert not (own.store / ".downloads" / "cifar10").exists()


def test_svhn_mat_file(server, own, add_dataset, run, monkeypatch):
    folder, address = server
    images = pictures(4)
    target = folder / "test_32x32.mat"
    scipy.io.savemat(target, {"X": images.transpose(1, 2, 3, 0), "y": np.array([[10], [1], [2], [10]])})
    known = ["", "test_32x32.mat", hashlib.md5(target.read_bytes()).hexdigest()]
    monkeypatch.setitem(datasets.SVHN.split_list, "test", known)
    add_dataset("svhn", entry(f"{address}/{target.name}", md5(target), "svhn", size=4))
    assert run("svhn") == 0
    got = open_dataset("svhn", "test", own)
    assert np.array_equal(got.images.numpy(), images.transpose(0, 3, 1, 2))
    assert got.labels.tolist() == [0, 1, 2, 0]


def test_dtd_archive_takes_all_three_parts(server, own, add_dataset, run):
    folder, address = server
    names = {"train1": "banded/banded_1.jpg", "val1": "dotted/dotted_1.jpg", "test1": "banded/banded_2.jpg"}
    content = {f"dtd/images/{n}": encoded(pictures(1, 64)[0][:40], "JPEG") for n in names.values()}
    content |= {f"dtd/labels/{part}.txt": f"{name}\n".encode() for part, name in names.items()}
    archive = write_tar(folder / "dtd.tar.gz", content)
    add_dataset("textures", entry(f"{address}/dtd.tar.gz", md5(archive), "dtd", resize=32, crop=32, size=3))
    assert run("textures") == 0
    got = open_dataset("textures", "test", own)
    assert got.images.shape == (3, 3, 32, 32) and got.classes == ("banded", "dotted")
    assert sorted(got.labels.tolist()) == [0, 0, 1]


def test_lsun_archive_keeps_its_36_pixels(server, own, add_dataset, run):
    folder, address = server
    images = pictures(3, 36)
    content = {f"LSUN/test/{i}.png": encoded(x) for i, x in enumerate(images)} | {"LSUN/test/._0.png": b"macOS"}
    archive = write_tar(folder / "LSUN.tar.gz", content)
    add_dataset("lsun_c", entry(f"{address}/LSUN.tar.gz?dl=1", md5(archive), "images", size=3))
    assert run("lsun_c") == 0
    assert np.array_equal(open_dataset("lsun_c", "test", own).images.numpy(), images.transpose(0, 3, 1, 2))


def test_ciders_lsun_is_the_same_archive_resized_to_32(server, own, add_dataset, run):
    folder, address = server
    images = pictures(3, 36)
    archive = write_tar(folder / "LSUN.tar.gz", {f"LSUN/test/{i}.png": encoded(x) for i, x in enumerate(images)})
    declared = yaml.safe_load((ROOT / "conf/dataset/lsun_c_32.yaml").read_text())
    own_files = yaml.safe_load((ROOT / "conf/dataset/lsun_c.yaml").read_text())["splits"]["test"]["files"]
    assert declared["splits"]["test"]["files"] == own_files
    sides = {key: declared[key] for key in ("resize", "crop")}
    add_dataset("lsun_c_32", entry(f"{address}/LSUN.tar.gz?dl=1", md5(archive), "images", size=3, **sides))
    assert run("lsun_c_32") == 0
    official = [np.asarray(Image.fromarray(x).resize((32, 32), Image.Resampling.BILINEAR)) for x in images]
    assert np.array_equal(open_dataset("lsun_c_32", "test", own).images.numpy(), np.transpose(official, (0, 3, 1, 2)))


def test_npy_and_refusal_of_pickles(server, own, add_dataset, run, capsys):
    folder, address = server
    images = pictures(5)
    np.save(folder / "300K.npy", images)
    np.save(folder / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    add_dataset("good", entry(f"{address}/300K.npy", md5(folder / "300K.npy"), "npy", "train"))
    add_dataset("evil", entry(f"{address}/evil.npy", md5(folder / "evil.npy"), "npy", "train"))
    assert run("good") == 0
    assert np.array_equal(open_dataset("good", "train", own).images.numpy(), images.transpose(0, 3, 1, 2))
    assert run("evil") == 2


def test_celeba_and_tiny_imagenet_layouts(server, own, add_dataset, run):
    folder, address = server
    with zipfile.ZipFile(folder / "faces.zip", "w") as archive:
        for i in range(3):
            archive.writestr(f"img_align_celeba/{i}.jpg", encoded(pictures(1, 64)[0], "JPEG"))
    (folder / "parts.txt").write_text("0.jpg 0\n1.jpg 2\n2.jpg 2\n")
    files = [{"urls": [f"{address}/{n}"], "checksum": md5(folder / n)} for n in ("faces.zip", "parts.txt")]
    read = {"_target_": "farout.data.official.celeba"}
    own_split = {"files": files, "read": read, "resize": 32, "crop": 32, "size": 2}
    add_dataset("celeba", yaml.safe_dump({"title": "Faces", "splits": {"test": own_split}}))
    with zipfile.ZipFile(folder / "tiny.zip", "w") as archive:
        for name in ("train/n1/images/n1_0.JPEG", "train/n2/images/n2_0.JPEG", "val/images/val_0.JPEG"):
            archive.writestr(f"tiny-imagenet-200/{name}", encoded(pictures(1, 64)[0], "JPEG"))
        archive.writestr("tiny-imagenet-200/val/val_annotations.txt", "val_0.JPEG\tn2\t0\t0\t1\t1\n")
    url, checksum = f"{address}/tiny.zip", md5(folder / "tiny.zip")
    add_dataset("tiny", entry(url, checksum, "tiny_imagenet", "train", resize=32))
    add_dataset("tiny_val", entry(url, checksum, "tiny_imagenet", "val", resize=32))
    read = {"_target_": "farout.data.official.tiny_imagenet", "part": "val"}
    kept = {"files": [{"urls": [url], "checksum": checksum}], "read": read, "resize": 32, "size": 1}
    for name, drop in (("tiny_test", []), ("tiny_without", ["n2"])):
        add_dataset(name, yaml.safe_dump({"title": name, "splits": {"test": {**kept, "drop_classes": drop}}}))
    assert run("celeba", "tiny", "tiny_val", "tiny_test") == 0
    assert open_dataset("tiny_test", "test", own).classes == ("n2",)
    assert run("tiny_without") == 2, "every class is dropped"
    assert len(open_dataset("celeba", "test", own)) == 2
    train = open_dataset("tiny", "train", own)
    assert train.classes == ("n1", "n2") and train.labels.tolist() == [0, 1] and train.info["side"] == 32
    assert open_dataset("tiny_val", "val", own).classes == ("n2",)


def idx(array: np.ndarray) -> bytes:
    """The format of MNIST's files, compressed: two zeros, the type, the number of dimensions, each dimension."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return gzip.compress(head + array.tobytes())


def test_mnist_is_enlarged_and_its_pack_is_only_a_part(server, own, add_dataset, make_set, run, capsys):
    folder, address = server
    grey, numbers = RNG.integers(0, 256, (5, 28, 28), np.uint8), np.array([3, 1, 4, 1, 5], np.uint8)
    (folder / "images.gz").write_bytes(idx(grey))
    (folder / "labels.gz").write_bytes(idx(numbers))
    files = [{"urls": [f"{address}/{n}"], "checksum": md5(folder / n)} for n in ("images.gz", "labels.gz")]
    split = {"files": files, "size": 5, "pack": "part.tar", "pack_size": 3}
    top = {"title": "M", "read": {"_target_": "farout.data.official.mnist"}, "resize": 32, "filter": "bicubic"}
    add_dataset("mnist", yaml.safe_dump({**top, "splits": {"test": split}}))
    write_pack(make_set(3, side=28), own.packs / "part.tar")
    assert open_dataset("mnist", "test", own).info["part"] == "3 of 5 images"
    (folder / "labels.gz").rename(folder / "away.gz")
    assert run("mnist") == 0  # nothing better than the part is to be had
    assert len(open_dataset("mnist", "test", own)) == 3
    (folder / "away.gz").rename(folder / "labels.gz")
    assert run("mnist") == 0
    got = open_dataset("mnist", "test", own)
    large = np.asarray(Image.fromarray(grey[4]).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC))
    assert np.array_equal(got.images[4].numpy(), large.transpose(2, 0, 1))
    assert got.labels.tolist() == numbers.tolist() and got.classes == tuple("0123456789") and "part" not in got.info
    for damaged in (b"no gzip", gzip.compress(b"\0\0\x08\x03"), idx(numbers[:4])):
        (folder / "labels.gz").write_bytes(damaged)
        split["files"] = [files[0], {"urls": [f"{address}/labels.gz"], "checksum": md5(folder / "labels.gz")}]
        add_dataset(
            "broken", yaml.safe_dump({**top, "splits": {"test": {k: v for k, v in split.items() if "pack" not in k}}})
        )
        capsys.readouterr()
        assert run("broken") == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_wrong_checksum_is_refused_and_leaves_nothing(server, own, add_dataset, run, capsys):
    folder, address = server
    write_tar(folder / "a.tar.gz", {"x/0.png": encoded(pictures(1)[0])})
    add_dataset("served", entry(f"{address}/a.tar.gz", "md5:" + "0" * 32, "images"))
    assert run("served") == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "a.tar.gz was not used" in lines[0] and "0" * 32 in lines[0]
    assert [p for p in own.store.rglob("*") if p.is_file() and p.suffix != ".lock"] == []


def test_mirrors_in_order_and_unpinned_files(server, own, add_dataset, run):
    folder, address = server
    good = write_tar(folder / "a.tar.gz", {"x/0.png": encoded(pictures(1)[0])})
    (folder / "bad").mkdir()
    (folder / "bad" / "a.tar.gz").write_bytes(b"an error page")
    urls = [f"{address}/absent/a.tar.gz", f"{address}/bad/a.tar.gz", good.as_uri()]
    add_dataset("served", entry(urls, md5(good), "images"))
    add_dataset("unpinned", entry(urls[2], None, "images"))
    assert run("served", "unpinned") == 0
    sha256 = "sha256:" + hashlib.sha256(good.read_bytes()).hexdigest()
    assert open_dataset("unpinned", "test", own).info["archives"] == {"a.tar.gz": sha256}


def test_a_wrong_count_is_refused(server, own, add_dataset, run, capsys):
    folder, address = server
    archive = write_tar(folder / "a.tar.gz", {"x/0.png": encoded(pictures(1)[0])})
    add_dataset("served", entry(f"{address}/a.tar.gz", md5(archive), "images", size=2))
    assert run("served") == 2
    assert "should have 2 images but here are 1" in capsys.readouterr().err


def test_choice_of_files_by_seed_or_by_list_is_recorded(tmp_path, own, add_dataset, run, capsys):
    folder = tmp_path / "places"
    folder.mkdir()
    for i in range(20):
        Image.fromarray(pictures(1)[0]).save(folder / f"p{i:02d}.png")
    text = "title: P\nsplits: {test: {pack: p.tar, size: 6, choose: {count: 6, seed: 0}}}\n"
    add_dataset("places", text)
    assert run("places", "--from", str(folder)) == 0
    first = open_dataset("places", "test", own)
    kept = (first.folder / "names.txt").read_text()
    assert len(first) == 6 and first.info["names_sha256"] == hashlib.sha256(kept.encode()).hexdigest()
    assert run("places", "--from", str(folder), "--force") == 0
    assert open_dataset("places", "test", own).info["sha256"] == first.info["sha256"]
    (tmp_path / "list.txt").write_text("p03.png\np01.png\n")
    assert run("places", "--from", str(folder), "--names", str(tmp_path / "list.txt"), "--force") == 0
    second = open_dataset("places", "test", own)
    assert len(second) == 2 and second.info["names_sha256"] != first.info["names_sha256"]
    (tmp_path / "list.txt").write_text("p03.png\np99.png\n")
    assert run("places", "--from", str(folder), "--names", str(tmp_path / "list.txt"), "--force") == 2
    assert "1 of the 2 listed images are not there, the first is p99.png" in capsys.readouterr().err
    # a pack already holds the choice
    assert run("places", "--pack", "--out", str(own.packs / "p.tar"), "--split", "test") == 0
    assert run("places", "--from", str(own.packs / "p.tar"), "--force") == 0
    assert open_dataset("places", "test", own).info["sha256"] == second.info["sha256"]


def test_from_official_archive_is_verified(tmp_path, own, add_dataset, run, capsys):
    archive = write_tar(tmp_path / "a.tar.gz", {"x/0.png": encoded(pictures(1)[0])})
    add_dataset("served", entry("http://127.0.0.1:9/a.tar.gz", "md5:" + "0" * 32, "images"))
    assert run("served", "--from", str(archive)) == 2
    assert "was not used" in capsys.readouterr().err
    add_dataset("served", entry("http://127.0.0.1:9/a.tar.gz", md5(archive), "images"))
    assert run("served", "--from", str(tmp_path)) == 0  # a folder that holds it will do
    assert open_dataset("served", "test", own).info["archives"] == {"a.tar.gz": md5(archive)}


def test_several_splits_need_folders_or_a_choice(own, add_dataset, class_folders, run, capsys):
    add_dataset("mine", "title: M\nresize: 32\ncrop: 32\nsplits: {train: {pack: a.tar}, test: {pack: b.tar}}\n")
    assert run("mine", "--from", str(class_folders)) == 2
    assert "--split" in capsys.readouterr().err
    assert run("mine", "--from", str(class_folders), "--split", "test") == 0
    assert len(open_dataset("mine", "test", own)) == 3


def test_optional_splits_wait_until_asked_for(own, add_dataset, class_folders, run):
    make = "make: {_target_: farout.data.synthetic.noise, kind: gaussian, count: 2, seed: 0}"
    add_dataset("noise", f"title: N\n{make}\nsplits: {{test: {{}}, large: {{optional: true}}}}\n")
    assert run("noise") == 0
    assert [p.name.split("-")[0] for p in (own.store / "noise").glob("[!.]*")] == ["test"]
    assert run("noise", "--split", "large") == 0
    assert len(list((own.store / "noise").glob("large-*"))) == 1


def test_statistics_are_ready_to_paste(own, add_dataset, run, capsys):
    folder = own.conf.parent / "photos/train/cat"
    folder.mkdir(parents=True)
    images = pictures(3)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}.png")
    add_dataset("mine", "title: Mine\nsource: photos\n")
    assert run("--stats", "mine") == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["mean"] == pytest.approx((images / 255).mean((0, 1, 2)), abs=1e-4)
    assert printed["std"] == pytest.approx((images / 255).std((0, 1, 2)), abs=1e-4)
    assert Component(printed.pop("name"), printed.pop("_target_"), printed).build().flip
    assert run("--stats", "mine", "--split", "test") == 2
    assert "photos has train but no test" in capsys.readouterr().err


def test_list_and_one_line_errors(own, add_dataset, class_folders, run, capsys):
    add_dataset("mine", "title: Mine\nsource: pictures\nlicence: mine alone\n")
    add_dataset("served", entry("http://127.0.0.1:9/a.tar", None, "images", size=1234))
    assert run("--list") == 0
    table = capsys.readouterr().out
    assert "mine alone" in table and "1,234" in table and "can be downloaded" in table
    for arguments in (["nothing"], ["mine", "served", "--from", "x"], ["mine", "--from", "x"], ["served"]):
        assert run(*arguments) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: ")
