"""Comparing a run's jobs, cases and fingerprints with its configuration, and its records with its jobs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from unmask.errors import UnmaskError
from unmask.evaluation.plan import Plan, shards
from unmask.evaluation.runner import LocalExecutor, due
from unmask.evaluation.verifying.check import Check, job_name
from unmask.evaluation.verifying.fingerprint import changed
from unmask.kinds import MAIN_ROLES
from unmask.records import Job, Record
from unmask.report.differences import differences, listed
from unmask.run_files import RunFile
from unmask.statistics import StopRule

__all__ = ["due_jobs", "hold_against_plans", "hold_against_question", "hold_fingerprints", "unfinished"]

_QUESTION = ("target", "data", "n", "seed", "threat", "options")


def hold_against_plans(run: RunFile, plans: Sequence[Plan]) -> Iterator[Check]:
    """Whether the jobs and cases of run.json are those that its configuration gives today."""
    jobs = [job for plan in plans for job in plan.jobs]
    yield Check("the jobs of run.json", problem=_other_jobs(jobs, run.jobs))
    stored = {str(case.get("case")): case for case in run.cases}
    now = {str(plan.case_info["case"]): json.loads(json.dumps(plan.case_info)) for plan in plans}
    if [str(case.get("case")) for case in run.cases] != [*now]:
        problem = f"they are {', '.join(stored) or 'none'}, but the configuration gives {', '.join(now)}"
        yield Check("the cases of run.json", problem=problem)
    for name in stored.keys() & now.keys():
        wrong = [*differences(stored[name], now[name])]
        problem = listed("differs from what the configuration gives today", wrong)
        yield Check(f"the description of {name} in run.json", problem=problem or None)


def hold_against_question(run: RunFile, local: LocalExecutor) -> Iterator[Check]:
    """The same as far as possible without a diagnosis of the model: ranges, target, data, threat, seed."""
    config = run.config
    if lacking := [name for name in _QUESTION if name not in config]:
        raise UnmaskError(f"the configuration in run.json is incomplete: {', '.join(lacking)} is missing")
    n = min(int(config["n"]), len(local.dataset(str(config["data"]), int(config["n"]))))
    stored = {"case": config["target"], "data": config["data"], "threat": config["threat"], "n": n}
    for case in run.cases:
        name = str(case.get("case"))
        wrong = [key for key, value in stored.items() if case.get(key) != value]
        for attack in ("clean", *case.get("attacks", ())):
            mine = [job for job in run.jobs if job.attack == attack and job.role in MAIN_ROLES]
            whole = [(job.start, job.stop) for job in mine] == [*shards(n)]
            if not whole or not all(_answers(job, config) for job in mine):
                wrong.append(f"the jobs of {attack}")
        yield Check(
            f"the description of {name} in run.json", problem=listed("differs from the configuration", wrong) or None
        )


def _answers(job: Job, config: Mapping[str, Any]) -> bool:
    decided = ("levels", "after")  # by what the model is
    options = {name: value for name, value in job.options.items() if name not in decided}
    found = (job.target, job.data, job.seed, asdict(job.threat), options)
    return found == tuple(config[name] for name in ("target", "data", "seed", "threat", "options"))


def hold_fingerprints(run: RunFile, jobs: Sequence[Job], local: LocalExecutor) -> Iterator[Check]:
    """Whether each target and its images are those that the run began with."""
    for name, now in local.fingerprints(jobs).items():
        before = run.fingerprints.get(name)
        if not isinstance(before, dict):
            yield Check(f"the fingerprint of {name}", problem="run.json has no fingerprint of it")
            continue
        if (before.get("data"), before.get("n")) != (now["data"], now["n"]):
            problem = f"its fingerprint is of {before.get('n')} images of {before.get('data')}, not of {now['n']}"
            yield Check(f"the fingerprint of {name}", problem=problem)
            continue
        what = changed(before, now)
        yield Check(f"the fingerprint of {name}", problem=f"{what} changed since the run began" if what else None)


def due_jobs(jobs: Sequence[Job], records: Sequence[Record], rule: str | None) -> dict[str, Job]:
    """The jobs, by key, that had to be done: all but those after the block at which a stop rule was met."""
    done = {record.job.key: record for record in records}
    stop = None if rule is None else StopRule.parse(str(rule))
    return {job.key: job for some in due(jobs, done, stop) for job in some}


def unfinished(needed: Mapping[str, Job], records: Sequence[Record]) -> str | None:
    """Whether each job that is due has a record, and no more than one."""
    found = Counter(record.job.key for record in records)
    missing = [job_name(job) for key, job in needed.items() if key not in found]
    twice = [job_name(needed[key]) for key, count in found.items() if count > 1 and key in needed]
    return "; ".join(filter(None, (listed("missing", missing), listed("more than one record", twice)))) or None


def _other_jobs(planned: Sequence[Job], stored: Sequence[Job]) -> str | None:
    want, have = ({job.key: job for job in jobs} for jobs in (planned, stored))
    missing = [job_name(job) for key, job in want.items() if key not in have]
    unknown = [job_name(job) for key, job in have.items() if key not in want]
    words = [listed("missing", missing), listed("not asked for", unknown)]
    if len(have) < len(stored):
        words.append("some are there more than once")
    return "; ".join(filter(None, words)) or None
