from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.needs import need
from unmask.data import DataError, default_home, describe, load, names

Encode = Callable[..., bytes]
Write = Callable[..., Path]

TEST = "test-00000-of-00001.parquet"


def grey(value: int, encode: Encode, form: str = "PNG") -> bytes:
    return encode(np.full((28, 28), value), form)


@pytest.fixture
def home(tmp_path: Path, write: Write, encode: Encode) -> Path:
    """Three examples of MNIST and of CIFAR-10, PNG and JPEG, and two of the ImageNet sample in two sizes."""
    write(tmp_path / "data/mnist/mnist" / TEST, [grey(i, encode) for i in (0, 51, 255)], [7, 2, 1])
    colours = [encode(np.full((32, 32, 3), i), "JPEG") for i in (10, 20, 30)]
    write(tmp_path / "data/cifar10" / TEST, colours, [3, 8, 0], column="img")
    photographs = [encode(np.full((299, 350, 3), 60), "JPEG"), encode(np.full((400, 299), 70), "JPEG")]
    sample = tmp_path / "data/imagenet-sample/validation-00000-of-00001.parquet"
    write(sample, photographs, [1, 0], names=["tench", "goldfish"])
    return tmp_path


def test_mnist_from_parquet(home: Path) -> None:
    data = load("mnist", home=home)
    x, y = data.batch()
    assert x.shape == (3, 1, 28, 28)
    assert x[:, 0, 5, 5].tolist() == pytest.approx([0, 0.2, 1])
    assert y.tolist() == [7, 2, 1]
    assert (data.name, data.note, data.classes) == ("mnist", "MNIST", tuple("0123456789"))


def test_jpeg_is_said_beside_the_name(home: Path, write: Write, encode: Encode) -> None:
    data = load("cifar10", home=home, n=2)
    assert data.note == "CIFAR-10 (JPEG copies)"
    assert data.images.shape == (2, 3, 32, 32)
    assert [data.classes[label] for label in data.labels] == ["cat", "ship"]
    write(home / "data/cifar10" / TEST, [encode(np.zeros((32, 32, 3)))], [0], column="img")
    assert load("cifar10", home=home).note == "CIFAR-10"


def test_the_imagenet_sample_is_resized_and_named_by_its_file(home: Path) -> None:
    data = load("imagenet-sample", home=home)
    assert data.images.shape == (2, 3, 224, 224)
    assert data.images.flatten(1).float().mean(1).round().tolist() == [60, 70]
    assert data.classes == ("tench", "goldfish")
    assert data.note == "ImageNet sample (JPEG copies, probably training images)"
    assert load("imagenet-sample", home=home, size=28).images.shape == (2, 3, 28, 28)
    with pytest.raises(DataError, match=r"^imagenet-sample has no train split: ask for test$"):
        load("imagenet-sample", "train", home=home)


def test_only_the_first_n_are_decoded(home: Path, write: Write, encode: Encode) -> None:
    write(home / "data/mnist/mnist" / TEST, [grey(1, encode), grey(2, encode), b"broken"], [0, 1, 2])
    assert load("mnist", home=home, n=2).labels.tolist() == [0, 1]
    with pytest.raises(DataError, match="the image of row 2 cannot be decoded"):
        load("mnist", home=home)


def test_torchvision_files_are_read_where_there_is_no_parquet(tmp_path: Path) -> None:
    folder = tmp_path / "data/cifar10/cifar-10-batches-py"
    folder.mkdir(parents=True)
    batch = {b"data": np.full((2, 3072), 51, np.uint8), b"labels": [9, 1]}
    (folder / "test_batch").write_bytes(pickle.dumps(batch, protocol=4))
    data = load("cifar10", home=tmp_path, n=1)
    assert data.note == "CIFAR-10"
    assert data.batch()[0].unique().tolist() == pytest.approx([0.2])
    assert data.labels.tolist() == [9]


def test_the_home_is_that_of_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_HOME", str(home))
    assert default_home() == home
    assert len(load("mnist")) == 3
    monkeypatch.setenv("UNMASK_HOME", "")
    monkeypatch.setenv("HOME", "/some/where")
    assert default_home() == Path("/some/where/.cache/unmask")


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNMASK_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    told = "this user has no home folder: set UNMASK_HOME to a folder for data and weights"
    with pytest.raises(DataError, match=f"^{told}$"):
        load("mnist")
    assert describe("mnist").endswith(f"; {told}")


