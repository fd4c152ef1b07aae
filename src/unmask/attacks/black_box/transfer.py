"""Adversarial examples of another model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from unmask.attacks.problem import Attack, Problem
from unmask.types import Model

__all__ = ["Transfer"]


@dataclass(frozen=True)
class Transfer:
    """An attack on ``source`` instead of the view; the judge still uses the true defense.

    The search continues after it has fooled the source, until the judge finds an example broken. An
    attack whose loss has a ``success_threshold`` value queries the judge only once the source is fooled.

    Args:
        source: the model that gives gradients and losses, called as it is: wrap it by
            :func:`unmask.models.model_wrappers.batch_invariant` for results that do not depend on the batch.
        attack: any attack.

    >>> from unmask.attacks.aliases import pgd
    >>> stand_in = Transfer(lambda x: x.flatten(1), pgd(steps=10))
    """

    source: Model
    attack: Attack

    def __call__(self, problem: Problem) -> Tensor:
        return self.attack(problem.with_view(self.source))
