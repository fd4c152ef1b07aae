"""Verifying a run: its configuration, its files byte by byte, its model, every stored example, every figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from unmask.errors import UnmaskError
from unmask.evaluation.plan import Plan
from unmask.evaluation.runner import LocalExecutor
from unmask.evaluation.verifying.attack_again import Sample, attack_again
from unmask.evaluation.verifying.check import Check, job_name
from unmask.evaluation.verifying.planned_jobs import (
    due_jobs,
    hold_against_plans,
    hold_against_question,
    hold_fingerprints,
    unfinished,
)
from unmask.evaluation.verifying.recheck import recheck
from unmask.records import Job, Record
from unmask.report import texts
from unmask.run_files import RunFile, read_lines, read_run

__all__ = ["verify"]


def verify(
    folder: Path, local: LocalExecutor, plans: Sequence[Plan] | None, sample: Sample | None = None
) -> Iterator[Check]:
    """Hold every file of a run against what it must be, and re-judge each record from its stored examples.

    What fails: a run.json whose jobs or cases are not those of ``plans``, that has no digest, or that names another
    model or other images than those of today; a record of no planned job, a second one of a job, a job without one
    (those after the block at which a stop rule was met are not due); a damaged line; whatever
    :func:`unmask.evaluation.verifying.recheck.recheck` finds; a report that is not what the records give, to the byte;
    an example of ``sample`` that the run says is robust and the same attack breaks.

    Args:
        plans: what the run's configuration gives today; None to trust the diagnosis in run.json.
        sample: examples to attack again, for which ``local`` must know the attacks; None for none.

    Raises UnmaskError where run.json is damaged, there are no records, and where the model or the data of the
    run cannot be had.
    """
    run = read_run(folder)
    lines = read_lines(folder)
    if not lines:
        raise UnmaskError(f"{folder} holds no records: there is nothing to verify")
    jobs = run.jobs if plans is None else [job for plan in plans for job in plan.jobs]
    yield from _question(run, local, plans)
    yield from hold_fingerprints(run, jobs, local)
    records, broken = _records(lines)
    yield from broken
    needed = due_jobs(jobs, records, run.config.get("stop_when"))
    for record in records:
        problem = _unplanned(record, jobs, needed) or recheck(folder, record, local)
        yield Check(f"{record.job.key} ({job_name(record.job)})", len(record.examples), problem)
    if problem := unfinished(needed, records):
        yield Check("the records", problem=problem)
    if not (folder / "records.jsonl").read_bytes().endswith(b"\n"):
        yield Check("the end of records.jsonl", problem="its last line is torn: run the command of the run again")
    if not broken:
        yield from _reports(folder)
    if sample is not None:
        yield from attack_again([record for record in records if record.job.key in needed], local, sample)


def _question(run: RunFile, local: LocalExecutor, plans: Sequence[Plan] | None) -> Iterator[Check]:
    """The parts of run.json against one another, and against today's plans."""
    yield Check("run.json", problem=None if run.digest else "it has no digest")
    other = [name for name in ("command", "n", "seed") if run.description.get(name) != run.config.get(name)]
    if other:
        yield Check("run.json", problem=f"its {' and '.join(other)} are not those of the configuration")
    yield from hold_against_question(run, local) if plans is None else hold_against_plans(run, plans)


def _records(lines: Sequence[str]) -> tuple[list[Record], list[Check]]:
    """Those of whole lines, and a check that failed for each of the others."""
    records: list[Record] = []
    broken: list[Check] = []
    for number, line in enumerate(lines, start=1):
        try:
            record = Record.from_json(line)
            if record.to_json() != line:
                raise UnmaskError("it has no digest, or it was written again")
        except UnmaskError as error:
            broken.append(Check(f"line {number} of records.jsonl", problem=str(error)))
        else:
            records.append(record)
    return records, broken


def _unplanned(record: Record, jobs: Sequence[Job], needed: Mapping[str, Job]) -> str | None:
    """Such a record is not judged: what it names need not be there, and may be anything."""
    if record.job.key in needed:
        return None
    if any(job.key == record.job.key for job in jobs):
        return "its job comes after the block at which the stop rule was met"
    return "it belongs to no planned job"


def _reports(folder: Path) -> Iterator[Check]:
    """Those that are there say what the records say."""
    names = [name for name in ("report.json", "report.md", "report.html") if (folder / name).exists()]
    if not names:
        return
    try:
        again = texts(folder)
    except UnmaskError as error:
        yield Check("the report", problem=str(error))
        return
    for name in names:
        same = (folder / name).read_bytes() == again[name].encode()
        yield Check(name, problem=None if same else "it differs from the records: `unmask report` writes it again")
