"""Small files in the forms that data comes in."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

Encode = Callable[..., bytes]
Write = Callable[..., Path]


@pytest.fixture
def encode() -> Encode:
    """Pixels (H, W) or (H, W, 3) as the bytes of an image file."""

    def to_bytes(pixels: np.ndarray, form: str = "PNG") -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(pixels, np.uint8)).save(buffer, form)
        return buffer.getvalue()

    return to_bytes


@pytest.fixture
def write() -> Write:
    """Encoded images and labels as a parquet file in the hub's form."""

    def to_parquet(
        path: Path,
        images: Sequence[bytes | None],
        labels: Sequence[int | None],
        *,
        column: str = "image",
        raw: bool = False,
        names: Sequence[str] | None = None,
    ) -> Path:
        values = list(images) if raw else [{"bytes": image, "path": None} for image in images]
        kind = pa.binary() if raw else pa.struct({"bytes": pa.binary(), "path": pa.string()})
        table = pa.table({column: pa.array(values, kind), "label": pa.array(labels, pa.int64())})
        if names is not None:
            features = {"label": {"names": list(names), "_type": "ClassLabel"}}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, row_group_size=2)
        return path

    return to_parquet


@pytest.fixture
def without_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if huggingface_hub were not installed."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
