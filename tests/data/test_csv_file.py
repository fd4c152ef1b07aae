"""CSV files of paths and labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unmask.data import DataError, load


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for value in range(4):
        Image.fromarray(np.full((3, 2, 3), 10 * value, np.uint8)).save(tmp_path / f"in/{value}.png")
    return tmp_path


def write(folder: Path, *lines: str) -> str:
    (folder / "list.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder / "list.csv")


def test_numbers_are_classes_and_rows_keep_their_order(folder: Path) -> None:
    data = load(write(folder, "path,label,other", "in/3.png,1,x", f"{folder}/in/1.png,0,y", '"in/2.png",4,z'))
    assert data.images[:, 0, 0, 0].tolist() == [30, 10, 20]
    assert data.labels.tolist() == [1, 0, 4]
    assert data.classes == tuple("01234")
    assert not data.classes_known  # the model may have more
    assert data.note == "list.csv"


def test_names_are_numbered_in_sorted_order(folder: Path) -> None:
    data = load(write(folder, "\ufefffilename,class", "in/0.png,dog", "in/1.png,ant eater", "in/2.png,dog"))
    assert data.classes == ("ant eater", "dog")
    assert data.classes_known
    assert data.labels.tolist() == [1, 0, 1]


def test_rows_sorted_by_class_are_shuffled(folder: Path) -> None:
    data = load(write(folder, "path,label", *(f"in/{i}.png,{i // 2}" for i in range(4))))
    order = np.random.RandomState(0).permutation(4)
    assert data.images[:, 0, 0, 0].tolist() == [10 * i for i in order]
    assert data.labels.tolist() == [i // 2 for i in order]
    assert data.note == "list.csv (shuffled)"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,label", "in/0.png,0", "in/9.png,1"], "line 3: in/9.png is missing: put it there, or remove its entry"),
        (["path,label", "in/0.png,0", ",1"], "line 3 has no path: add it, or remove the line"),
        (["path,label", "in/0.png"], "line 2 has no label: add it, or remove the line"),
        (["path,label", "in/0.png,0", "in/1.png,-1"], "line 3 has label '-1': give every row a whole number from 0 up"),
        (["path,label", "in/0.png,0.5"], "line 2 has label '0.5': give every row a whole number from 0 up"),
        (
            ["path,label", "in/0.png,0", "in/1.png,nan"],
            "line 3 has label 'nan': give every row a whole number from 0 up",
        ),
        (
            ["path,label", "in/0.png,0", "in/1.png,cat"],
            "line 3 has label 'cat': give every row a whole number from 0 up",
        ),
        (["path,label", f"in/0.png,{10**9}"], f"line 2 has label '{10**9}': give every row a whole number from 0 up"),
    ],
)
def test_a_wrong_row_is_named_by_its_line(folder: Path, lines: list[str], message: str) -> None:
    path = write(folder, *lines)
    with pytest.raises(DataError) as caught:
        load(path)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,kind", "in/0.png,1"], " has no column 'label', only file, kind: begin it with the line path,label"),
        (["in/0.png,1"], " has no column 'path', only in/0.png, 1: begin it with the line path,label"),
        ([], " has no column 'path', only an empty line: begin it with the line path,label"),
        (["path,label"], " has no rows: write one for each image below the line path,label"),
    ],
)
def test_a_wrong_header_is_told(folder: Path, lines: list[str], message: str) -> None:
    path = write(folder, *lines)
    with pytest.raises(DataError) as caught:
        load(path)
    assert str(caught.value) == path + message


@pytest.mark.parametrize("raw", [b"path,label\n\xff\xfe,1\n", b'path,label\n"a"b,1\n', b"path,label\n\0,1\n"])
def test_what_is_no_csv_is_one_line(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "x.csv").write_bytes(raw)
    with pytest.raises(DataError) as caught:
        load(str(tmp_path / "x.csv"))
    assert str(caught.value).startswith(f"{tmp_path}/x.csv")
    assert "\n" not in str(caught.value)


def test_a_broken_image_is_named_with_its_line(folder: Path) -> None:
    (folder / "in/2.png").write_bytes(b"no image")
    path = write(folder, "path,label", "in/0.png,0", "in/2.png,1")
    with pytest.raises(DataError) as caught:
        load(path)
    told = "cannot be decoded (not a PNG, JPEG, WebP or BMP): fetch or write the file again"
    assert str(caught.value) == f"{path}: line 3: in/2.png {told}"
