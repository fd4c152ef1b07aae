"""The folder of a run: its configuration, its records, and the adversarial examples."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from unmask.errors import UnmaskError
from unmask.evaluation.verifying.fingerprint import changed
from unmask.records import RUN_SCHEMA, Job, Record
from unmask.run_files import read_records, read_run, signed

__all__ = ["Store", "pack"]


@dataclass(frozen=True)
class Store:
    """Append-only records of one run. Whatever was stored survives a kill at any moment."""

    folder: Path

    @classmethod
    @contextmanager
    def open(
        cls,
        folder: Path,
        config: Mapping[str, Any],
        about: Mapping[str, Any],
        jobs: Sequence[Job],
        fingerprints: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Iterator[Store]:
        """Start the run with the configuration ``config``, or continue it; ``about`` is that of the first start.

        Raises UnmaskError where the folder cannot be one, holds a run of another configuration, a damaged one or
        one of other ``jobs`` or of targets with other ``fingerprints``, or is in use by another process.
        """
        try:
            (folder / "examples").mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise UnmaskError(f"{folder} is no folder", "choose another --out") from error
        with _alone(folder):
            if (folder / "run.json").exists():
                run = read_run(folder)
                before = run.config
                if before != (now := json.loads(json.dumps(config))):
                    raise UnmaskError(
                        f"{folder} holds another run ({_difference(before, now)})", "choose another --out"
                    )
                _refuse_changes(folder, run.fingerprints, fingerprints)
                if [job.key for job in run.jobs] != [job.key for job in jobs]:
                    raise UnmaskError(f"{folder} was started with another plan", "choose another --out")
            else:
                run_data = {"schema": RUN_SCHEMA, "config": config, **about, "fingerprints": fingerprints or {}}
                _write(folder / "run.json", signed(run_data, tuple(jobs)))
            _drop_torn_line(folder / "records.jsonl")
            yield cls(folder)

    def records(self) -> list[Record]:
        """As of :func:`unmask.run_files.read_records`."""
        return read_records(self.folder)

    def candidates(self, record: Record) -> Tensor:
        """Its adversarial images (B, C, H, W); UnmaskError where their file is gone or damaged."""
        path = self.folder / str(record.file)
        try:
            return load(path.read_bytes())["x_adv"]
        except (OSError, SafetensorError, KeyError) as error:
            raise UnmaskError(f"{path} cannot be read", "start the run again in a new folder") from error

    def add(self, record: Record, tensors: bytes) -> Record:
        """Store a record and its tensors; on return both are on the disk."""
        name = f"examples/{record.job.key}.safetensors"
        _write(self.folder / name, tensors)
        record = replace(record, file=name, sha256=hashlib.sha256(tensors).hexdigest())
        with (self.folder / "records.jsonl").open("ab") as lines:
            lines.write(record.to_json().encode() + b"\n")
            lines.flush()
            os.fsync(lines.fileno())
        return record


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the bytes of a safetensors file, also where some share their memory.

    >>> one = torch.zeros(2)
    >>> len(pack({"a": one, "b": one}))
    136
    """
    return save({name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()})


def _refuse_changes(folder: Path, before: Mapping[str, Any], now: Mapping[str, Mapping[str, Any]] | None) -> None:
    """One folder must not hold records of two models."""
    for name, then in before.items():
        if now and name in now and (what := changed(then if isinstance(then, dict) else {}, now[name])):
            raise UnmaskError(
                f"{folder} was started before {what} changed ({name})", "undo the change, or choose another --out"
            )


def _drop_torn_line(path: Path) -> None:
    """What follows must not be glued to a line without its end."""
    raw = path.read_bytes() if path.exists() else b""
    if raw and not raw.endswith(b"\n"):
        os.truncate(path, raw.rfind(b"\n") + 1)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the system lets go of it whatever becomes of the process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UnmaskError(f"another process uses {folder}", "wait, or choose another --out") from error
        yield
    finally:
        os.close(handle)


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
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """A new name is on the disk only once its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _difference(before: Any, now: Mapping[str, Any]) -> str:
    changed = [name for name in {**now, **before} if before.get(name) != now.get(name)] or ["settings"]
    return ", ".join(f"{name} {before.get(name)!r}, now {now.get(name)!r}" for name in changed)
