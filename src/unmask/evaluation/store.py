"""The folder of a run: what was asked, what was found, and the adversarial examples."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from unmask.records import RUN_SCHEMA, Record

__all__ = ["Store", "pack"]


class Store:
    """Append-only records of one run. Whatever was stored survives a kill at any moment.

    Raises ValueError where the folder holds a run of another question, or a damaged one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lines = folder / "records.jsonl"

    def open(self, asked: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Begin the run that ``asked`` describes, or continue it; ``about`` is kept from the first time."""
        (self.folder / "examples").mkdir(parents=True, exist_ok=True)
        path = self.folder / "run.json"
        if path.exists():
            before = _read_json(path).get("asked")
            if before != json.loads(json.dumps(asked)):
                raise ValueError(
                    f"{self.folder} holds another run ({_difference(before, asked)}): choose another --out"
                )
        else:
            _write(path, json.dumps({"schema": RUN_SCHEMA, "asked": asked, **about}, indent=1).encode())
        self._drop_torn_line()

    def records(self) -> list[Record]:
        """All records, in the order in which their jobs finished."""
        if not self._lines.exists():
            return []
        return [Record.from_json(line) for line in self._lines.read_text().splitlines()]

    def add(self, record: Record, tensors: bytes) -> Record:
        """Store a record and its tensors; on return both are on the disk."""
        name = f"examples/{record.job.key}.safetensors"
        _write(self.folder / name, tensors)
        record = replace(record, file=name, sha256=hashlib.sha256(tensors).hexdigest())
        with self._lines.open("ab") as lines:
            start = lines.tell()
            try:
                lines.write(record.to_json().encode() + b"\n")
                lines.flush()
                os.fsync(lines.fileno())
            except OSError:
                os.truncate(self._lines, start)
                raise
        return record

    def _drop_torn_line(self) -> None:
        """A kill in the middle of a write leaves a line without its end: its job is done again."""
        if not self._lines.exists():
            return
        raw = self._lines.read_bytes()
        whole = raw.rfind(b"\n") + 1
        if whole != len(raw):
            os.truncate(self._lines, whole)


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the bytes of a safetensors file."""
    return save({name: tensor.contiguous() for name, tensor in tensors.items()})


def _write(path: Path, content: bytes) -> None:
    """Put a file there whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): remove the folder or choose another --out") from error
    return content


def _difference(before: Any, now: Mapping[str, Any]) -> str:
    if not isinstance(before, dict):
        return "of another kind"
    changed = [name for name in now if before.get(name) != now[name]] or ["other settings"]
    return ", ".join(f"{name} {before.get(name)!r}, now {now.get(name)!r}" for name in changed)
