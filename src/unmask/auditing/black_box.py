"""An audit of a model that answers scores alone, or labels alone: what can be done without a look inside."""

from __future__ import annotations

from dataclasses import asdict, replace

from unmask.attacks.aliases import pgd
from unmask.attacks.black_box.hop_skip_jump import HopSkipJump
from unmask.attacks.combined.ensemble import Ensemble
from unmask.attacks.combined.snapped import OnGrid, over_grid
from unmask.auditing.attacks.attackers import black_box, transfer
from unmask.auditing.budgets import Budget
from unmask.auditing.diagnose import ModelCheck
from unmask.auditing.grids import gridded, hidden_by_a_grid
from unmask.auditing.jobs import Control, attack_code, build_plan
from unmask.auditing.views.surrogates import surrogate_models
from unmask.cases import AttackSpec
from unmask.evaluation.models.targets import Target
from unmask.evaluation.plan import Plan, threat_spec
from unmask.gradients.spsa import SPSA, gaussian
from unmask.kinds import Access, FindingKind
from unmask.losses import margin
from unmask.records import ThreatSpec

__all__ = ["by_scores"]

_UNSEEN = (
    "the model answers {} only: its parts, its gradients and where it draws randomness could not be examined, so that "
    "nothing is known of gradient masking; an attacker who has the model may reach a lower robust accuracy"
)


def by_scores(check: ModelCheck) -> tuple[Plan, Target]:
    """The plan, as of :func:`unmask.auditing.plan.plan_audit`, for a :class:`unmask.BlackBoxModel`."""
    request, images, size = check.request, check.images, check.radius
    target, limits, norm = request.target, request.limits, request.threat.norm
    labels = any(finding.kind == FindingKind.LABELS for finding in check.lint)
    results, worth = hidden_by_a_grid(target, request.threat, images, request.data.scale, request.seed, by_scores=True)
    levels = worth[0].levels if worth else 0
    asked = OnGrid(target.model, levels) if levels else target.model
    keys = images.keys(request.seed, "sources")
    copies = surrogate_models(asked, None, images.x, size, keys, limits.copy)
    chosen = {
        "transfer": transfer(copies, limits, Access.LABELS if labels else Access.SCORES),
        "black-box": black_box(limits, norm),
        **(_by_labels(limits, norm, size, levels) if labels else _by_nes(limits, size)),
    }
    checks = {"doubled queries": black_box(replace(limits, queries=2 * limits.queries), norm)}
    chosen, checks = (
        {name: _over_grid(levels, attacker) for name, attacker in some.items()} for some in (chosen, checks)
    )
    diagnosis = {
        "findings": [],
        "candidate_views": [],
        "parts": [],
        "lint": [asdict(finding) for finding in (*check.lint, *gridded(results, worth, FindingKind.GRID))],
        "not_diagnosed_reason": _UNSEEN.format("labels" if labels else "scores"),
        "code": attack_code(request, {name: chosen[name] for name in chosen if name != "transfer"}, [], images),
    }
    plan = build_plan(request, chosen, _controls(threat_spec(request.threat)), diagnosis)
    return plan, replace(target, attacks={**chosen, **checks})


def _controls(ball: ThreatSpec) -> list[Control]:
    return [
        Control("noise", ball),
        Control("black-box", replace(ball, eps=0.0), "eps 0"),
        Control("doubled queries", ball, "doubled steps", after=("black-box",)),
        Control("black-box", replace(ball, eps=2 * ball.eps), "doubled eps"),
        Control("black-box", ThreatSpec(ball.norm, 1.0, "rms"), "unbounded"),
    ]


def _by_nes(limits: Budget, size: float) -> dict[str, AttackSpec]:
    """Half the queries in steps of sixteen pairs, wide enough to see over the levels of a model that rounds."""
    steps = max(5, limits.queries // 64)
    search = pgd(steps, margin, SPSA(16, max(0.01, size / 4), gaussian), rel_step_size=0.2)
    about = f"gradients from differences of scores (NES), {steps} steps of 16 pairs"
    return {"nes": AttackSpec(about, lambda _: search, access=Access.SCORES, low_precision=False)}


def _by_labels(limits: Budget, norm: str, size: float, levels: int) -> dict[str, AttackSpec]:
    """On a grid with probes that reach the next level."""
    if norm not in ("linf", "l2"):
        return {}
    probes = max(HopSkipJump.size, 1 / (levels * size)) if levels else HopSkipJump.size
    search = Ensemble((HopSkipJump(2 * limits.queries, size=probes),))
    about = f"HopSkipJump with {2 * limits.queries} queries: labels only"
    return {"labels": AttackSpec(about, lambda _: search, access=Access.LABELS, low_precision=False)}


def _over_grid(levels: int, attacker: AttackSpec) -> AttackSpec:
    if not levels:
        return attacker
    about = f"{attacker.description}, over the grid of k/{levels}"
    return replace(attacker, description=about, make=lambda model: over_grid(levels, attacker.make(model)))
