"""Files of strangers: whatever is in them, a reader gives what it promises or one line that says what is wrong."""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from unmask.data import load, parquet
from unmask.data.decode import count_channels, decode, rows_of
from unmask.errors import UnmaskError
from unmask.kinds import Role
from unmask.records import RUN_SCHEMA, Example, Job, Record, ThreatSpec, digest
from unmask.report import summary, texts
from unmask.run_files import read_run
from unmask.weights import load_weights, save_weights

TRIED = int(os.environ.get("UNMASK_FUZZ", "60"))  # inputs of each test
fuzz = settings(
    max_examples=TRIED, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
leaf = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just("<script>"), st.just("../../x")
)
anything = st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner))


def one_line(call: Callable[[], object]) -> None:
    try:
        call()
    except UnmaskError as error:
        said = str(error)
    else:
        return
    assert said
    assert "\n" not in said


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """Bytes of a good file, cut, changed in places, or with something between."""
    bad = bytearray(good)
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(len(bad) - 1, 0)))
        kind = draw(st.sampled_from(["set", "cut", "insert", "number"]))
        if kind == "set" and bad:
            bad[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del bad[place : place + draw(st.integers(1, len(bad) + 1))]
        elif kind == "insert":
            bad[place:place] = draw(st.binary(max_size=9))
        else:
            bad[place : place + 4] = struct.pack("<i", draw(st.sampled_from([-1, 0, 2**31 - 1, 2**24])))
    return bytes(bad)


@st.composite
def edited(draw: st.DrawFn, good: Any) -> Any:
    """Plain data with other values in places."""
    data = json.loads(json.dumps(good))
    for _ in range(draw(st.integers(1, 3))):
        here = data
        while isinstance(here, dict | list) and here:
            key = draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here))))
            if not isinstance(here[key], dict | list) or not here[key] or draw(st.integers(0, 4)) == 0:
                if isinstance(here, dict) and draw(st.integers(0, 5)) == 0:
                    del here[key]
                else:
                    here[key] = draw(anything)
                break
            here = here[key]
    return data


def record(attack: str, role: str, robust: float) -> Record:
    job = Job("case:one", "digits", attack, ThreatSpec("linf", 0.1), 0, 0, 2, Role(role))
    examples = tuple(Example(i, 1, 2, robust, robust > 0.5, robust == 1, robust, 0.1) for i in range(2))
    return Record(job, examples, 1, 10, 5, 3, 0.5)


CASE: dict[str, Any] = {
    "case": "one",
    "defense": "some",
    "data": "digits",
    "obfuscation": ["shattered"],
    "threat": {"norm": "linf", "eps": 0.1, "unit": "raw"},
    "claimed": {"value": 0.5, "source": "some", "url": "https://example.org/", "note": ""},
    "published": None,
    "citation": "",
    "random": False,
    "classes": ["a", "b", "c"],
    "attacks": {"plain": "", "bpda": ""},
    "n": 2,
}
MISTAKE = {"kind": "range", "module": "", "where": "m.py:1", "evidence": {"share": 0.5}, "remedy": "none"}
AUDIT: dict[str, Any] = {
    "budget": "quick",
    "findings": [{**MISTAKE, "kind": "gradient"}],
    "lint": [MISTAKE],
    "signal": 1.0,
    "parts": [{"part": "0", "type": "Linear", "calls": 1, "fidelity": [0.5, 1.0]}],
    "candidate_views": [
        {"view": "v", "code": ["bypass('0')"], "levels": 0, "robust_accuracy": 0.5, "margin": 0.1, "error": ""}
    ],
    "draws": 1,
    "per_draw_passes": False,
    "gradients": {"plain": {"zero_gradient": 0.5, "noise_fraction": 0.1}, "adaptive": {"fooled_view_only": [0.0, 1.0]}},
}
RUN: dict[str, Any] = {
    "schema": RUN_SCHEMA,
    "config": {"n": 2},
    "jobs": [],
    "command": "reproduce",
    "suite": None,
    "n": 2,
    "seed": 0,
}
RUN |= {"started": "", "versions": {}, "hardware": {}, "revision": None, "cases": [CASE], "fingerprints": {}}
RECORDS = [record("clean", "clean", 1.0), record("plain", "plain", 1.0), record("bpda", "adaptive", 0.0)]


