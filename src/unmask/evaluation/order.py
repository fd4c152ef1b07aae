"""Which attacks come after which, and the examples that they keep from those before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from unmask.kinds import MAIN_ROLES
from unmask.records import Job, Record

__all__ = ["in_order", "kept", "with_later"]


def in_order(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """The jobs in groups: each comes in a later group than the attacks of its ``after``.

    >>> from unmask.records import ThreatSpec
    >>> first = Job("model", "digits", "pgd", ThreatSpec("linf", 0.1), 0, 0, 8)
    >>> second = Job("model", "digits", "square", ThreatSpec("linf", 0.1), 0, 0, 8, options={"after": ["pgd"]})
    >>> [[job.attack for job in group] for group in in_order([first, second])]
    [['pgd'], ['square']]
    """
    places: dict[str, int] = {}
    groups: dict[int, list[Job]] = {}
    for job in jobs:
        place = 1 + max((places.get(attack, 0) for attack in job.after), default=-1)
        groups.setdefault(place, []).append(job)
        if job.role in MAIN_ROLES:
            places[job.attack] = place
    for place in sorted(groups):
        yield groups[place]


def with_later(attacks: Iterable[str], jobs: Sequence[Job]) -> tuple[str, ...]:
    """These attacks, and those of the jobs that attack what they leave."""
    found = dict.fromkeys(attacks)
    for group in in_order(jobs):
        found |= {job.attack: None for job in group if {*job.after} & found.keys()}
    return (*found,)


def kept(job: Job, records: Iterable[Record]) -> dict[int, Record]:
    """Position -> the first record of an attack of ``after`` that breaks the example in all draws of the selection."""
    found: dict[int, Record] = {}
    for record in records:
        before = record.job
        alike = (before.target, before.data, before.threat, before.seed) == (job.target, job.data, job.threat, job.seed)
        if alike and before.attack in job.after and before.role in MAIN_ROLES:
            for example in record.examples:
                if example.selection_robust == 0 and job.start <= example.index < job.stop:
                    found.setdefault(example.index, record)
    return found
