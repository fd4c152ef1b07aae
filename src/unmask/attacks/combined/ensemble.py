"""Several attacks, one after the other: the worst case of each example."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unmask.attacks.problem import Attack, BestTracker, Problem
from unmask.losses import margin
from unmask.randomness import use_keys
from unmask.types import Loss, Output

__all__ = ["Ensemble", "worst"]


@dataclass(frozen=True)
class Ensemble:
    """Each attack gets the examples that the attacks before it did not break (Croce & Hein, ICML 2020).

    An example is broken if any attack breaks it, and is never attacked again. Losses of different
    attacks cannot be compared; of an example that no attack breaks, the candidate of the largest
    margin on the view is returned, at one more forward pass for each attack. Of a random model it is
    the candidate that succeeds in most draws, and then that of the largest margin. What an attack did
    not show to the judge, such as one without early stopping, is shown to it here.

    Args:
        attacks: cheapest first.
        draws: in which candidates are compared; with one draw of a random model, chance would select the point.

    >>> from unmask.attacks.aliases import fgsm, pgd
    >>> worst = Ensemble((fgsm(), pgd(restarts=5)))
    """

    attacks: tuple[Attack, ...]
    draws: int = 1

    def __call__(self, problem: Problem) -> Tensor:
        return worst(problem, self.attacks, len(self.attacks), self.draws)


def worst(problem: Problem, attacks: Iterable[Attack], count: int, draws: int = 1) -> Tensor:
    """What :class:`Ensemble` does, with attacks that are made one by one, ``count`` at most."""
    tracker = BestTracker(replace(problem, on_candidate=None), margin)  # its attacks note their own candidates
    for number, attack in enumerate(attacks):
        rows = tracker.active_rows()
        if not len(rows):
            break
        part, fallen = _watch(problem.subset(rows), number, count)
        x_adv = attack(part)
        tracker.mark_broken(rows[fallen], x_adv[fallen])
        left = ~fallen
        if left.any():
            tracker.update(rows[left], x_adv[left], _margins(part, left, x_adv[left], draws))
    return tracker.best


@torch.no_grad()
def _margins(problem: Problem, which: Tensor, x_adv: Tensor, draws: int) -> Tensor:
    keys = problem.keys.select(which).fold_in("screen")
    goal, values = problem.objective(margin if draws == 1 else _successes(draws), which.nonzero().squeeze(1)), []
    for draw in range(draws):
        with use_keys(keys if draws == 1 else keys.fold_in(draw)):
            values.append(goal(x_adv))
    return torch.stack(values).mean(0)


def _successes(draws: int) -> Loss:
    """1 for a success, plus less than all ``draws`` of a margin add up to."""

    def loss(output: Output, labels: Tensor) -> Tensor:
        success = output.logits.argmax(1) != labels
        if output.reject is not None:
            success &= output.reject <= 0
        return success.float() + margin(output, labels).sigmoid() / (2 * draws)

    return loss


def _watch(problem: Problem, number: int, count: int) -> tuple[Problem, Tensor]:
    """The problem with its own randomness for each attack, and a mask (B,) of what the judge has found broken."""
    fallen = torch.zeros_like(problem.y, dtype=torch.bool)

    def broken(rows: Tensor, x_adv: Tensor, step: int) -> Tensor:
        verdict = problem.is_broken(rows, x_adv, step * (count + 1) + number)  # the ensemble itself asks up to count
        fallen[rows[verdict]] = True
        return verdict

    return replace(problem, keys=problem.keys.fold_in(number), is_broken=broken), fallen