def folder(path: Path, run: Any = RUN, lines: bytes | None = None) -> Path:
    path.mkdir(exist_ok=True)
    (path / "run.json").write_text(json.dumps(run))
    (path / "records.jsonl").write_bytes(lines or b"".join(r.to_json().encode() + b"\n" for r in RECORDS))
    return path


def test_what_is_fuzzed_is_good_before(tmp_path: Path) -> None:
    assert json.loads(texts(folder(tmp_path / "run"))["report.json"])["rows"][0]["adaptive"]["value"] == 0.0


@fuzz
@given(data=st.data())
def test_records(tmp_path: Path, data: st.DataObject) -> None:
    one_line(
        lambda: Record.from_json(
            data.draw(st.text() | damaged(RECORDS[0].to_json().encode()).map(lambda raw: raw.decode(errors="replace")))
        )
    )
    raw = data.draw(edited(json.loads(RECORDS[2].to_json())))
    if isinstance(raw, dict):
        raw.pop("digest", None)
        try:
            job = raw["job"]
            raw["key"] = Job(**{**job, "threat": ThreatSpec(**job["threat"])}).key
        except (KeyError, TypeError):
            pass
        raw["digest"] = digest(raw)  # signed, so that only what it says can be wrong
    good = b"".join(r.to_json().encode() + b"\n" for r in RECORDS[:2])
    run = folder(tmp_path / "run", lines=good + json.dumps(raw).encode() + b"\n")
    one_line(lambda: texts(run))
    one_line(lambda: summary(run))


@fuzz
@given(data=st.data())
def test_audits(tmp_path: Path, data: st.DataObject) -> None:
    case = data.draw(edited({**CASE, "attacks": {"plain": "", "adaptive": ""}, "setup": [MISTAKE], "audit": AUDIT}))
    lines = [record("clean", "clean", 1.0), record("plain", "plain", 1.0), record("adaptive", "adaptive", 0.0)]
    stored = b"".join(r.to_json().encode() + b"\n" for r in lines)
    run = folder(tmp_path / "run", {**RUN, "cases": [case]}, stored)
    one_line(lambda: texts(run))
    one_line(lambda: summary(run))


@fuzz
@given(data=st.data())
def test_run_json(tmp_path: Path, data: st.DataObject) -> None:
    run = folder(tmp_path / "run", data.draw(edited(RUN)))
    for read in (read_run, texts, summary):
        one_line(lambda read=read: read(run))  # type: ignore[misc]
    (run / "run.json").write_bytes(data.draw(st.binary() | damaged(json.dumps(RUN).encode())))
    for read in (read_run, texts):
        one_line(lambda read=read: read(run))  # type: ignore[misc]


@fuzz
@given(data=st.data())
def test_weights(tmp_path: Path, data: st.DataObject) -> None:
    path, model = tmp_path / "w.safetensors", nn.Linear(3, 2)
    save_weights(model, path)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    one_line(lambda: load_weights(model, path))


