from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unmask.data import DataError, parquet

Encode = Callable[..., bytes]
Write = Callable[..., Path]


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("column", ["image", "img"])
def test_rows_come_back_in_order(tmp_path: Path, write: Write, column: str, raw: bool) -> None:
    images = [b"a", b"b", b"c", b"d", b"e"]
    file = write(tmp_path / "x.parquet", images, [0, 1, 2, 1, 0], column=column, raw=raw, names=["p", "q", "r"])
    rows = parquet.read([file], None)
    assert rows.encoded == images
    assert rows.labels.tolist() == [0, 1, 2, 1, 0]
    assert rows.classes == ("p", "q", "r")


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9])
def test_the_first_n_are_the_head_of_all_across_shards(tmp_path: Path, write: Write, n: int) -> None:
    one = write(tmp_path / "0.parquet", [b"a", b"b", b"c"], [0, 1, 2])
    two = write(tmp_path / "1.parquet", [b"d", b"e"], [3, 7])
    rows = parquet.read([one, two], n)
    assert rows.encoded == [b"a", b"b", b"c", b"d", b"e"][:n]
    assert rows.labels.tolist() == [0, 1, 2, 3, 7][:n]
    assert rows.classes == tuple("01234567")  # of all rows, whatever n is


def test_shards_are_found_in_order_and_in_the_nearest_folder(tmp_path: Path, write: Write) -> None:
    names = [f"test-{i:05}-of-00011.parquet" for i in range(11)]
    for name in reversed(names):
        write(tmp_path / "plain_text" / name, [b"a"], [0])
    write(tmp_path / "plain_text" / "train-00000-of-00001.parquet", [b"a"], [0])
    assert parquet.find(tmp_path, "test") == [tmp_path / "plain_text" / name for name in names]
    nearest = write(tmp_path / "test.parquet", [b"a"], [0])
    assert parquet.find(tmp_path, "test") == [nearest]


def test_validation_stands_in_for_test_only(tmp_path: Path, write: Write) -> None:
    file = write(tmp_path / "validation-00000-of-00001.parquet", [b"a"], [0])
    assert parquet.find(tmp_path, "test") == [file]
    assert parquet.find(tmp_path, "train") == []
    test = write(tmp_path / "data" / "test-00000-of-00001.parquet", [b"a"], [0])
    assert parquet.find(tmp_path, "test") == [test]
    assert parquet.find(tmp_path / "absent", "test") == []


def test_a_missing_shard_is_not_passed_over(tmp_path: Path, write: Write) -> None:
    for i in (0, 2):
        write(tmp_path / f"test-{i:05}-of-00003.parquet", [b"a"], [0])
    with pytest.raises(DataError) as caught:
        parquet.find(tmp_path, "test")
    assert str(caught.value) == f"{tmp_path} must have each shard 0 to 2 once, not [0, 2]: fetch or remove shards"


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_truncated_file_is_no_parquet(tmp_path: Path, write: Write, keep: int) -> None:
    file = write(tmp_path / "x.parquet", [b"a" * 999] * 4, [0, 1, 2, 3])
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError) as caught:
        parquet.read([file], None)
    assert str(caught.value).startswith(f"{file} is no readable parquet file (")
    assert str(caught.value).endswith("): fetch or write the file again")
    assert "\n" not in str(caught.value)


def test_broken_pages_are_reported(tmp_path: Path, write: Write) -> None:
    noise = np.random.RandomState(0).bytes(4000)
    file = write(tmp_path / "x.parquet", [noise], [0])
    content = file.read_bytes()
    file.write_bytes(content[:4] + b"\xff" * 1000 + content[1004:])
    with pytest.raises(DataError, match=r"is no readable parquet file .*: fetch or write the file again$"):
        parquet.read([file], None)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"pixels": [b"a"], "label": [0]}, "has no column 'image' or 'img', only pixels, label: rename the column"),
        ({"image": [b"a"], "fine_label": [0]}, "has no column 'label', only image, fine_label: rename the column"),
        ({"image": [b"a"], "label": ["cat"]}, "column 'label' holds string: store whole numbers from 0"),
        ({"image": [7], "label": [0]}, "column 'image' holds int64: store encoded images as bytes or {bytes, path}"),
        ({"image": [{"path": "a.png"}], "label": [0]}, "column 'image' holds struct<path: string>: store encoded"),
        ({"image": [{"bytes": None, "path": "a.png"}], "label": [0]}, "column 'image' holds struct<bytes: null"),
    ],
)
def test_unfit_columns_are_named(tmp_path: Path, columns: dict[str, list[object]], message: str) -> None:
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table(columns), file)
    with pytest.raises(DataError) as caught:
        parquet.read([file], None)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raw", [True, False])
def test_a_row_without_bytes_is_named(tmp_path: Path, write: Write, raw: bool) -> None:
    file = write(tmp_path / "x.parquet", [b"a", b"b", None], [0, 0, 0], raw=raw)
    wanted = "row 2 has no image bytes: store the images in the file, not their paths$"
    with pytest.raises(DataError, match=wanted):
        parquet.read([file], None)
    assert parquet.read([file], 2).encoded == [b"a", b"b"]  # a later fault is no concern of the first rows


@pytest.mark.parametrize("label", [None, -1, 10**12])
def test_a_label_that_cannot_be_one_is_named(tmp_path: Path, write: Write, label: int | None) -> None:
    file = write(tmp_path / "x.parquet", [b"a", b"b"], [0, label])
    with pytest.raises(DataError, match=f"row 1 has label {label}: give every row a label from 0 up$"):
        parquet.read([file], None)


def test_a_file_without_rows_is_refused(tmp_path: Path, write: Write) -> None:
    file = write(tmp_path / "x.parquet", [], [])
    with pytest.raises(DataError, match=r"has no rows: fetch or write the file again$"):
        parquet.read([file], None)
