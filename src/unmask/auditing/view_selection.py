"""The choice of a view by what it is worth: how far a short search through it lowers the true model's margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unmask.attacking import run_attack
from unmask.attacks.aliases import pgd
from unmask.attacks.problem import Attack
from unmask.attacks.snapped import over_grid
from unmask.auditing.candidate_views import CandidateView
from unmask.diagnosis.findings import draws
from unmask.diagnosis.stochastic import noise, shared
from unmask.gradients.autograd import autograd
from unmask.gradients.eot import EOT
from unmask.judging import Judge
from unmask.losses import margin
from unmask.model_wrappers import BATCH_MULTIPLE, frozen_copy, query
from unmask.randomness import make_keys, use_keys
from unmask.types import Estimator, Output

__all__ = ["PilotResult", "estimator", "pilot_search", "rank"]

_STEPS = 12


@dataclass(frozen=True)
class PilotResult:
    """A view, what a short search through it left standing, and the signal of its gradients."""

    view: CandidateView
    robust_accuracy: float  # share that stands, on draws that nothing was chosen by
    margin: float  # mean true margin, over the standard deviation of the model's logits
    signal: float  # see ``Noise``
    per_draw_passes: bool = False  # whether each draw needs a pass of its own
    fooled_view_only: tuple[float, ...] = ()  # 1 for each example that fools the view and not the model
    x_adv: Tensor | None = field(repr=False, compare=False, default=None)  # the images that the search came to
    error: str = ""  # why it could not be tried
    levels: int = 0  # of the grid on which the search's candidates lay; 0 for none

    @property
    def name(self) -> str:
        """As a report says it."""
        return f"{self.view.name}, on the grid of k/{self.levels}" if self.levels else self.view.name


def pilot_search(
    model: nn.Module,
    judge: Judge,
    ways: Sequence[CandidateView],
    x: Tensor,
    y: Tensor,
    index: Tensor,
    seed: int,
    random: bool,
    levels: int = 0,
    search: Attack | None = None,
) -> list[PilotResult]:
    """Each of ``ways`` tried on images (B, C, H, W) of classes (B,), in their order.

    With ``levels`` the candidates of the searches lie on that grid: see :class:`unmask.attacks.snapped.Snapped`.
    ``search`` takes no gradient; without it, a few steps of PGD on the margin are taken.
    """
    found = []
    apart = random and search is None and shared(model, x, make_keys(seed, range(BATCH_MULTIPLE), "shared"))
    for way in ways:
        try:
            found.append(_try(model, judge, way, x, y, index, seed, random, apart, levels, search))
        except Exception as error:  # of somebody else's code, in a use that it was not written for
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            found.append(PilotResult(way, 1.0, -torch.inf, 0.0, error=why, levels=levels))
    return found


def rank(tried: Sequence[PilotResult]) -> list[PilotResult]:
    """By what is left of the true model, then by its margin."""
    return sorted(tried, key=lambda one: (one.robust_accuracy, -one.margin))


def _try(
    model: nn.Module,
    judge: Judge,
    way: CandidateView,
    x: Tensor,
    y: Tensor,
    index: Tensor,
    seed: int,
    random: bool,
    apart: bool,
    levels: int,
    search: Attack | None,
) -> PilotResult:
    keys = make_keys(seed, index, "try")
    signal = 1.0
    if random and search is None:
        twin = frozen_copy(model)
        signal = noise(twin if way.view is None else way.view(twin), x, y, keys, draws=4).signal
    how = estimator(signal, apart, most=8) if random else autograd
    attack = over_grid(levels, search or pgd(_STEPS, margin, how, rel_step_size=0.25, early_stop=False))
    result = run_attack(attack, model, x, y, judge=judge, view=way.view, index=index, seed=seed)
    with torch.no_grad(), use_keys(keys, uses_torch_random=judge.uses_torch_random):
        logits = query(model, result.x_adv).logits.float()
        fooled = ~_stands(query(model if way.view is None else way.view(model), result.x_adv), y)
    spread = float(logits.std().clamp_min(1e-12))
    value = float(margin(Output(logits), y).mean()) / spread
    misled = tuple((fooled & (result.verdict.robust_fraction > 0.5)).double().tolist())
    return PilotResult(
        way, float(result.verdict.robust_fraction.mean()), value, signal, apart, misled, result.x_adv, levels=levels
    )


def _stands(answer: Output, y: Tensor) -> Tensor:
    right = answer.logits.argmax(1) == y
    return right if answer.reject is None else right | (answer.reject > 0)


def estimator(signal: float, apart: bool = False, noise: float = 1.0, most: int = 32) -> Estimator:
    """Of as many draws as leave ``noise`` times as much noise as signal; ``apart``, each in a pass of its own."""
    count = min(most, draws(signal, noise))
    if count == 1:
        return autograd
    return EOT(count, batch=1) if apart else EOT(count)
