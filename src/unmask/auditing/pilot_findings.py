"""Findings of the pilot, the remedy that it recommends, and the state of the gradients that the attacks have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unmask.auditing.diagnose import Diagnosis, ModelCheck
from unmask.auditing.probe_data import PROBED
from unmask.auditing.views.candidate_view import OWN_GRADIENT
from unmask.auditing.views.pilot_result import PilotResult, of_own_gradient
from unmask.diagnosis.behaviour.memory import aged
from unmask.diagnosis.findings import averaged, draws
from unmask.diagnosis.saturation import saturation
from unmask.kinds import FindingKind
from unmask.models.model_wrappers import frozen_copy
from unmask.randomness import make_keys
from unmask.records import Finding

__all__ = ["aged_model", "gradients", "misleading", "remedy"]

_MISLED = 0.2
"""By how much less a view must leave than a gradient without a fault, which then does not lead to what is wrong."""


def misleading(found: Diagnosis, best: PilotResult, results: Sequence[PilotResult]) -> list[Finding]:
    """That the gradient is correct everywhere and leads attacks nowhere, where another view leaves much less."""
    own = of_own_gradient(results)
    kinds = (FindingKind.SHATTERED, FindingKind.VANISHING)
    if own is None or best.levels or any(one.kind in kinds for one in found.findings):
        return []
    if own.robust_accuracy - best.robust_accuracy < _MISLED:
        return []
    evidence = {
        "gradient": "misleading",
        "own": round(own.robust_accuracy, 3),
        "view": best.name,
        "left": round(best.robust_accuracy, 3),
    }
    return [Finding(FindingKind.SHATTERED, "", f"what {best.name} leaves out", evidence, "")]


def remedy(best: PilotResult, results: Sequence[PilotResult]) -> str:
    """The view that the attacks take, with what its pilot left, which recommends it; or that none is to recommend."""
    own = of_own_gradient(results)
    if own is not None and best.robust_accuracy >= own.robust_accuracy:
        left = f"{100 * own.robust_accuracy:.3g} %"
        return f"none of the views that were tried leaves less than the model's own gradient ({left})"
    beside = "" if own is None else f", the own gradient {100 * own.robust_accuracy:.3g} %"
    return f"{best.name} (leaves {100 * best.robust_accuracy:.3g} %{beside})"


def aged_model(check: ModelCheck) -> list[Finding]:
    """Whether the examination has changed the model's answers; the model is again as it was loaded."""
    some = check.images.x[:PROBED]
    found = aged(check.model, check.loaded, some, make_keys(check.request.seed, range(len(some)), "aged"))
    return [] if found is None else [found]


def gradients(found: Diagnosis, results: Sequence[PilotResult], best: PilotResult) -> dict[str, dict[str, Any]]:
    """Of the plain and of the adaptive attack: how many images have no gradient, and how much of it is noise."""
    check, few = found.check, found.images
    keys = few.keys(check.request.seed, "available")
    own = next((one for one in results if one.view == OWN_GRADIENT and not one.levels), best)
    twin = frozen_copy(check.model, check.images.x)
    view = twin if best.view.view is None else best.view.view(twin)
    return {
        "plain": {"zero_gradient": saturation(twin, few.x, few.y, keys).flat, "noise_fraction": 1 - own.signal},
        "adaptive": {
            "zero_gradient": saturation(view, few.x, few.y, keys).zero_gradient,
            "noise_fraction": 1 - averaged(best.signal, draws(best.signal)),
            "fooled_view_only": best.fooled_view_only,
        },
    }