@fuzz
@given(data=st.data())
def test_examples_of_a_run(tmp_path: Path, data: st.DataObject) -> None:
    import torch

    run = folder(tmp_path / "run")
    (run / "examples").mkdir(exist_ok=True)
    adversarial = Record(**{**vars(RECORDS[2]), "file": "examples/x.safetensors"})
    lines = [r.to_json() for r in (*RECORDS[:2], adversarial)]
    (run / "records.jsonl").write_text("".join(line + "\n" for line in lines))
    shape = data.draw(st.lists(st.integers(0, 4), max_size=5))
    kind = data.draw(st.sampled_from([torch.float32, torch.int8, torch.bool, torch.bfloat16, torch.float64]))
    count = data.draw(st.integers(0, 3))
    tensors = {"x_adv": torch.zeros(shape).to(kind), "clean": torch.zeros(2, 1, 4, 4), "index": torch.arange(count)}
    save_file(tensors, run / "examples" / "x.safetensors")
    one_line(lambda: texts(run))
    raw = (run / "examples" / "x.safetensors").read_bytes()
    (run / "examples" / "x.safetensors").write_bytes(data.draw(damaged(raw)))
    one_line(lambda: texts(run))


def encoded(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("L", (9, 7), bytes(37 * i % 256 for i in range(63))).save(buffer, form)
    return buffer.getvalue()


@fuzz
@given(data=st.data(), form=st.sampled_from(["PNG", "JPEG", "WEBP", "BMP"]))
def test_images(data: st.DataObject, form: str) -> None:
    raw = data.draw(damaged(encoded(form)) | st.binary(max_size=64))
    one_line(lambda: count_channels([raw], rows_of("here")))
    one_line(lambda: decode([raw], channels=1, size=data.draw(st.sampled_from([None, 5])), called=rows_of("here")))


@fuzz
@given(data=st.data())
def test_parquet(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "test.parquet"
    images = [{"bytes": encoded("PNG"), "path": None}] * 3
    pq.write_table(pa.table({"image": images, "label": [0, 1, 2]}), path)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    one_line(lambda: parquet.read([path], data.draw(st.sampled_from([None, 2]))))


def npz(path: Path) -> None:
    np.savez_compressed(path, images=np.full((2, 1, 3, 3), 200, np.uint8), labels=np.array([0, 1]))


def torch_file(path: Path) -> None:
    torch.save({"images": torch.rand(2, 1, 3, 3), "labels": torch.tensor([0, 1])}, path)


def safetensors(path: Path) -> None:
    save_file({"images": torch.rand(2, 1, 3, 3), "labels": torch.tensor([0, 1])}, path, {"classes": '["a", "b"]'})


def csv_file(path: Path) -> None:
    (path.parent / "a.png").write_bytes(encoded("PNG"))
    path.write_text("path,label\na.png,0\na.png,1\n")


@pytest.mark.parametrize(
    ("name", "write"), [("a.npz", npz), ("a.pt", torch_file), ("a.safetensors", safetensors), ("a.csv", csv_file)]
)
@fuzz
@given(data=st.data())
def test_own_data(tmp_path: Path, data: st.DataObject, name: str, write: Callable[[Path], None]) -> None:
    path = tmp_path / name
    write(path)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    one_line(lambda: load(str(path)))


def test_a_file_of_too_many_rows_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "test.parquet"
    pq.write_table(pa.table({"image": [b""] * 9, "label": [0] * 9}), path)
    monkeypatch.setattr(parquet, "_MOST_ROWS", 8)
    with pytest.raises(ValueError, match="claims 9 rows: give at most 8"):
        parquet.read([path], 1)


def test_a_small_file_that_claims_very_many_rows_is_not_read(tmp_path: Path) -> None:
    """A hundred kilobytes: what is the same in all rows is written once."""
    path, rows = tmp_path / "test.parquet", pa.nulls(30_000_000)
    pq.write_table(pa.table({"image": rows, "label": rows}), path, row_group_size=len(rows))
    assert path.stat().st_size < 200_000
    with pytest.raises(ValueError, match="claims 30000000 rows: give at most 20000000"):
        parquet.read([path], 1)


def test_a_record_cannot_name_a_file_elsewhere() -> None:
    bad = Record(**{**vars(RECORDS[0]), "file": "examples/../../secret.safetensors"})
    with pytest.raises(ValueError, match="is no file of the run's examples"):
        Record.from_json(bad.to_json())
