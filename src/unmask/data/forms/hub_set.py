"""Data sets of the Hugging Face hub, through the library ``datasets``."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from unmask.data.dataset import DataError, Dataset
from unmask.data.forms.encoded import Encoded, decoded, read_image
from unmask.data.forms.form import Form, Wanted
from unmask.errors import UnmaskError, first_line
from unmask.network.hubs import offline_unless_reached

__all__ = ["hub_set"]

_PREFIX = "hf:"
_SPLITS = {"train": ("train",), "test": ("test", "validation", "val", "valid")}


def _load(wanted: Wanted) -> Dataset:
    """``hf:NAME`` or ``hf:NAME:CONFIG``, also of a folder on this machine; without the hub, the copy in its cache."""
    name, _, config = wanted.name.removeprefix(_PREFIX).partition(":")
    if not name:
        raise DataError("hf: names no data set", "give, for example, hf:uoft-cs/cifar10")
    try:
        library = importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(f'{wanted.name} needs the library datasets: pip install "unmask[datasets]"') from error
    try:
        with offline_unless_reached(wanted.name, local=Path(name).exists()):
            splits = library.get_dataset_split_names(name, config or None)
            split = next((one for one in _SPLITS[wanted.split] if one in splits), None)
            if split is None:
                raise DataError(
                    f"{wanted.name} has no {wanted.split} split, only {', '.join(splits)}: save the images that you "
                    "mean as a parquet file, and give its path"
                )
            table = library.load_dataset(name, config or None, split=split)
        image, label = _columns(table.features, wanted)
        rows = table.cast_column(image, library.Image(decode=False))
        return decoded(_encoded(rows, image, label, wanted), wanted)
    except DataError:
        raise
    except UnmaskError as error:
        raise DataError(error.problem, error.remedy) from error
    except Exception as error:  # the network, the hub, the library and the disk each fail in their own way
        why = first_line(error, type(error).__name__)
        raise DataError(
            f"{wanted.name} cannot be loaded ({why}): check it; hf:NAME:CONFIG names a configuration"
        ) from error


def _columns(features: Mapping[str, Any], wanted: Wanted) -> tuple[str, str]:
    """The names of the columns of images and of labels: the only one of its type, or the usual name."""
    types = {name: type(feature).__name__ for name, feature in features.items()}
    images = [name for name, kind in types.items() if kind == "Image"]
    labels = [name for name, kind in types.items() if kind == "ClassLabel"] or [
        name for name in types if name == "label" and "int" in str(getattr(features[name], "dtype", ""))
    ]
    chosen = [
        next((name for name in known if name in found), found[0] if len(found) == 1 else None)
        for found, known in ((images, ("image", "img")), (labels, ("label", "labels")))
    ]
    image, label = chosen
    if image is None or label is None:
        lacking = "images" if image is None else "labels"
        told = ", ".join(f"{name} ({kind})" for name, kind in types.items())
        raise DataError(
            f"{wanted.name} has no one column of {lacking} among {told}: save columns image and label as a parquet file"
        )
    return image, label


def _encoded(rows: Any, image: str, label: str, wanted: Wanted) -> Encoded:
    numbers = rows[label][:]
    wrong = next((row for row, number in enumerate(numbers) if number is None or number < 0), None)
    if wrong is not None:
        raise DataError(f"{wanted.name}: row {wrong} has label {numbers[wrong]}: its label is not public, or missing")
    names = getattr(rows.features[label], "names", None)

    def called(row: int) -> str:
        return f"{wanted.name}: the image of row {row}"

    def read(row: int) -> bytes:
        held = rows[row][image]
        raw = held and (held["bytes"] or (held["path"] and read_image(Path(held["path"]), called(row))))
        if not raw:
            raise DataError(f"{called(row)} is missing", "save the rows that have one as a parquet file")
        return bytes(raw)

    return Encoded(read, called, torch.tensor(numbers), names and tuple(names), wanted.name)


hub_set = Form(
    "hf:NAME",
    'a data set of the Hugging Face hub with a test or validation split, by pip install "unmask[datasets]"',
    "hf:uoft-cs/cifar10",
    lambda wanted: wanted.name.startswith(_PREFIX),
    _load,
)
