"""A CSV file of paths and labels."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import torch

from unmask.data.dataset import DataError, Dataset
from unmask.data.forms.encoded import Encoded, decoded, read_image
from unmask.data.forms.form import Form, Wanted
from unmask.errors import first_line

__all__ = ["csv_file"]

_PATHS = ("path", "file", "filename", "image")
_LABELS = ("label", "class")
_NUMBER = re.compile(r"[0-9]{1,9}")
_MOST_CLASSES = 1_000_000  # a greater label is a mistake, and would ask for as many class names


def _load(wanted: Wanted) -> Dataset:
    """Labels are class numbers, or else names, whose classes are numbered in the order of the sorted names.

    Paths are relative to the file's folder. Rows are counted by their line, the header's being 1.
    """
    file = wanted.path
    paths, texts, lines = _read(file)
    labels, classes = _numbered(file, texts, lines)

    def called(row: int) -> str:
        return f"{file}: line {lines[row]}: {paths[row]}"

    rows = Encoded(
        lambda row: read_image(file.parent / Path(paths[row]).expanduser(), called(row)),
        called,
        torch.tensor(labels),
        classes,
        file.name,
        found=classes is not None,
    )
    return decoded(rows, wanted)


def _read(file: Path) -> tuple[list[str], list[str], list[int]]:
    """The paths and the labels of the rows, and the lines on which these end."""
    paths, texts, lines = list[str](), list[str](), list[int]()
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            header = reader.fieldnames or ()
            path, label = (_column(file, header, known) for known in (_PATHS, _LABELS))
            for row in reader:
                if not row[path] or not (row[label] or "").strip():
                    lacking = label if row[path] else path
                    raise DataError(f"{file}: line {reader.line_num} has no {lacking}", "add it, or remove the line")
                paths.append(row[path])
                texts.append(row[label].strip())
                lines.append(reader.line_num)
    except (csv.Error, UnicodeDecodeError) as error:
        why = first_line(error, type(error).__name__)
        raise DataError(f"{file} is no readable CSV file ({why})", "write it again in UTF-8") from error
    if not paths:
        raise DataError(f"{file} has no rows", "write one for each image below the line path,label")
    return paths, texts, lines


def _column(file: Path, header: object, known: tuple[str, ...]) -> str:
    names = [*header] if isinstance(header, list) else []
    found = next((name for name in known if name in names), None)
    if found is None:
        raise DataError(
            f"{file} has no column '{known[0]}', only {', '.join(names) or 'an empty line'}: begin it with the line "
            "path,label"
        )
    return found


def _numbered(file: Path, texts: list[str], lines: list[int]) -> tuple[list[int], tuple[str, ...] | None]:
    """Class numbers, and the names of the classes where the labels are names."""
    if not any(_is_number(text) for text in texts):
        names = sorted(set(texts))
        number = {name: position for position, name in enumerate(names)}
        return [number[text] for text in texts], tuple(names)
    for text, line in zip(texts, lines, strict=True):
        if not _NUMBER.fullmatch(text) or int(text) >= _MOST_CLASSES:
            raise DataError(f"{file}: line {line} has label {text[:40]!r}", "give every row a whole number from 0 up")
    return [int(text) for text in texts], None


def _is_number(text: str) -> bool:
    """Also -1, 0.5 and NaN, which are no labels, but no names either."""
    try:
        float(text)
    except ValueError:
        return False
    return True


csv_file = Form(
    "FILE.csv",
    "paths of images, relative to the file, and labels, numbers or names, below the line path,label",
    "photos.csv",
    lambda wanted: wanted.path.suffix == ".csv",
    _load,
)
