"""Data sets of encoded images (PNG, JPEG ...), of which only those that are needed are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unmask.data.dataset import DataError, Dataset
from unmask.data.decode import PEEK, count_channels, decode
from unmask.data.forms.form import Wanted, noted
from unmask.data.forms.order import order_of

__all__ = ["Encoded", "decoded", "read_image"]


@dataclass(frozen=True)
class Encoded:
    """N images still in their files, with labels.

    Args:
        read: the bytes of the image in a row.
        called: what errors call that image.
        labels: (N,) int64.
        classes: their names; None where only numbers are known.
        title: what to call the data beside a result.
        found: whether these names are those that occur, so that others may be absent.
    """

    read: Callable[[int], bytes]
    called: Callable[[int], str]
    labels: Tensor
    classes: tuple[str, ...] | None
    title: str
    found: bool = False


def decoded(rows: Encoded, wanted: Wanted) -> Dataset:
    """The first ``wanted.n`` examples in the order of :func:`order_of`, one channel if all are grey, else three."""
    order, shuffled = order_of(rows.labels)
    peeked = order[: None if wanted.n is None else max(wanted.n, PEEK)].tolist()
    raws = [rows.read(row) for row in peeked]

    def called(position: int) -> str:
        return rows.called(peeked[position])

    channels = count_channels(raws, called)
    images, jpeg, remarks = decode(raws[: wanted.n], channels=channels, size=wanted.size, called=called)
    return Dataset(
        wanted.name,
        images,
        rows.labels[torch.tensor(peeked[: wanted.n])],
        rows.classes or tuple(str(label) for label in range(int(rows.labels.max()) + 1)),
        noted(rows.title, [*(["JPEG"] if jpeg else []), *remarks, *shuffled]),
        classes_known=rows.classes is not None,
        classes_found=rows.found,
    )


def read_image(path: Path, what: str) -> bytes:
    """The bytes of a file of an image; :class:`DataError`, which calls it ``what``, where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{what} is missing", "put it there, or remove its entry") from error
    except (OSError, ValueError) as error:  # the latter for a path with a null character
        raise DataError(f"{what} cannot be read ({error})", "make it readable") from error
