"""A finding in words: what is wrong with a gradient, by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unmask.report.formatting import percent

__all__ = ["WinningView", "effect", "source", "winning_view"]


@dataclass(frozen=True)
class WinningView:
    """The candidate view that the attacks take, with the robust accuracy under its pilot and under the plain one."""

    view: str
    robust_accuracy: float
    own: float | None  # under the pilot through the model's own gradient, where that is another view


def effect(finding: Mapping[str, Any]) -> str:
    """What a finding measured, as a sentence; empty for nothing measured.

    >>> effect({"evidence": {"operation": "round", "gradient": "wrong", "fidelity": {"0.15": 0.0}}})
    "The gradient of round is wrong: it predicts 0 % of the output's change (100 % if it were correct)."
    """
    known = finding["evidence"]
    operation = f"of {known['operation']}" if known.get("operation") else "of the model"
    match known.get("gradient"):
        case "missing":
            return f"The gradient {operation} is missing."
        case "wrong":
            best = max(known.get("fidelity", {}).values(), default=0.0)
            return (
                f"The gradient {operation} is wrong: it predicts {100 * best:.0f} % of the output's change "
                "(100 % if it were correct)."
            )
        case "misleading":
            return (
                "The gradient of the model predicts its changes nearby, but does not lead to images that are "
                f"misclassified: a short search by it leaves {percent(known['own'])}, through {known['view']} "
                f"{percent(known['left'])}."
            )
        case "not finite":
            return f"The gradient {operation} is NaN or infinite on {percent(known['images'])} of the images."
    if "signal" in known:
        return (
            f"Random numbers {operation} change the gradient: single draws have {percent(known['signal'])} "
            f"of its energy in common, and {percent(known['flips'])} of the answers change between draws.{_cost(known)}"
        )
    if "saturated_logits" in known:
        return (
            f"On {percent(known['saturated_logits'])} of the images most logits are saturated, so they hardly change."
        )
    if "flat" in known:
        cause = f", because {known['operation']} is" if known.get("operation") else ""
        return f"The loss is flat on {percent(known['flat'])} of the images{cause and cause + ' saturated'}."
    return "; ".join(f"{name}: {value}" for name, value in known.items() if name != "source")


def _cost(known: Mapping[str, Any]) -> str:
    if "cost" not in known:
        return ""
    points, p = known["cost"]["points"], known["cost"]["p"]
    return f" It costs the plain attack {points} percentage points, which chance may explain (p = {p})."


def source(finding: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """The lines of code around a finding: number, text, and whether it is the very line; empty where none are kept.

    Blank lines at both ends are left out.
    """
    lines: Mapping[str, str] = finding["evidence"].get("source", {})
    middle = finding["where"].split(" ")[0].rpartition(":")[2]
    filled = [place for place, text in enumerate(lines.values()) if str(text).strip()]
    kept = slice(filled[0], filled[-1] + 1) if filled else slice(0)
    return [(str(number), str(text), number == middle) for number, text in [*lines.items()][kept]]


def winning_view(candidate_views: Sequence[Mapping[str, Any]]) -> WinningView | None:
    """The first view without an error, since they are in order of their worth; None where there is none."""
    tried = [one for one in candidate_views if not one["error"]]
    if not tried:
        return None
    own = next((one["robust_accuracy"] for one in tried if one["view"] == "own gradient"), None)
    best = tried[0]
    return WinningView(best["view"], best["robust_accuracy"], None if best["view"] == "own gradient" else own)
