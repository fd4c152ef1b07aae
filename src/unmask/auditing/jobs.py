"""An audit's attacks and controls as jobs, and what a report has to know of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unmask.auditing.request import AuditRequest
from unmask.cases import AttackSpec
from unmask.evaluation.plan import Plan, dataset_info, shards, target_info, threat_spec
from unmask.kinds import Role
from unmask.records import Job, ThreatSpec

__all__ = ["Control", "build_plan"]

_FEW = 32
"""Examples of a control."""


@dataclass(frozen=True)
class Control:
    """An attack that is made to see whether others can be trusted; reports call it ``name``."""

    attack: str
    threat: ThreatSpec
    name: str = ""


def build_plan(
    request: AuditRequest,
    attackers: Mapping[str, AttackSpec],
    controls: Sequence[Control],
    diagnosis: Mapping[str, Any],
) -> Plan:
    """Clean verdicts, each of ``attackers`` on all examples, then the controls on a few.

    ``diagnosis`` is what the examination found, as plain data.
    """
    name, data, ball, n = request.name, request.data, threat_spec(request.threat), request.count

    def jobs(attack: str, role: Role, at: ThreatSpec, count: int, **options: object) -> Iterator[Job]:
        options = {"budget": request.budget, **options}
        for start, stop in shards(count):
            yield Job(name, data.name, attack, at, request.seed, start, stop, role, options)

    made = [*jobs("clean", Role.CLEAN, ball, n)]
    for attack, attacker in attackers.items():
        made += jobs(attack, Role.PLAIN if attacker.plain else Role.ADAPTIVE, ball, n)
    for control in controls:
        options = {"control": control.name} if control.name else {}
        made += jobs(control.attack, Role.CONTROL, control.threat, min(n, _FEW), **options)
    about = {
        **target_info(name, "a model, examined and attacked by what was found", attackers, random=request.random),
        "audit": {"budget": request.budget, **diagnosis},
        **dataset_info(data, n, ball),
    }
    return Plan(tuple(made), about)
