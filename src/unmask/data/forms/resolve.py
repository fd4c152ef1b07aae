"""Which form the data have that a user names."""

from __future__ import annotations

from unmask.data.dataset import DataError
from unmask.data.forms.csv_file import csv_file
from unmask.data.forms.form import Form, Wanted
from unmask.data.forms.hub_set import hub_set
from unmask.data.forms.image_folder import image_folder
from unmask.data.forms.npz import npz
from unmask.data.forms.parquet_files import parquet_files
from unmask.data.forms.tensors import safetensors_file, torch_file

__all__ = ["FORMS", "resolve"]

FORMS = (parquet_files, image_folder, csv_file, npz, torch_file, safetensors_file, hub_set)
"""The first one that claims a text is that of the data; a folder that holds parquet files is no folder of images."""


def resolve(wanted: Wanted) -> Form | None:
    """The form of the data that ``wanted.name`` names; None for a plain word that names no file.

    Raises :class:`DataError` for a path at which there is nothing, or a file of no known form.

    >>> resolve(Wanted("hf:uoft-cs/cifar10")).syntax
    'hf:NAME'
    """
    path = wanted.path
    if hub_set.claims(wanted):
        return hub_set
    if not path.exists():
        if path.suffix or len(path.parts) > 1:
            raise DataError(f"there is no folder or file {path}", "correct the path")
        return None
    form = next((form for form in FORMS if form.claims(wanted)), None)
    if form is None:
        known = ", ".join(form.syntax for form in FORMS)
        raise DataError(f"{path} is of no known form", f"give one of {known}; see `unmask list datasets`")
    return form
