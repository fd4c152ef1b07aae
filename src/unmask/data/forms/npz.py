"""NumPy's archives of arrays."""

from __future__ import annotations

import zipfile
from typing import Any

import numpy as np

from unmask.data.dataset import DataError, Dataset
from unmask.data.forms.archives import CLASSES, class_names, pair_of, refuse_bomb
from unmask.data.forms.arrays import from_arrays
from unmask.data.forms.form import Form, Wanted
from unmask.errors import first_line

__all__ = ["npz"]


def _load(wanted: Wanted) -> Dataset:
    path = wanted.path
    try:
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path} is no readable npz file (no zip archive)", "write it again with numpy.savez")
        refuse_bomb(path)
        with np.load(path, allow_pickle=False) as file:
            images, labels = pair_of(file.files, wanted)
            names: Any = next((file[name] for name in CLASSES if name in file.files), None)
            pixels, numbers = file[images], file[labels]
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy each fail in their own way
        why = first_line(error, type(error).__name__)
        raise DataError(f"{path} is no readable npz file ({why}): write plain arrays with numpy.savez") from error
    classes = class_names(None if names is None else names.tolist(), wanted.name)
    return from_arrays(pixels, numbers, wanted, path.name, classes)


npz = Form(
    "FILE.npz",
    "arrays images (N, C, H, W), (N, H, W, C) or (N, H, W), labels, perhaps classes; or x_test and y_test",
    "photos.npz",
    lambda wanted: wanted.path.suffix == ".npz",
    _load,
)
