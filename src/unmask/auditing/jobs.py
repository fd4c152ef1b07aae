"""An audit's attacks and controls as jobs, and what a report has to know of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from unmask.attacks.source import source
from unmask.auditing.budgets import timed
from unmask.auditing.probe_data import LOOKED, Images
from unmask.auditing.request import AuditRequest
from unmask.auditing.views.candidate_view import CandidateView
from unmask.cases import AttackSpec
from unmask.evaluation.plan import Plan, dataset_info, shards, target_info, threat_spec
from unmask.kinds import Role
from unmask.records import AttackCode, Job, ThreatSpec

__all__ = ["Control", "attack_code", "build_plan"]

_FEW = 32
"""Examples of a control."""


@dataclass(frozen=True)
class Control:
    """An attack that is made to see whether others can be trusted; reports call it ``name``."""

    attack: str
    threat: ThreatSpec
    name: str = ""
    after: tuple[str, ...] = ()  # attacks whose candidates count for the examples that they broke


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
        after = {"after": [*attacker.after]} if attacker.after else {}
        made += jobs(attack, Role.PLAIN if attacker.plain else Role.ADAPTIVE, ball, n, **after)
    for control in controls:
        options: dict[str, object] = {"control": control.name} if control.name else {}
        options |= {"after": [*control.after]} if control.after else {}
        made += jobs(control.attack, Role.CONTROL, control.threat, min(n, _FEW), **options)
    about = {
        **target_info(name, f"a model audited with the budget {request.budget}", attackers, random=request.random),
        "audit": {"budget": request.budget, **diagnosis},
        **dataset_info(data, n, ball),
    }
    return Plan(tuple(made), about)


def attack_code(
    request: AuditRequest, attackers: Mapping[str, AttackSpec], views: Sequence[CandidateView], images: Images
) -> dict[str, Any]:
    """These attacks as :class:`unmask.records.AttackCode`, in plain data.

    Args:
        request: of the audit.
        attackers: through no other views than ``views``.
        views: candidates, of which the own gradient has no name.
        images: that the model gets right, on which surrogates are fitted.
    """
    others = {one.view: one for one in views if one.view is not None}
    named = {view: f"view_{place}" if len(others) > 1 else "view" for place, view in enumerate(others, start=1)}
    seen = min(request.count, LOOKED)
    code = AttackCode(
        views={name: others[view].code for view, name in named.items()},
        attacks={name: source(one.make(request.target.model), named) for name, one in attackers.items()},
        draws=request.target.draws,
        uses_torch_random=request.target.uses_torch_random,
        seen=seen,
        misclassified=sorted({*range(seen)} - {*images.index.tolist()}),
        timed=bool({*timed(request.budget)} & {*attackers}),
        chained=any({*one.after} & {*attackers} for one in attackers.values()),
    )
    return asdict(code)
