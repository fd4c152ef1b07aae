"""The Hugging Face hub's form of an image data set: parquet shards with an image and a label column."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from unmask.data.dataset import DataError

__all__ = ["Rows", "find", "read"]

_IMAGE_COLUMNS = ("image", "img")
_SHARD = re.compile(r"-(\d+)-of-(\d+)")
_MOST_CLASSES = 1_000_000  # a greater label is a mistake, and would ask for as many class names
_MOST_ROWS = 20_000_000  # of a file; a few bytes may claim billions
_AGAIN = "fetch or write the file again"


@dataclass(frozen=True)
class Rows:
    """The first rows of a data set, images still encoded."""

    encoded: list[bytes]
    labels: Tensor  # (N,) int64
    classes: tuple[str, ...]
    named: bool  # whether the file names the classes; else they are counted from its labels


def find(folder: Path, split: str) -> list[Path]:
    """The shards ``SPLIT-00000-of-00002.parquet`` ... or the file ``SPLIT.parquet`` of a split, in order.

    Looks in the folder and then in its subfolders (``data/``, ``plain_text/``), and takes the first that
    has any. Hub sets that publish no labelled test split call it ``validation``, which is taken for ``test``.
    Empty if there are none; :class:`DataError` if a shard is missing.
    """
    names = ("test", "validation") if split == "test" else (split,)
    folders = [folder, *sorted(path for path in folder.glob("*") if path.is_dir())]
    for name in names:
        for place in folders:
            whole = place / f"{name}.parquet"
            files = sorted(place.glob(f"{name}-*-of-*.parquet")) or ([whole] if whole.is_file() else [])
            if files:
                _check_complete(files)
                return files
    return []


def read(files: Sequence[Path], n: int | None) -> Rows:
    """The first ``n`` rows of some shards (all if None, or if there are fewer), read no further than needed.

    The image column is ``image`` or ``img`` and holds encoded bytes or a struct {bytes, path}; ``label``
    holds whole numbers. The class names are those of the hub's metadata, or else the numbers up to the
    greatest label of all rows, so that they do not depend on ``n``.

    Raises :class:`DataError` for a file that is truncated or unreadable, a missing or unfit column, a row
    without an image or with a label that cannot be one.
    """
    labels: list[int] = []
    encoded: list[bytes] = []
    names: tuple[str, ...] | None = None
    for file in files:
        try:
            with pq.ParquetFile(file) as table:
                if table.metadata.num_rows > _MOST_ROWS:
                    raise DataError(f"{file} claims {table.metadata.num_rows} rows", f"give at most {_MOST_ROWS}")
                column = _image_column(table.schema_arrow, file)
                names = names or _class_names(table.schema_arrow)
                for row, label in enumerate(table.read(columns=["label"]).column("label").to_pylist()):
                    if label is None or not 0 <= label < _MOST_CLASSES:
                        raise DataError(f"{file}: row {row} has label {label}", "give every row a label from 0 up")
                    labels.append(label)
                wanted = table.metadata.num_rows if n is None else n - len(encoded)
                encoded.extend(_images(table, column, min(wanted, table.metadata.num_rows), file))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file} is no readable parquet file ({error})", _AGAIN) from error
    if not labels:
        raise DataError(f"{files[0]} has no rows", _AGAIN)
    classes = names or tuple(str(label) for label in range(max(labels) + 1))
    return Rows(encoded, torch.tensor(labels[: len(encoded)]), classes, names is not None)


def _images(table: pq.ParquetFile, column: str, count: int, file: Path) -> Iterator[bytes]:
    if count <= 0:
        return
    row = 0
    for batch in table.iter_batches(batch_size=min(count, 1024), columns=[column]):
        values = batch.column(0)
        raws = values.flatten()[0] if pa.types.is_struct(values.type) else values
        for raw in raws.to_pylist():
            if row == count:
                return
            if raw is None:
                raise DataError(
                    f"{file}: row {row} has no image bytes", "store the images in the file, not their paths"
                )
            yield raw
            row += 1


def _image_column(schema: pa.Schema, file: Path) -> str:
    """The path of the column that holds the encoded bytes."""
    found = ", ".join(schema.names)
    name = next((name for name in _IMAGE_COLUMNS if name in schema.names), None)
    if name is None or "label" not in schema.names:
        lacking = "'image' or 'img'" if name is None else "'label'"
        raise DataError(f"{file} has no column {lacking}, only {found}", "rename the column that holds it")
    if not pa.types.is_integer(kind := schema.field("label").type):
        raise DataError(f"{file}: column 'label' holds {kind}", "store whole numbers from 0")
    kind = schema.field(name).type
    nested = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    content = kind.field("bytes").type if nested else kind
    if not (pa.types.is_binary(content) or pa.types.is_large_binary(content)):
        raise DataError(f"{file}: column '{name}' holds {kind}", "store encoded images as bytes or {bytes, path}")
    return f"{name}.bytes" if nested else name


def _class_names(schema: pa.Schema) -> tuple[str, ...] | None:
    """The names of the labels in the hub's metadata, where it has any."""
    try:
        names = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]["label"]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(str(name) for name in names)


def _check_complete(files: Sequence[Path]) -> None:
    """All shards must be there: with one missing, a position would name another example."""
    marks = [match for file in files if (match := _SHARD.search(file.name))]
    present = sorted(int(mark[1]) for mark in marks)
    if marks and present != list(range(int(marks[0][2]))):
        place = files[0].parent
        raise DataError(
            f"{place} must have each shard 0 to {int(marks[0][2]) - 1} once, not {present}", "fetch or remove shards"
        )
