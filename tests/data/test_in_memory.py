"""Pairs of arrays, loaders and data sets of torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from unmask.data import DataError, from_memory

X = torch.arange(6, dtype=torch.float32).reshape(6, 1, 1, 1).expand(-1, 3, 4, 5) / 10
Y = torch.tensor([1, 0, 2, 0, 1, 1])


class Pairs(TorchDataset[Any]):
    def __init__(self, images: Any, labels: Any, **more: Any) -> None:
        self.images, self.labels = images, labels
        self.__dict__.update(more)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.images[index], self.labels[index]


def refused(data: Any, n: int = 6) -> str:
    with pytest.raises(DataError) as caught:
        from_memory(data, n)
    return str(caught.value)


@pytest.mark.parametrize("images", [X, X.double().numpy(), X.permute(0, 2, 3, 1)])
def test_a_pair(images: Tensor) -> None:
    data = from_memory((images, Y.numpy()), 4)
    assert torch.equal(data.batch()[0], X[:4])
    assert data.labels.tolist() == [1, 0, 2, 0]
    assert data.classes == ("0", "1", "2")
    assert not data.classes_known
    assert len(from_memory((X, Y), 100)) == 6


def test_a_pair_sorted_by_class_is_shuffled() -> None:
    data = from_memory((X, Y.sort()[0]), 4)
    order = np.random.RandomState(0).permutation(6)[:4].tolist()
    assert torch.equal(data.batch()[0], X[order])
    assert data.note == "images in memory (shuffled)"


def test_a_loader_gives_its_batches_once_and_no_more_than_needed() -> None:
    taken = []

    class Watched(Pairs):
        def __getitem__(self, index: int) -> tuple[Any, Any]:
            taken.append(index)
            return super().__getitem__(index)

    data = from_memory(DataLoader(Watched(X, Y, classes=["a", "b", "c"]), batch_size=2), 3)
    assert torch.equal(data.batch()[0], X[:3])
    assert data.labels.tolist() == [1, 0, 2]
    assert data.classes == ("a", "b", "c")
    assert taken == [0, 1, 2, 3]


def test_a_shuffling_loader_is_taken_as_it_comes() -> None:
    data = from_memory(DataLoader(TensorDataset(X, Y), batch_size=2, shuffle=True), 6)
    rows = [round(10 * value) for value in data.batch()[0][:, 0, 0, 0].tolist()]
    assert sorted(rows) == [0, 1, 2, 3, 4, 5]
    assert data.labels.tolist() == Y[rows].tolist()


def test_a_data_set_is_taken_from_its_beginning_unless_its_targets_are_sorted() -> None:
    data = from_memory(Pairs(X, Y.tolist()), 2)
    assert torch.equal(data.batch()[0], X[:2])
    assert data.note == "Pairs"
    in_order = Y.sort()[0].tolist()
    data = from_memory(Pairs(X, in_order, targets=in_order, classes=("a", "b", "c")), 3)
    order = np.random.RandomState(0).permutation(6)[:3].tolist()
    assert torch.equal(data.batch()[0], X[order])
    assert data.labels.tolist() == [in_order[row] for row in order]
    assert (data.name, data.note, data.classes) == ("Pairs", "Pairs (shuffled)", ("a", "b", "c"))


def test_what_is_no_data_is_told() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            yield X[0], 0

    given = "give the name of a data set, (images, labels), a DataLoader or a Dataset of torch with a length"
    assert refused(3) == f"data are a int: {given}"
    assert refused(Stream()) == f"data are a Stream: {given}"
    assert refused((X, Y, Y)) == "data are a tuple of 3: give (images, labels)"
    assert refused((X, Y[:2])) == "images in memory: there are 6 images and 2 labels: give one label an image"
    told = "images in memory: images lie in [0, 127.5]: divide them by 255, so that they lie in [0, 1]"
    assert refused((X * 255, Y)) == told
    twice = "images in memory: images go up to 0.00196, where 1 is white, as if they were divided by 255 twice: divide "
    assert refused((X / 255, Y)) == twice + "them once; or give x / 0.00196, if that is white"
    dark = X / 64  # up to two of 255 levels
    assert len(from_memory((dark, Y), 6)) == 6


def test_items_that_do_not_fit_are_told() -> None:
    assert refused(Pairs(["picture"] * 6, Y)) == (
        "Pairs: item 0 holds a str: give a tensor in [0, 1], as the transform ToTensor does"
    )
    assert refused(TensorDataset(X)) == (
        "TensorDataset: item 0 is a tuple, not a pair of images and labels: give such pairs"
    )
    assert refused(DataLoader(TensorDataset(X), batch_size=2)) == (
        "DataLoader: a batch is a list, not a pair of images and labels: give such pairs"
    )
    mixed = [X[0], X[1, :, :3], *X[2:]]
    told = "Pairs: images have shapes (3, 4, 5) and (3, 3, 5): resize and crop them to one shape"
    assert refused(Pairs(mixed, Y)) == told
    assert refused(Pairs([], [])) == "Pairs holds no images: give at least one"
