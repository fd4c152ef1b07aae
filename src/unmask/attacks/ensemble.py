"""Several attacks, one after the other: the worst case of each example."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unmask.attacks.problem import Attack, Ledger, Problem
from unmask.losses import margin
from unmask.randomness import drawing

__all__ = ["Ensemble", "worst"]


@dataclass(frozen=True)
class Ensemble:
    """Each attack gets the examples that the ones before it left standing (Croce & Hein, ICML 2020).

    An example is broken if any attack breaks it, and is never attacked again. Losses of different
    attacks cannot be compared; of an example that no attack breaks, the candidate of the largest
    margin on the view is returned, at one more forward pass for each attack. What an attack did not
    show to the judge, such as one without early stopping, is shown to it here.

    Args:
        attacks: cheapest first.

    >>> from unmask.attacks.settings import fgsm, pgd
    >>> worst = Ensemble((fgsm(), pgd(restarts=5)))
    """

    attacks: tuple[Attack, ...]

    def __call__(self, problem: Problem) -> Tensor:
        return worst(problem, self.attacks, len(self.attacks))


def worst(problem: Problem, attacks: Iterable[Attack], count: int) -> Tensor:
    """What :class:`Ensemble` does, with attacks that are asked for one by one, ``count`` at most."""
    ledger = Ledger(replace(problem, note=None), margin)  # its attacks note their own candidates
    for number, attack in enumerate(attacks):
        rows = ledger.rows()
        if not len(rows):
            break
        part, fallen = _watch(problem.subset(rows), number, count)
        x_adv = attack(part)
        ledger.close(rows[fallen], x_adv[fallen])
        left = ~fallen
        if left.any():
            with torch.no_grad(), drawing(part.keys.select(left).fold("screen")):
                values = problem.goal(margin, rows[left])(x_adv[left])
            ledger.offer(rows[left], x_adv[left], values)
    return ledger.best


def _watch(problem: Problem, number: int, count: int) -> tuple[Problem, Tensor]:
    """The problem with its own randomness for each attack, and a mask (B,) of what the judge has found broken."""
    fallen = torch.zeros_like(problem.y, dtype=torch.bool)

    def broken(rows: Tensor, x_adv: Tensor, when: int) -> Tensor:
        verdict = problem.broken(rows, x_adv, when * (count + 1) + number)  # the ensemble itself asks up to count
        fallen[rows[verdict]] = True
        return verdict

    return replace(problem, keys=problem.keys.fold(number), broken=broken), fallen
