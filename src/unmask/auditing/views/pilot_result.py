"""What a short search through a view came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from unmask.auditing.views.candidate_view import OWN_GRADIENT, CandidateView

__all__ = ["PilotResult", "distinct", "of_own_gradient", "rank"]


@dataclass(frozen=True)
class PilotResult:
    """A view, the robust accuracy under its pilot, and the signal of its gradients."""

    view: CandidateView
    robust_accuracy: float  # share that stands, on draws that nothing was chosen by
    margin: float  # mean true margin, over the standard deviation of the model's logits
    signal: float  # see ``Noise``
    per_draw_passes: bool = False  # whether each draw needs a pass of its own
    fooled_view_only: tuple[float, ...] = ()  # 1 for each example that fools the view and not the model
    x_adv: Tensor | None = field(repr=False, compare=False, default=None)  # the images that the search came to
    error: str = ""  # why it could not be tried
    levels: int = 0  # of the grid on which the search's candidates lay; 0 for none
    refusal_gradient: bool = False  # whether the view has a gradient of the model's margin of refusal
    complete: bool = True  # whether it was tried on all images, and not on the first few alone

    @property
    def name(self) -> str:
        """As a report says it."""
        return f"{self.view.name}, on the grid of k/{self.levels}" if self.levels else self.view.name

    def plain(self) -> dict[str, Any]:
        """As run.json holds it."""
        return {
            "view": self.name,
            "code": self.view.code,
            "levels": self.levels,
            "robust_accuracy": self.robust_accuracy,
            "margin": None if self.error else self.margin,
            "error": self.error,
            "refusal_gradient": self.refusal_gradient and self.view.end_to_end and not self.view.fitted,
            "images": 0 if self.x_adv is None else len(self.x_adv),
        }

    def with_more(self, other: PilotResult) -> PilotResult:
        """The same view on further images."""
        if other.error or self.x_adv is None or other.x_adv is None:
            return other
        x_adv = torch.cat([self.x_adv, other.x_adv])
        share = len(self.x_adv) / len(x_adv)

        def mean(one: float, more: float) -> float:
            return share * one + (1 - share) * more

        return replace(
            self,
            robust_accuracy=mean(self.robust_accuracy, other.robust_accuracy),
            margin=mean(self.margin, other.margin),
            signal=mean(self.signal, other.signal),
            fooled_view_only=(*self.fooled_view_only, *other.fooled_view_only),
            x_adv=x_adv,
        )


def of_own_gradient(results: Sequence[PilotResult]) -> PilotResult | None:
    """The result of the model's own gradient, where it could be tried."""
    return next((one for one in results if one.view == OWN_GRADIENT and not one.error), None)


def rank(results: Sequence[PilotResult]) -> list[PilotResult]:
    """By what is left of the true model, then by its margin; before all those that were tried on few images alone."""
    return sorted(results, key=lambda one: (bool(one.error), not one.complete, one.robust_accuracy, -one.margin))


def distinct(results: Sequence[PilotResult]) -> list[PilotResult]:
    """The first of those that came to the same images, since their views have the same gradient; none that failed."""
    return [*{id(one.x_adv): one for one in reversed(results) if not one.error}.values()][::-1]
