"""Parquet files in the form of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unmask.data import parquet
from unmask.data.dataset import DataError, Dataset
from unmask.data.decode import PEEK, count_channels, decode, rows_of
from unmask.data.forms.form import Form, Wanted, noted

__all__ = ["parquet_files", "where"]


def _claims(wanted: Wanted) -> bool:
    if wanted.path.is_dir():
        return any(wanted.path.glob("*.parquet")) or any(wanted.path.glob("*/*.parquet"))
    return wanted.path.suffix == ".parquet"


def _load(wanted: Wanted) -> Dataset:
    """The rows in the order of the files, whatever their labels, and no further than needed."""
    path, n = wanted.path, wanted.n
    files = [path] if path.is_file() else parquet.find(path, wanted.split)
    if not files:
        name = f"{wanted.split}-00000-of-00001.parquet"
        raise DataError(
            f"{path} has no {wanted.split} split: name its parquet file {name}, or give the path of one file"
        )
    rows = parquet.read(files, None if n is None else max(n, PEEK))
    called = rows_of(where(files))
    channels = count_channels(rows.encoded, called)
    images, jpeg, remarks = decode(rows.encoded[:n], channels=channels, size=wanted.size, called=called)
    note = noted(path.name, [*(["JPEG"] if jpeg else []), *remarks])
    return Dataset(wanted.name, images, rows.labels[:n], rows.classes, note, classes_known=rows.named)


def where(files: Sequence[Path]) -> str:
    """What an error calls some shards, whose rows are counted through."""
    return f"{files[0]}" + (f" and {len(files) - 1} more" if len(files) > 1 else "")


parquet_files = Form(
    "FILE.parquet",
    "encoded images in a column image or img, and label; or a folder of such files, in the hub's form",
    "photos.parquet",
    _claims,
    _load,
)