@pytest.mark.usefixtures("without_hub")
@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        (
            "mnist",
            'pip install "unmask[hub]" to download it, put test-00000-of-00001.parquet or '
            "MNIST/raw/{{t10k,train}}-*-ubyte[.gz] into {folder}, or set UNMASK_HOME",
        ),
        (
            "cifar10",
            'pip install "unmask[hub]" to download it, put test-00000-of-00001.parquet or '
            "cifar-10-batches-py/ into {folder}, or set UNMASK_HOME",
        ),
        (
            "imagenet-sample",
            "put test-00000-of-00001.parquet (of the images of github.com/EliSchwartz/imagenet-sample-images) into "
            "{folder}, or set UNMASK_HOME",
        ),
    ],
)
def test_what_is_missing_comes_with_its_remedy(tmp_path: Path, name: str, remedy: str) -> None:
    with pytest.raises(DataError) as caught:
        load(name, home=tmp_path)
    folder = tmp_path / "data" / name
    assert str(caught.value) == f"{name} (test) is missing: " + remedy.format(folder=folder)


def test_missing_data_is_downloaded_into_the_home(
    tmp_path: Path, write: Write, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def hf_hub_download(repo_id: str, filename: str, *, repo_type: str, local_dir: str) -> str:
        asked.append((repo_id, filename, repo_type))
        (Path(local_dir) / ".cache").mkdir()
        column = "img" if "cifar10" in repo_id else "image"
        return str(write(Path(local_dir) / filename, [encode(np.full((28, 28), 9))], [4], column=column))

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=hf_hub_download))
    for _ in range(2):  # the second time it is there
        assert load("mnist", "train", home=tmp_path).labels.tolist() == [4]
        assert load("cifar10", home=tmp_path).images.unique().tolist() == [9]
    assert asked == [
        ("ylecun/mnist", "mnist/train-00000-of-00001.parquet", "dataset"),
        ("uoft-cs/cifar10", f"plain_text/{TEST}", "dataset"),
    ]
    files = {str(path.relative_to(tmp_path / "data")) for path in tmp_path.rglob("*") if not path.is_dir()}
    assert files == {"mnist/mnist/train-00000-of-00001.parquet", f"cifar10/plain_text/{TEST}"}
    assert not list(tmp_path.rglob(".cache"))


def test_a_failed_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hf_hub_download(*_: object, **__: object) -> str:
        raise RuntimeError("no route\nto host")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=hf_hub_download))
    with pytest.raises(DataError) as caught:
        load("mnist", home=tmp_path)
    wanted = f"cannot download mnist/{TEST} of ylecun/mnist (no route to host): try again with a network, or put "
    assert str(caught.value) == wanted + f"{TEST} into {tmp_path / 'data' / 'mnist'}"


@pytest.mark.parametrize("failure", [RuntimeError("cut off"), KeyboardInterrupt()])
@pytest.mark.parametrize("before", [[], ["home"], ["home/data/mnist/mnist/train-00000-of-00001.parquet"]])
def test_a_failed_download_leaves_nothing(
    failure: BaseException, before: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hf_hub_download(_: str, filename: str, *, local_dir: str, **__: object) -> str:
        for name in (filename, ".cache/huggingface/download/x.incomplete"):
            (Path(local_dir) / name).parent.mkdir(parents=True)
            (Path(local_dir) / name).write_bytes(b"half")
        raise failure

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=hf_hub_download))
    for name in before:
        (tmp_path / name).mkdir(parents=True)
    there = sorted(tmp_path.rglob("*"))
    with pytest.raises((DataError, KeyboardInterrupt)):
        load("mnist", home=tmp_path / "home")
    assert sorted(tmp_path.rglob("*")) == there


def test_any_folder_or_file_by_its_path(tmp_path: Path, write: Write, encode: Encode) -> None:
    pixels = [encode(np.full((4, 6), i)) for i in (1, 2, 3)]
    file = write(tmp_path / "mine/data/train-00000-of-00001.parquet", pixels, [0, 1, 4], raw=True)
    data = load(str(tmp_path / "mine"), "train", n=2)
    assert data.images.shape == (2, 1, 4, 6)
    assert data.images[:, 0, 0, 0].tolist() == [1, 2]
    assert (data.classes, data.note) == (tuple("01234"), "mine")
    assert torch.equal(load(str(file), n=2).images, data.images)
    with pytest.raises(DataError) as caught:
        load(str(tmp_path / "mine"))
    wanted = "has no test split: name its parquet file test-00000-of-00001.parquet, or give the path of one file"
    assert str(caught.value) == f"{tmp_path / 'mine'} {wanted}"


