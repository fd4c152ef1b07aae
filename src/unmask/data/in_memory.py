"""Data in memory: a pair of images and labels, a DataLoader or a Dataset of torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils import data as torch_data

from unmask.data.dataset import DataError, Dataset
from unmask.data.forms.arrays import from_arrays
from unmask.data.forms.form import Wanted, noted
from unmask.data.forms.order import order_of
from unmask.inputs import as_labels

__all__ = ["InMemory", "from_memory"]

Array = Tensor | npt.NDArray[Any]
InMemory = tuple[Array, Array] | torch_data.DataLoader[Any] | torch_data.Dataset[Any]
"""Images and labels, batches of both, or pairs of an image and a label."""


def from_memory(data: InMemory, n: int) -> Dataset:
    """At most ``n`` examples of ``data``.

    Args:
        data: a pair (images, labels), as of :func:`unmask.data.forms.arrays.from_arrays`. Or a ``DataLoader`` of such
            pairs, whose batches are taken once, as it gives them, until there are ``n`` examples. Or a ``Dataset`` with
            a length, of pairs (image (C, H, W), label): its ``targets`` and ``classes`` are used where it has them, so
            that one sorted by class is shuffled; else it is taken from its beginning.

    Raises :class:`DataError` for what is none of these, and for images or labels that do not fit.

    >>> pairs = torch_data.TensorDataset(torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 1]))
    >>> from_memory(torch_data.DataLoader(pairs, batch_size=2), 3).labels.tolist()
    [0, 1, 1]
    """
    name = "images in memory" if isinstance(data, tuple) else type(data).__name__
    wanted = Wanted(name, n=n)
    if isinstance(data, tuple):
        if len(data) != 2:
            raise DataError(f"data are a tuple of {len(data)}", "give (images, labels)")
        return from_arrays(*data, wanted, name)
    if isinstance(data, torch_data.DataLoader):
        batches = (_pair(batch, f"{name}: a batch") for batch in data)
        return _of(data.dataset, _gathered(batches, n, name), wanted)
    if not (isinstance(data, torch_data.Dataset) and hasattr(data, "__len__")):
        raise DataError(
            f"data are a {type(data).__name__}: give the name of a data set, (images, labels), a DataLoader or a "
            "Dataset of torch with a length"
        )
    order, shuffled = _order(data)
    items = (_item(data[position], f"{name}: item {position}") for position in order[:n].tolist())
    return _of(data, _gathered(items, n, name), wanted, shuffled)


def _of(source: Any, pair: tuple[Tensor, Tensor], wanted: Wanted, shuffled: tuple[str, ...] = ()) -> Dataset:
    """The examples in the order in which they were gathered, with the names of classes that the source has."""
    names = getattr(source, "classes", None)
    known = tuple(map(str, names)) if isinstance(names, list | tuple) and names else None
    return from_arrays(*pair, wanted, noted(wanted.name, shuffled), known, keep_order=True)


def _order(data: Any) -> tuple[Tensor, tuple[str, ...]]:
    """As of :func:`order_of`, where ``data`` has as many ``targets`` as items; else from the first item on."""
    try:
        labels = as_labels(getattr(data, "targets", None))
    except ValueError:
        labels = torch.empty(0)
    return order_of(labels) if len(labels) == len(data) else (torch.arange(len(data)), ())


def _gathered(pairs: Iterator[tuple[Tensor, Tensor]], n: int, name: str) -> tuple[Tensor, Tensor]:
    """The first ``n`` images and labels of batches, of which no more are taken than needed."""
    images, labels, count = list[Tensor](), list[Tensor](), 0
    for x, y in pairs:
        if images and x.shape[1:] != images[0].shape[1:]:
            first, other = tuple(images[0].shape[1:]), tuple(x.shape[1:])
            raise DataError(f"{name}: images have shapes {first} and {other}: resize and crop them to one shape")
        images.append(x)
        labels.append(y)
        count += len(x)
        if count >= n:
            break
    if not images:
        raise DataError(f"{name} holds no images", "give at least one")
    return torch.cat(images)[:n], torch.cat(labels)[:n]


def _item(item: Any, what: str) -> tuple[Tensor, Tensor]:
    """A batch of one from a pair of an image and a label."""
    x, y = _pair(item, what)
    return x.unsqueeze(0), y.reshape(1)


def _pair(given: Any, what: str) -> tuple[Tensor, Tensor]:
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise DataError(f"{what} is a {type(given).__name__}, not a pair of images and labels", "give such pairs")
    image, label = given
    if not isinstance(image, Tensor | np.ndarray):
        raise DataError(
            f"{what} holds a {type(image).__name__}: give a tensor in [0, 1], as the transform ToTensor does"
        )
    return torch.as_tensor(image).detach().cpu(), torch.as_tensor(label).detach().cpu()
