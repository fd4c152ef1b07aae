from __future__ import annotations

import gzip
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unmask.data import DataError
from unmask.data.torchvision_files import cifar10, mnist

IMAGES = np.random.RandomState(0).randint(0, 256, (5, 28, 28)).astype(np.uint8)
LABELS = np.array([3, 1, 4, 1, 5], np.uint8)
IMAGES_FILE, LABELS_FILE = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">{1 + values.ndim}I", 0x0800 + values.ndim, *values.shape) + values.tobytes()


def write_mnist(folder: Path, images: bytes, labels: bytes, suffix: str = "") -> list[Path]:
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    pack: Callable[[bytes], bytes] = gzip.compress if suffix else bytes
    files = [raw / f"{IMAGES_FILE}{suffix}", raw / f"{LABELS_FILE}{suffix}"]
    for file, content in zip(files, (images, labels), strict=True):
        file.write_bytes(pack(content))
    return files


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("n", [1, 3, None, 9])
def test_idx_files_come_back(tmp_path: Path, suffix: str, n: int | None) -> None:
    files = write_mnist(tmp_path, idx(IMAGES), idx(LABELS), suffix)
    assert mnist.find(tmp_path, "test") == files
    assert mnist.find(tmp_path, "train") == []
    images, labels = mnist.read(files, n)
    assert images[:, 0].tolist() == IMAGES[:n].tolist()
    assert labels.tolist() == LABELS[:n].tolist()


def test_an_unpacked_file_goes_before_its_archive_and_one_of_two_is_none(tmp_path: Path) -> None:
    packed = write_mnist(tmp_path, idx(IMAGES), idx(LABELS), ".gz")
    plain = write_mnist(tmp_path, idx(IMAGES), idx(LABELS))
    assert mnist.find(tmp_path, "test") == plain
    plain[0].unlink()
    assert mnist.find(tmp_path, "test") == [packed[0], plain[1]]
    packed[0].unlink()
    assert mnist.find(tmp_path, "test") == []


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("keep", [0, 10, 16, 1000])
def test_truncated_idx_files_are_named(tmp_path: Path, suffix: str, keep: int) -> None:
    files = write_mnist(tmp_path, idx(IMAGES), idx(LABELS), suffix)
    files[0].write_bytes(files[0].read_bytes()[:keep])
    with pytest.raises(DataError) as caught:
        mnist.read(files, None)
    assert str(caught.value).startswith(f"{files[0]} is truncated or unreadable (")
    assert str(caught.value).endswith("): fetch the file again")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (idx(IMAGES[:, :8, :8]), idx(LABELS), "is no idx file of bytes with items of shape"),
        (idx(LABELS) + bytes(9), idx(LABELS), "is no idx file of bytes with items of shape"),
        (idx(IMAGES), idx(LABELS[:4]), f"has 5 images but {LABELS_FILE} 4 labels: fetch the file again"),
    ],
)
def test_idx_files_of_something_else_are_refused(tmp_path: Path, images: bytes, labels: bytes, message: str) -> None:
    files = write_mnist(tmp_path, images, labels)
    with pytest.raises(DataError) as caught:
        mnist.read(files, None)
    assert message in str(caught.value)


def python2_batch(pixels: np.ndarray, labels: list[int]) -> bytes:
    """A batch as the original files have it: protocol 2 of Python 2, byte strings, the old name of numpy's module."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R"
    kind = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    kind += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    shape = number(pixels.shape[0]) + number(pixels.shape[1]) + b"\x86"
    array += b"(" + number(1) + shape + kind + b"\x89" + text(pixels.tobytes()) + b"tb"
    listed = b"](" + b"".join(number(label) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + listed + b"u."


def write_batch(folder: Path, name: str, content: bytes) -> Path:
    file = folder / "cifar-10-batches-py" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    return file


def test_a_batch_of_python_2_comes_back(tmp_path: Path) -> None:
    pixels = np.random.RandomState(1).randint(0, 256, (3, 3072)).astype(np.uint8)
    file = write_batch(tmp_path, "test_batch", python2_batch(pixels, [6, 0, 9]))
    assert cifar10.find(tmp_path, "test") == [file]
    images, labels = cifar10.read([file], None)
    assert images.tolist() == pixels.reshape(3, 3, 32, 32).tolist()  # red plane, green plane, blue plane
    assert labels.tolist() == [6, 0, 9]


def test_train_needs_five_batches_and_reads_them_in_order(tmp_path: Path) -> None:
    for i in range(1, 6):
        assert cifar10.find(tmp_path, "train") == []
        content = {b"data": np.full((2, 3072), i, np.uint8), b"labels": [i, i]}
        write_batch(tmp_path, f"data_batch_{i}", pickle.dumps(content, protocol=4))
    files = cifar10.find(tmp_path, "train")
    assert cifar10.read(files, None)[1].tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    files[2].unlink()
    images, labels = cifar10.read(files, 3)  # the third file is not needed
    assert images[:, 0, 0, 0].tolist() == labels.tolist() == [1, 1, 2]


class _Harmful:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.marker),))


def test_a_malicious_pickle_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "harm"
    content = pickle.dumps({b"data": _Harmful(marker), b"labels": [0]})
    file = write_batch(tmp_path, "test_batch", content)
    with pytest.raises(DataError) as caught:
        cifar10.read([file], None)
    wanted = f"{file} is no readable CIFAR-10 batch (it asks for {os.mkdir.__module__}.mkdir, which is not allowed): "
    assert str(caught.value) == wanted + "fetch the file again"
    assert not marker.exists()
    pickle.loads(content)  # the same bytes do harm elsewhere
    assert marker.exists()


@pytest.mark.parametrize("attribute", [b"cbuiltins\neval\n", b"cnumpy\nload\n", b"cnumpy.core.multiarray\nfromfile\n"])
def test_no_other_function_can_be_named(tmp_path: Path, attribute: bytes) -> None:
    file = write_batch(tmp_path, "test_batch", b"\x80\x02" + attribute + b".")
    with pytest.raises(DataError, match=r"is no readable CIFAR-10 batch \(it asks for .*, which is not allowed\)"):
        cifar10.read([file], None)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        python2_batch(np.zeros((2, 3072), np.uint8), [0, 1])[:3000],
        pickle.dumps([1, 2]),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8)}),
        pickle.dumps({b"data": np.zeros((2, 3071), np.uint8), b"labels": [0, 1]}, protocol=4),
    ],
)
def test_broken_batches_are_named(tmp_path: Path, content: bytes) -> None:
    file = write_batch(tmp_path, "test_batch", content)
    with pytest.raises(DataError) as caught:
        cifar10.read([file], None)
    assert str(caught.value).startswith(f"{file} is no readable CIFAR-10 batch (")
    assert str(caught.value).endswith("): fetch the file again")
    assert "\n" not in str(caught.value)


def test_a_batch_needs_a_label_for_each_image(tmp_path: Path) -> None:
    file = write_batch(tmp_path, "test_batch", python2_batch(np.zeros((2, 3072), np.uint8), [0]))
    with pytest.raises(DataError, match=r"has 2 images but 1 labels: fetch the file again$"):
        cifar10.read([file], None)