def test_one_colour_image_makes_a_path_rgb_whatever_n_is(tmp_path: Path, write: Write, encode: Encode) -> None:
    images = [encode(np.full((4, 4), 9)), encode(np.full((4, 4, 3), 9), "JPEG")]
    file = write(tmp_path / "mixed.parquet", images, [0, 1])
    assert load(str(file), n=1).images.shape == (1, 3, 4, 4)
    assert load(str(file), n=1).note == "mixed.parquet (1 grey image as RGB)"
    assert load(str(file)).note == "mixed.parquet (JPEG, 1 grey image as RGB)"


def test_a_label_outside_the_named_classes(home: Path, write: Write, encode: Encode) -> None:
    write(home / "data/mnist/mnist" / TEST, [grey(1, encode)], [10])
    with pytest.raises(DataError, match=r"^mnist: row 0 has label 10, but labels run from 0 to 9: correct it$"):
        load("mnist", home=home)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: load("mnsit"),
            "there is no data set, folder or file 'mnsit': give the path of your own data, or one of digits, mnist, "
            "cifar10, imagenet-sample",
        ),
        (lambda: load("no/such/folder"), "there is no folder or file no/such/folder: correct the path"),
        (lambda: load("absent.parquet"), "there is no folder or file absent.parquet: correct the path"),
        (lambda: load("digits", "val"), "unknown split 'val': ask for 'train' or 'test'"),
        (lambda: load("digits", n=0), "digits: n must be at least 1, not 0"),
        (lambda: load("digits", n=501), "digits: n must be from 1 to 500, the examples there are, not 501"),
        (lambda: load("imagenet-sample", size=0), "imagenet-sample: size must be at least 1, not 0"),
        (lambda: load("cifar10", size=64), "cifar10 has images of one size: leave size out"),
        (lambda: load("digits", size=64), "digits has images of one size: leave size out"),
    ],
)
def test_bad_arguments_are_told_in_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(DataError) as caught:
        call()
    assert str(caught.value) == message


def test_every_name_is_described_in_one_line(home: Path) -> None:
    lines = [describe(name, home=home) for name in names()]
    folder = home / "data"
    assert lines == [
        "digits: handwritten digits, 8x8 grey, 10 classes; comes with scikit-learn",
        f"MNIST: handwritten digits, 28x28 grey, 10 classes; test in {folder / 'mnist'}",
        f"CIFAR-10: photographs, 32x32 RGB, 10 classes; test in {folder / 'cifar10'}",
        f"ImageNet sample: photographs, one a class, 224x224 RGB, 1000 classes; test in {folder / 'imagenet-sample'}",
    ]
    missing = home / "elsewhere"
    assert describe("mnist", home=missing).endswith(f"; missing from {missing / 'data' / 'mnist'}")
    with pytest.raises(DataError, match=r"^there is no data set, folder or file 'nope'"):
        describe("nope")


def test_describe_survives_a_missing_shard(home: Path, write: Write) -> None:
    write(home / "data/mnist/train-00000-of-00002.parquet", [b"a"], [0])
    assert describe("mnist", home=home).endswith("must have each shard 0 to 1 once, not [0]: fetch or remove shards")


def test_the_real_mnist() -> None:
    need("mnist")
    mnist = load("mnist", n=5)
    assert mnist.labels.tolist() == [7, 2, 1, 0, 4]  # the known head of the test set
    assert mnist.batch()[0][0].sum() == pytest.approx(72.5, abs=0.5)


def test_the_real_images_to_train_on() -> None:
    need("mnist", "train")
    assert load("mnist", "train", n=5).labels.tolist() == [5, 0, 4, 1, 9]


def test_the_real_cifar10() -> None:
    need("cifar10")
    cifar10 = load("cifar10", n=1000)
    assert cifar10.labels.bincount(minlength=10).min() > 50


def test_the_real_photographs() -> None:
    need("imagenet-sample")
    assert load("imagenet-sample", n=3).images.shape == (3, 3, 224, 224)
