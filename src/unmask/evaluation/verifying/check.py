"""What a check of a run says."""

from __future__ import annotations

from dataclasses import dataclass

from unmask.kinds import MAIN_ROLES
from unmask.records import Job

__all__ = ["Check", "job_name"]


@dataclass(frozen=True)
class Check:
    """The result of one check; ``problem`` is None where all agrees."""

    record: str  # what was looked at
    examples: int = 0  # stored ones that were judged again
    problem: str | None = None
    attacked: int = 0  # examples that were attacked again


def job_name(job: Job) -> str:
    """What to call a job.

    >>> from unmask.kinds import Role
    >>> from unmask.records import ThreatSpec
    >>> job_name(Job("case:a", "mnist", "pgd", ThreatSpec("linf", 0.1), 0, 0, 64, Role.CONTROL, {"control": "eps 0"}))
    'case:a pgd (control, eps 0) 0-64 at linf 0.1 raw'
    """
    role = "" if job.role in MAIN_ROLES else f" ({_role(job)})"
    threat = f"{job.threat.norm} {job.threat.eps:g} {job.threat.unit}"
    return f"{job.target} {job.attack}{role} {job.start}-{job.stop} at {threat}"


def _role(job: Job) -> str:
    words = [job.role, *(str(job.options[name]) for name in ("control", "base", "strength") if name in job.options)]
    return ", ".join(words)
