"""An audit as jobs: four steps, the last of which is here."""

from __future__ import annotations

from dataclasses import replace

from unmask.auditing.attacks.attackers import attackers, controls
from unmask.auditing.attacks.conditions import Conditions
from unmask.auditing.black_box import by_scores
from unmask.auditing.diagnose import check_model, diagnose
from unmask.auditing.jobs import Control, attack_code, build_plan
from unmask.auditing.pilot import Pilot, pilot_views
from unmask.auditing.request import AuditRequest, step
from unmask.evaluation.models.targets import Target
from unmask.evaluation.plan import Plan, threat_spec
from unmask.models.black_box_models import BlackBoxModel
from unmask.records import ThreatSpec

__all__ = ["plan_attacks", "plan_audit"]


def plan_audit(request: AuditRequest) -> tuple[Plan, Target]:
    """Examine a model, and choose the attacks on it: the jobs, and the target that has these attacks.

    Everything is keyed by the seed, so that the same request plans the same jobs. Raises UnmaskError for a model that
    gets no image right, and for one that cannot be searched.
    """
    seconds = dict[str, float]()
    with step("check the model", seconds):
        check = check_model(request)
    if isinstance(request.target.model, BlackBoxModel):
        with step("plan the attacks", seconds):
            plan, armed = by_scores(check)
        return replace(plan, seconds=seconds), armed
    with step("probe its gradients", seconds):
        diagnosis = diagnose(check)
    with step("pilot the candidate views", seconds):
        pilot = pilot_views(diagnosis)
    with step("plan the attacks", seconds):
        plan, armed = plan_attacks(pilot)
    return replace(plan, seconds=seconds), armed


def plan_attacks(pilot: Pilot) -> tuple[Plan, Target]:
    """The attacks through the best views, and the controls that show whether those did their work."""
    request, classes = pilot.diagnosis.check.request, pilot.diagnosis.classes
    conditions = Conditions(pilot.results, classes, request.limits, request.threat.norm, request.random)
    chosen, checks = attackers(conditions, pilot.surrogates, pilot.decoders), controls(conditions)
    views = [one.view for one in conditions.useful]
    explained = {name: chosen[name] for name in (*chosen["adaptive"].after, "adaptive")}
    code = attack_code(request, explained, views, pilot.diagnosis.check.images)
    plan = build_plan(request, chosen, _controls(threat_spec(request.threat)), {**pilot.plain(), "code": code})
    return plan, replace(request.target, attacks={**chosen, **checks})


def _controls(ball: ThreatSpec) -> list[Control]:
    doubled, unbounded = replace(ball, eps=2 * ball.eps), ThreatSpec(ball.norm, 1.0, "rms")
    return [
        Control("noise", ball),
        Control("plain one step", replace(ball, eps=0.0), "eps 0"),
        Control("plain one step", ball),
        Control("one step", ball),
        Control("few queries", ball),
        Control("doubled steps", ball, after=("adaptive",)),
        Control("plain", doubled, "plain doubled eps"),
        Control("best view", doubled, "doubled eps"),
        Control("plain", unbounded, "plain unbounded"),
        Control("best view", unbounded, "unbounded"),
    ]
