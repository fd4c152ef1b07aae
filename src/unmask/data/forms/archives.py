"""Files that hold arrays by name: which of them are images, labels and names of classes."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from unmask.data.dataset import DataError
from unmask.data.forms.form import Wanted

__all__ = ["CLASSES", "class_names", "pair_of", "refuse_bomb"]

CLASSES = ("classes", "class_names")
"""What the names of the classes may be called."""

_SPLITS = {"train": ("train",), "test": ("test", "val")}
_PAIRS = (("images", "labels"), ("x", "y"))
_LARGE = 1 << 28
_MOST = 100
"""How many times its size in the file an array of more than 256 MiB may have; images rarely shrink to a tenth."""


def pair_of(names: Collection[str], wanted: Wanted) -> tuple[str, str]:
    """The names of images and labels: ``test_images`` and ``test_labels``, ``x_test`` and ``y_test``, or without split.

    >>> pair_of(["x_train", "y_train", "x_test", "y_test"], Wanted("a.npz"))
    ('x_test', 'y_test')
    """
    of_split = [
        pair
        for split in _SPLITS[wanted.split]
        for pair in ((f"{split}_images", f"{split}_labels"), (f"x_{split}", f"y_{split}"))
    ]
    for images, labels in (*of_split, *_PAIRS):
        if images in names and labels in names:
            return images, labels
    held = ", ".join(sorted(names)[:10]) or "nothing"
    raise DataError(
        f"{wanted.name} holds {held}: name the arrays 'images' and 'labels', or '{wanted.split}_images' ..."
    )


def class_names(values: Any, name: str) -> tuple[str, ...] | None:
    """Names of classes from a sequence of them; None where there are none."""
    if values is None:
        return None
    found = values if isinstance(values, Sequence) and not isinstance(values, str) else ()
    if not found or not all(isinstance(one, str) for one in found):
        raise DataError(f"{name}: 'classes' is no list of names: store one text for each class, or leave it out")
    return tuple(found)


def refuse_bomb(path: Path) -> None:
    """Refuse a zip archive of which a member grows beyond measure when it is read."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.file_size > max(_LARGE, _MOST * member.compress_size):
                size = member.file_size >> 20
                raise DataError(f"{path}: {member.filename} unpacks to {size} MiB: store it with less compression")
