"""The original files of MNIST (idx) and CIFAR-10 (pickle), laid out as torchvision downloads them."""

from __future__ import annotations

import gzip
import pickle
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmask.data.dataset import DataError

__all__ = ["Originals", "cifar10", "mnist"]

_AGAIN = "fetch the file again"


@dataclass(frozen=True)
class Originals:
    """How to find and read the original files of one data set."""

    find: Callable[[Path, str], list[Path]]  # (folder, split) -> files, empty if any is missing
    read: Callable[[Sequence[Path], int | None], tuple[Tensor, Tensor]]  # at most n images (N, C, H, W), labels (N,)
    example: str  # a file to name when nothing is there


def _find_mnist(folder: Path, split: str) -> list[Path]:
    prefix = "t10k" if split == "test" else "train"
    wanted = [f"MNIST/raw/{prefix}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
    found = [path for name in wanted for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
    by_kind = {path.name.removesuffix(".gz"): path for path in reversed(found)}  # an unpacked file goes first
    return [by_kind[Path(name).name] for name in wanted] if len(by_kind) == len(wanted) else []


def _read_mnist(files: Sequence[Path], n: int | None) -> tuple[Tensor, Tensor]:
    images, labels = (_read_idx(file, shape, n) for file, shape in zip(files, ((28, 28), ()), strict=True))
    if len(images) != len(labels):
        raise DataError(f"{files[0]} has {len(images)} images but {files[1].name} {len(labels)} labels", _AGAIN)
    return images.unsqueeze(1), labels.long()


def _read_idx(file: Path, shape: tuple[int, ...], n: int | None) -> Tensor:
    """At most ``n`` items of ``shape`` from an idx file of bytes; the format is described on the MNIST page."""
    opened: Callable[..., Any] = gzip.open if file.suffix == ".gz" else open
    dimensions = 1 + len(shape)
    try:
        with opened(file, "rb") as stream:
            magic, count, *sizes = np.frombuffer(stream.read(4 + 4 * dimensions), ">u4", 1 + dimensions).tolist()
            if magic != 0x0800 + dimensions or tuple(sizes) != shape:
                raise DataError(f"{file} is no idx file of bytes with items of shape {shape}", _AGAIN)
            count = count if n is None else min(n, count)
            values = np.frombuffer(stream.read(count * int(np.prod(shape))), np.uint8)
        return torch.from_numpy(values.reshape(count, *shape).copy())
    except DataError:
        raise
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{file} is truncated or unreadable ({error})", _AGAIN) from error


def _find_cifar10(folder: Path, split: str) -> list[Path]:
    names = ["test_batch"] if split == "test" else [f"data_batch_{i}" for i in range(1, 6)]
    files = [folder / "cifar-10-batches-py" / name for name in names]
    return files if all(file.is_file() for file in files) else []


def _read_cifar10(files: Sequence[Path], n: int | None) -> tuple[Tensor, Tensor]:
    images: list[Tensor] = []
    labels: list[int] = []
    for file in files:
        if n is not None and len(labels) >= n:
            break
        pixels, numbers = _read_batch(file)
        images.append(pixels)
        labels.extend(numbers)
    return torch.cat(images)[:n], torch.tensor(labels)[:n]


def _read_batch(file: Path) -> tuple[Tensor, list[int]]:
    """One pickled batch: b"data" (N, 3072) uint8 and b"labels", a list of N."""
    try:
        with file.open("rb") as stream:
            batch = _ArraysOnly(stream, encoding="bytes").load()
        pixels, labels = batch[b"data"].reshape(-1, 3, 32, 32), [int(label) for label in batch[b"labels"]]
        images = torch.from_numpy(pixels)
    except Exception as error:  # broken pickles raise many kinds
        raise DataError(f"{file} is no readable CIFAR-10 batch ({error})", _AGAIN) from error
    if len(images) != len(labels):
        raise DataError(f"{file} has {len(images)} images but {len(labels)} labels", _AGAIN)
    return images, labels


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
}


class _ArraysOnly(pickle.Unpickler):
    """Builds arrays and Python's own containers and nothing else: a pickle can name any function to call."""

    def find_class(self, module: str, name: str) -> Any:
        known = (module.replace("numpy._core", "numpy.core"), name)
        if known not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
        return _ALLOWED[known]


mnist = Originals(_find_mnist, _read_mnist, "MNIST/raw/{t10k,train}-*-ubyte[.gz]")
cifar10 = Originals(_find_cifar10, _read_cifar10, "cifar-10-batches-py/")
