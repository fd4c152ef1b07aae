"""The one reader of run.json and of records.jsonl; both hold plain data, and may be untrusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unmask.records import RUN_SCHEMA, Job, Record, digest

__all__ = ["RunFile", "read_lines", "read_records", "read_run", "signed"]


@dataclass(frozen=True)
class RunFile:
    """What run.json holds.

    Args:
        config: the configuration of the run: command, target or cases, data, n, seed, options.
        cases: for each target, what a report needs to know about it.
        jobs: all planned jobs, in the order in which they run.
        fingerprints: of each target, by its name.
        description: everything in the file except the jobs and the digest.
        digest: the digest of the rest of the file; None if it has none.
    """

    config: Mapping[str, Any]
    cases: tuple[Mapping[str, Any], ...]
    jobs: tuple[Job, ...]
    fingerprints: Mapping[str, Any]
    description: Mapping[str, Any]
    digest: str | None


def read_run(folder: Path) -> RunFile:
    """The run.json of a folder; ValueError where there is none, or it is damaged or of another version."""
    path = folder / "run.json"
    try:
        raw = path.read_bytes()
        run = json.loads(raw)
        if run["schema"] != RUN_SCHEMA:
            raise ValueError(f"version {run['schema']!r}, this program reads {RUN_SCHEMA!r}")
        check = run.pop("digest", None)
        if check is not None and raw != _text(run):
            raise ValueError("it was changed: it does not fit its own digest")
        jobs = tuple(_job(one) for one in run.pop("jobs"))
        cases = tuple(run.get("cases", ()))
        parts = (run["config"], run["fingerprints"], *cases)
        if not all(isinstance(part, dict) for part in parts):
            raise TypeError("the configuration, a fingerprint or a case is no object")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"{folder} holds no run: no run.json in it; give the folder that --out named") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error!r}): start the run again in a new folder") from error
    return RunFile(run["config"], cases, jobs, run["fingerprints"], run, check)


def signed(about: Mapping[str, Any], jobs: tuple[Job, ...]) -> bytes:
    """The text of run.json: ``about``, the jobs with their keys, and a digest of both."""
    listed = [{"key": job.key, **asdict(job)} for job in jobs]
    return _text(json.loads(json.dumps({**about, "jobs": listed})))


def read_lines(folder: Path) -> list[str]:
    """The lines of records.jsonl; one that a kill left without its end does not count."""
    path = folder / "records.jsonl"
    return [line.decode(errors="replace") for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def read_records(folder: Path) -> list[Record]:
    """The records of these lines, in the order in which their jobs finished; ValueError names a damaged line."""
    records = []
    for number, line in enumerate(read_lines(folder), start=1):
        try:
            records.append(Record.from_json(line))
        except ValueError as error:
            where = f"{folder / 'records.jsonl'}, line {number}"
            raise ValueError(f"{where}: {error}; delete the line to run that job again") from error
    return records


def _text(plain: Mapping[str, Any]) -> bytes:
    return json.dumps({**plain, "digest": digest(plain)}, indent=1).encode()


def _job(raw: Mapping[str, Any]) -> Job:
    job = Job.of({name: value for name, value in raw.items() if name != "key"})
    if job.key != raw["key"]:
        raise ValueError(f"job {raw['key']} was changed: it hashes to {job.key}")
    return job
