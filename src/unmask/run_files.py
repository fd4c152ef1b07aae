"""The one reader of run.json and of records.jsonl; both hold plain data, and may be untrusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unmask.errors import UnmaskError
from unmask.records import RUN_SCHEMA, Job, Record, digest, parsed

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
    """The run.json of a folder; UnmaskError where there is none, or it is damaged or of another version."""
    path = folder / "run.json"
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnmaskError(f"{folder} holds no run: no run.json in it; give the folder that --out named") from error
    try:
        return _run(raw)
    except UnmaskError as error:
        raise UnmaskError(f"{path} is damaged ({error})", "start the run again in a new folder") from error


def signed(about: Mapping[str, Any], jobs: tuple[Job, ...]) -> bytes:
    """The text of run.json: ``about``, the jobs with their keys, and a digest of both."""
    listed = [{"key": job.key, **asdict(job)} for job in jobs]
    return _text(json.loads(json.dumps({**about, "jobs": listed})))


def read_lines(folder: Path) -> list[str]:
    """The lines of records.jsonl; one that a kill left without its end does not count."""
    path = folder / "records.jsonl"
    return [line.decode(errors="replace") for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def read_records(folder: Path) -> list[Record]:
    """The records of these lines, in the order in which their jobs finished; UnmaskError names a damaged line."""
    records = []
    for number, line in enumerate(read_lines(folder), start=1):
        try:
            records.append(Record.from_json(line))
        except UnmaskError as error:
            where = f"{folder / 'records.jsonl'}, line {number}"
            raise UnmaskError(f"{where}: {error}; delete the line to run that job again") from error
    return records


def _text(plain: Mapping[str, Any]) -> bytes:
    return json.dumps({**plain, "digest": digest(plain)}, indent=1).encode()


def _run(raw: bytes) -> RunFile:
    run = parsed(raw)
    if run.get("schema") != RUN_SCHEMA:
        raise UnmaskError(f"version {run.get('schema')!r}, this program reads {RUN_SCHEMA!r}")
    check = run.pop("digest", None)
    if check is not None and raw != _text(run):
        raise UnmaskError("it was changed: it does not fit its own digest")
    jobs, cases = run.pop("jobs", None), run.get("cases", [])
    if not (isinstance(jobs, list) and isinstance(cases, list)):
        raise UnmaskError("its jobs or cases are no list")
    if not all(isinstance(part, dict) for part in (run.get("config"), run.get("fingerprints"), *cases, *jobs)):
        raise UnmaskError("the configuration, the fingerprints, a case or a job is no object")
    return RunFile(run["config"], tuple(cases), tuple(_job(one) for one in jobs), run["fingerprints"], run, check)


def _job(raw: Mapping[str, Any]) -> Job:
    job = Job.of({name: value for name, value in raw.items() if name != "key"})
    if job.key != raw.get("key"):
        raise UnmaskError(f"job {raw.get('key')} was changed: it hashes to {job.key}")
    return job
