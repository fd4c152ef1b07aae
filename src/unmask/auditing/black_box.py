"""An audit of a model that answers scores alone, or labels alone: what can be done without a look inside."""

from __future__ import annotations

from dataclasses import asdict, replace

from unmask.attacks.aliases import pgd
from unmask.attacks.ensemble import Ensemble
from unmask.attacks.hop_skip_jump import HopSkipJump
from unmask.attacks.snapped import OnGrid, over_grid
from unmask.auditing.attackers import black_box, transfer
from unmask.auditing.budgets import Budget, budget_of
from unmask.auditing.grids import gridded, hidden_by_a_grid
from unmask.auditing.jobs import Control, build_plan
from unmask.auditing.probe_data import correctly_classified, lint_model
from unmask.auditing.surrogates import surrogate_models
from unmask.cases import AttackSpec
from unmask.data import Dataset
from unmask.evaluation.plan import Plan, threat_spec
from unmask.evaluation.setup import rms_radius
from unmask.evaluation.targets import Target
from unmask.gradients.spsa import SPSA, gaussian
from unmask.kinds import Access, FindingKind
from unmask.losses import margin
from unmask.randomness import make_keys
from unmask.records import ThreatSpec
from unmask.threats import Threat

__all__ = ["by_scores"]

_UNSEEN = (
    "the model answers {} only: its parts, its gradients and where it draws randomness could not be examined, "
    "and whether it hides gradients is not known; what is left is left by attacks that see answers alone, "
    "and an attacker who has the model may leave less"
)


def by_scores(
    name: str, target: Target, data: Dataset, threat: Threat, n: int, seed: int, budget: str, device: str
) -> tuple[Plan, Target]:
    """The plan, as of :func:`unmask.auditing.plan.plan_audit`, for a :class:`unmask.BlackBoxModel`."""
    x, y, index = correctly_classified(target, data, n, seed, device)
    limits, ball, found = budget_of(budget), threat_spec(threat), lint_model(target, data, seed, device)
    labels = any(finding["kind"] == FindingKind.LABELS for finding in found)
    size = rms_radius(threat, x)
    tried, worth = hidden_by_a_grid(target, threat, x, y, index, data.scale, seed, by_scores=True)
    levels = worth[0].levels if worth else 0
    asked = OnGrid(target.model, levels) if levels else target.model
    copies = surrogate_models(asked, None, x, size, make_keys(seed, index, "sources"), limits.copy)
    searches = {
        "transfer": transfer(copies, limits),
        "black-box": black_box(limits, threat.norm),
        **(_by_labels(limits, threat.norm, size, levels) if labels else _by_differences(limits, size)),
        "doubled queries": black_box(replace(limits, queries=2 * limits.queries), threat.norm),
    }
    searches = {name: _over_grid(levels, attacker) for name, attacker in searches.items()}
    chosen = {name: attacker for name, attacker in searches.items() if name != "doubled queries"}
    told = {
        "budget": budget,
        "findings": [],
        "candidate_views": [],
        "parts": [],
        "lint": [*found, *(asdict(finding) for finding in gridded(tried, worth, FindingKind.GRID))],
        "not_diagnosed_reason": _UNSEEN.format("labels" if labels else "scores"),
    }
    unbounded = ThreatSpec(ball.norm, 1.0, "rms")
    checked = [
        Control("noise", ball),
        Control("black-box", replace(ball, eps=0.0), "eps 0"),
        Control("doubled queries", ball, "doubled steps"),
        Control("black-box", replace(ball, eps=2 * ball.eps), "doubled eps"),
        Control("black-box", unbounded, "unbounded"),
    ]
    plan = build_plan(name, data, ball, n, seed, budget, chosen, checked, told, random=target.draws > 1)
    return plan, replace(target, attacks=searches)


def _by_differences(limits: Budget, size: float) -> dict[str, AttackSpec]:
    """Half the queries in steps of sixteen pairs, wide enough to see over the levels of a model that rounds."""
    steps = max(5, limits.queries // 64)
    search = pgd(steps, margin, SPSA(16, max(0.01, size / 4), gaussian), rel_step_size=0.2)
    about = f"gradients from differences of scores (NES), {steps} steps of 16 pairs"
    return {"differences": AttackSpec(about, lambda _: search, access=Access.SCORES, low_precision=False)}


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
