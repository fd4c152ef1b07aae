"""Images and labels as arrays: what their axes are, and whether their values can be right."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmask.data.dataset import DataError, Dataset, check_labels
from unmask.data.forms.form import Wanted, noted
from unmask.data.forms.order import order_of
from unmask.errors import UnmaskError
from unmask.inputs import as_images, as_labels, check_shape, check_white

__all__ = ["from_arrays"]

_MOST_CLASSES = 1_000_000  # a greater label is a mistake, and would ask for as many class names


def from_arrays(
    images: Any,
    labels: Any,
    wanted: Wanted,
    title: str,
    classes: tuple[str, ...] | None = None,
    *,
    keep_order: bool = False,
) -> Dataset:
    """The first ``wanted.n`` of N examples, in the order of :func:`order_of`, or in that given.

    Args:
        images: (N, C, H, W); (N, H, W, C) where the last axis alone has 1 or 3 entries; or grey (N, H, W). uint8 from
            0 to 255 or floating-point numbers in [0, 1].
        labels: (N,) or (N, 1), of an integer type.
        wanted: how many; ``wanted.size`` must be None.
        title: what to call the data beside a result.
        classes: names; None where only numbers are known.
        keep_order: whether examples sorted by class stay so.

    Raises :class:`DataError` for anything else.

    >>> data = from_arrays(np.zeros((2, 5, 4, 3)), [0, 1], Wanted("some"), "some")
    >>> tuple(data.images.shape), data.classes, data.classes_known
    ((2, 3, 5, 4), ('0', '1'), False)
    """
    if wanted.size is not None:
        raise DataError(f"{wanted.name} holds arrays of one size", "leave --size out")
    try:
        x = _channels_first(_tensor(images, "images"), wanted.name)
        y = _tensor(labels, "labels")
        y = as_labels(y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y)
        if len(x) != len(y):
            raise UnmaskError(f"there are {len(x)} images and {len(y)} labels", "give one label an image")
        x = _checked(x)
    except ValueError as error:
        raise DataError(str(error) if isinstance(error, DataError) else f"{wanted.name}: {error}") from error
    known = classes or tuple(str(label) for label in range(min(int(y.max()) + 1, _MOST_CLASSES)))
    check_labels(y, len(known), lambda row: f"{wanted.name}: row {row}")
    order, shuffled = (torch.arange(len(y)), ()) if keep_order else order_of(y)
    first = order[: wanted.n]
    return Dataset(wanted.name, x[first], y[first], known, noted(title, shuffled), classes_known=classes is not None)


def _tensor(values: Any, what: str) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu()
    try:
        return torch.from_numpy(np.array(values))
    except (TypeError, ValueError) as error:
        raise UnmaskError(
            f"{what} are a {type(values).__name__} of {np.array(values).dtype}", "give numbers"
        ) from error


def _channels_first(x: Tensor, name: str) -> Tensor:
    """(N, C, H, W), from that, (N, H, W, C) or (N, H, W)."""
    if x.ndim == 3:
        return x.unsqueeze(1)
    if x.ndim != 4 or x.shape[3] not in (1, 3):
        return x
    if x.shape[1] in (1, 3):
        raise DataError(
            f"{name}: images of shape {tuple(x.shape)} may be (N, C, H, W) or (N, H, W, C): save them with another "
            "height or width"
        )
    return x.permute(0, 3, 1, 2).contiguous()


def _checked(x: Tensor) -> Tensor:
    """The images as uint8 where they hold 255 as white, else as float32 in [0, 1]."""
    x = x if x.dtype == torch.uint8 else as_images(x)
    check_white(x)
    check_shape(x)
    return x
