"""An attack whose candidates lie on a grid of grey levels: for models that refuse, or do not see, what lies between."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unmask.attacks.problem import Attack, Problem
from unmask.errors import UnmaskError
from unmask.threats import Threat
from unmask.types import Output

__all__ = ["OnGrid", "Snapped", "over_grid", "snapped"]

_ROUNDED_UP = (0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0)
"""From which part of a level on a change is rounded away from the image: the first of these that stays in the ball."""

_TOLERANCE = 1e-5
"""Slack of the distance, as a share of eps, as the judge has it."""


@dataclass(frozen=True)
class Snapped:
    """``attack`` over the images whose pixels are whole numbers divided by ``levels``.

    The search moves freely. Loss and judge use the nearest point of the grid,
    and the gradient passes the rounding straight through. The result lies on the grid.

    Use when a model refuses images off the grid of its data, or of 8 bit (``levels`` 255). Costs no pass.

    >>> import torch
    >>> from unmask.attacks.aliases import fgsm
    >>> from unmask.randomness import make_keys
    >>> from unmask.threats import Linf
    >>> view, x, y = torch.nn.Flatten(), torch.tensor([[[[0.75, 0.5]]]]), torch.tensor([0])
    >>> problem = Problem(view, x, y, Linf(0.3), make_keys(0, [0], "attack"), lambda rows, x_adv, when: rows < 0)
    >>> Snapped(4, fgsm())(problem)
    tensor([[[[0.5000, 0.7500]]]])
    """

    levels: int
    attack: Attack

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise UnmaskError(f"a grid has at least 1 level above 0, not {self.levels}")

    def __call__(self, problem: Problem) -> Tensor:
        x, threat, note = problem.x, problem.threat, problem.on_candidate

        def on_grid(points: Tensor, rows: Tensor) -> Tensor:
            return snapped(points, x[rows], threat, self.levels)

        def broken(rows: Tensor, points: Tensor, step: int) -> Tensor:
            return problem.is_broken(rows, on_grid(points, rows), step)

        searched = replace(
            problem,
            candidate=on_grid,
            is_broken=broken,
            on_candidate=note and (lambda rows, points, view: note(rows, on_grid(points, rows), view)),
        )
        return on_grid(self.attack(searched), torch.arange(len(x), device=x.device))


def over_grid(levels: int, attack: Attack) -> Attack:
    """``attack`` over the grid of k / ``levels``; as it is for 0 levels."""
    return Snapped(levels, attack) if levels else attack


class OnGrid(nn.Module):
    """A model on the nearest images whose pixels are whole numbers divided by ``levels``."""

    def __init__(self, model: nn.Module, levels: int) -> None:
        super().__init__()
        self.model, self.levels = model, levels

    def forward(self, x: Tensor) -> Output | Tensor:
        answer: Output | Tensor = self.model(_nearest(x, self.levels))
        return answer


def _nearest(points: Tensor, levels: int) -> Tensor:
    return (points * levels).round().clamp(0, levels) / levels


@torch.no_grad()
def snapped(points: Tensor, x: Tensor, threat: Threat, levels: int) -> Tensor:
    """For each of the points (B, ...) one of the grid k / ``levels``: the nearest, unless the point lies in the ball
    around ``x`` and the nearest does not; then one for which fewer changes are rounded up.

    No point of the grid may lie in a small ball around an image that is off the grid: the point then lies outside.

    >>> from unmask.threats import Linf
    >>> snapped(torch.tensor([[0.7, 0.2]]), torch.tensor([[0.5, 0.0]]), Linf(0.2), 4)
    tensor([[0.5000, 0.0000]])
    """
    at = points * levels
    away = torch.where(points >= x, at - at.floor(), at.ceil() - at)
    near = torch.where(points >= x, at.floor(), at.ceil())
    step = torch.where(points >= x, 1.0, -1.0).to(at)
    most = threat.eps * (1 + _TOLERANCE)
    found, left = _nearest(points, levels), threat.distance(points, x) <= most
    for least in _ROUNDED_UP:
        level = (near + step * (away >= least)).clamp(0, levels) / levels
        found = torch.where(left.view(-1, *[1] * (x.ndim - 1)), level, found)
        left = left & (threat.distance(level, x) > most)
        if not left.any():
            break
    return found
