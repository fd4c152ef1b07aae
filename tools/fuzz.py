"""Fuzzes a reader of files, led by what its code does with them: python tools/fuzz.py READER [-runs=N ...].

Needs atheris (pip install atheris), and passes all but the reader's name on to libFuzzer. A reader may raise
ValueError of one line; anything else ends the fuzzing, with the input in a file. ``tests/untrusted/test_fuzz.py``
does the same by hypothesis.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["unmask"]):
    from unmask.data import parquet
    from unmask.data.decode import decode, rows_of
    from unmask.records import Record
    from unmask.run_files import read_run
    from unmask.weights import load_weights, save_weights

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from torch import nn

HERE = Path(tempfile.mkdtemp())
MODEL = nn.Linear(3, 2)


def in_a_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """A reader of paths as one of bytes."""

    def call(raw: bytes) -> object:
        path = HERE / name
        path.write_bytes(raw)
        return read(path)

    return call


READERS: dict[str, Callable[[bytes], object]] = {
    "record": lambda raw: Record.from_json(raw.decode(errors="replace")),
    "run": in_a_file("run.json", lambda path: read_run(path.parent)),
    "weights": in_a_file("w.safetensors", lambda path: load_weights(MODEL, path)),
    "image": lambda raw: decode([raw], channels=1, size=5, called=rows_of("here")),
    "parquet": in_a_file("test.parquet", lambda path: parquet.read([path], 2)),
}


def good(reader: str) -> bytes:
    """A file to begin with, where a random one would not get far."""
    buffer = io.BytesIO()
    Image.frombytes("L", (9, 7), bytes(37 * i % 256 for i in range(63))).save(buffer, "PNG")
    if reader == "weights":
        save_weights(MODEL, HERE / "good")
        return (HERE / "good").read_bytes()
    if reader == "parquet":
        rows = pa.table({"image": [{"bytes": buffer.getvalue(), "path": None}] * 3, "label": [0, 1, 2]})
        pq.write_table(rows, HERE / "good")
        return (HERE / "good").read_bytes()
    return buffer.getvalue() if reader == "image" else b"{}"


def main() -> None:
    """The command line."""
    if len(sys.argv) < 2 or sys.argv[1] not in READERS:
        sys.exit(f"readers: {', '.join(READERS)}")
    name, *options = sys.argv[1:]
    read = READERS[name]

    def one(raw: bytes) -> None:
        try:
            read(raw)
        except ValueError as error:
            if not str(error) or "\n" in str(error):
                raise

    corpus = HERE / "corpus"
    corpus.mkdir()
    (corpus / "good").write_bytes(good(name))
    atheris.Setup([sys.argv[0], str(corpus), "-rss_limit_mb=4096", *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
