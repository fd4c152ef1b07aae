"""Files of tensors: those of ``torch.save``, and safetensors."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import safe_open

from unmask.data.dataset import DataError, Dataset
from unmask.data.forms.archives import CLASSES, class_names, pair_of, refuse_bomb
from unmask.data.forms.arrays import from_arrays
from unmask.data.forms.form import Form, Wanted
from unmask.errors import first_line

__all__ = ["safetensors_file", "torch_file"]


def _load_torch(wanted: Wanted) -> Dataset:
    path = wanted.path
    try:
        if zipfile.is_zipfile(path):
            refuse_bomb(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except DataError:
        raise
    except Exception as error:  # broken pickles raise many kinds
        raise DataError(
            f"{path} cannot be read as tensors alone ({first_line(error, type(error).__name__)[:100]}): write it with "
            'torch.save({"images": x, "labels": y}, path)'
        ) from error
    if isinstance(content, tuple | list) and len(content) == 2:
        content = dict(zip(("images", "labels"), content, strict=True))
    if not isinstance(content, Mapping):
        raise DataError(f'{path} holds a {type(content).__name__}: save {{"images": x, "labels": y}}')
    return _of(content, wanted, next((content[name] for name in CLASSES if name in content), None))


def _load_safetensors(wanted: Wanted) -> Dataset:
    path = wanted.path
    try:
        with safe_open(path, "pt") as file:
            names = pair_of(file.keys(), wanted)
            content = {name: file.get_tensor(name) for name in names}
            told = file.metadata() or {}
            classes = next((json.loads(told[name]) for name in CLASSES if name in told), None)
    except DataError:
        raise
    except Exception as error:  # the reader's own errors, and those of JSON
        raise DataError(
            f"{path} is no readable safetensors file ({first_line(error, type(error).__name__)}): write it again with "
            "safetensors.torch.save_file"
        ) from error
    return _of(content, wanted, classes)


def _of(content: Mapping[Any, Any], wanted: Wanted, classes: Any) -> Dataset:
    images, labels = pair_of([name for name in content if isinstance(name, str)], wanted)
    return from_arrays(content[images], content[labels], wanted, wanted.path.name, class_names(classes, wanted.name))


torch_file = Form(
    "FILE.pt",
    "torch.save of {'images': x, 'labels': y}, perhaps 'classes', or of (x, y); read with weights_only",
    "photos.pt",
    lambda wanted: wanted.path.suffix in (".pt", ".pth"),
    _load_torch,
)
safetensors_file = Form(
    "FILE.safetensors",
    "tensors images and labels; perhaps a JSON list classes in the metadata",
    "photos.safetensors",
    lambda wanted: wanted.path.suffix == ".safetensors",
    _load_safetensors,
)
