"""The words every part of unmask shares: what a model answers and what an attack asks of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor

__all__ = ["Estimator", "Loss", "Objective", "Output", "Victim", "as_output"]


class Output(NamedTuple):
    """What a victim answers for a batch of B inputs and K classes."""

    logits: Tensor  # (B, K)
    reject: Tensor | None = None  # (B,) margin of a detector; > 0 refuses the input


Victim = Callable[[Tensor], Output | Tensor]
"""(B, C, H, W) in [0, 1] -> ``Output``; a plain (B, K) tensor of logits is accepted everywhere."""

Loss = Callable[[Output, Tensor], Tensor]
"""(output, labels (B,)) -> (B,); higher is closer to success (a wrong class AND no rejection)."""


class Objective(Protocol):
    """What a search maximises: (B, ...) -> (B,), example by example, never summed."""

    def __call__(self, z: Tensor, rows: Tensor | None = None) -> Tensor:
        """Row r of ``z`` belongs to example ``rows[r]``; None means one row an example, in order."""
        ...


class Estimator(Protocol):
    """How a direction of ascent is got from an objective."""

    def __call__(self, objective: Objective, z: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Values (B,) and an ascent direction (B, ...) at ``z`` (B, ...)."""
        ...


def as_output(answer: Output | Tensor) -> Output:
    """Give a plain (B, K) tensor of logits the form of an :class:`Output`.

    >>> import torch
    >>> as_output(torch.zeros(2, 10)).reject is None
    True
    """
    return answer if isinstance(answer, Output) else Output(answer)
