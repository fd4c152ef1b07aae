"""What is to be done: a case's jobs, in the order that is worth watching."""

from __future__ import annotations

import math
from collections.abc import Iterator

from unmask.cases import Case
from unmask.records import Job, ThreatSpec

__all__ = ["BLOCK", "blocks", "describe", "plan_case"]

BLOCK = 128
"""Examples of a job: what an interruption can lose, and what a worker does at a time."""

SWEEP = (0.25, 0.5, 0.75, 1.5)
"""Sizes, as shares of the threat's, at which the curves of a report are measured."""

SWEEP_EXAMPLES = 64


def plan_case(case: Case, n: int, seed: int, *, sweep: bool = True) -> list[Job]:
    """The jobs of a case on the first ``n`` test examples (fewer where the case is too slow).

    First the clean accuracy, then the plain and the adaptive attacks, then the controls (random noise
    in the ball; the adaptive attack without a bound) and the curves, both on fewer examples.
    """
    n = n if case.most is None else min(n, case.most)
    spec = ThreatSpec(case.threat.norm, case.threat.eps, case.threat.unit)

    def jobs(attack: str, role: str, threat: ThreatSpec, count: int, **options: object) -> Iterator[Job]:
        for start, stop in blocks(count):
            yield Job(f"case:{case.name}", case.data, attack, threat, seed, start, stop, role, options)

    planned = list(jobs("clean", "clean", spec, n))
    for name, attacker in case.attackers.items():
        planned += jobs(name, "plain" if attacker.plain else "adaptive", spec, n)
    if not sweep:
        return planned
    few = min(n, SWEEP_EXAMPLES)
    plain = next(name for name, attacker in case.attackers.items() if attacker.plain)
    adaptive = list(case.attackers)[-1]
    planned += jobs("noise", "control", spec, few)
    planned += jobs(adaptive, "control", _unbounded(spec), few, control="unbounded")
    for share in SWEEP:
        threat = ThreatSpec(spec.norm, spec.eps * share, spec.unit)
        planned += jobs(plain, "sweep", threat, few, base="plain")
        planned += jobs(adaptive, "sweep", threat, few, base="adaptive")
    return planned


def blocks(n: int) -> Iterator[tuple[int, int]]:
    """The ranges into which the first ``n`` examples are cut.

    >>> list(blocks(200))
    [(0, 128), (128, 200)]
    """
    for start in range(0, n, BLOCK):
        yield start, min(start + BLOCK, n)


def _unbounded(spec: ThreatSpec) -> ThreatSpec:
    """A ball that holds the whole box, whatever the unit: relative to nothing smaller than a pixel."""
    return ThreatSpec("linf", 1.0, "raw") if spec.norm == "linf" else ThreatSpec(spec.norm, math.inf, "raw")


def describe(case: Case, of_data: str) -> dict[str, object]:
    """What a report has to know of a case, as plain data; ``of_data`` is the note of its data set."""
    return {
        "case": case.name,
        "defense": case.defense,
        "data": case.data,
        "kind": case.kind,
        "threat": {"norm": case.threat.norm, "eps": case.threat.eps, "unit": case.threat.unit},
        "claimed": case.claimed,
        "published": case.published,
        "citation": case.citation,
        "random": case.draws > 1,
        "note": "; ".join(filter(None, (of_data, case.note))),
        "attacks": {name: attacker.about for name, attacker in case.attackers.items()},
    }
