"""The words every part of unmask shares: what a model answers and what an attack asks of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

__all__ = ["Estimator", "Loss", "Objective", "Output", "Victim", "as_output"]


class Output(NamedTuple):
    """What a victim answers for a batch of B inputs and K classes."""

    logits: Tensor  # (B, K)
    reject: Tensor | None = None  # (B,) margin of a detector; > 0 refuses the input


Victim = Callable[[Tensor], Output | Tensor]
"""(B, C, H, W) in [0, 1] -> ``Output``; whatever :func:`as_output` understands is accepted everywhere."""

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


def as_output(answer: Any) -> Output:
    """Give what a model answers the form of an :class:`Output`.

    A tensor of logits (B, K) is one; so is whatever has ``logits``, and perhaps ``reject``, by attribute or by key;
    so is a tuple of logits and, if that has one number an image, a margin of refusal. True refuses, False does not.

    >>> import torch
    >>> as_output(torch.zeros(2, 10)).reject is None
    True
    >>> as_output({"logits": torch.zeros(2, 10), "reject": torch.tensor([True, False])}).reject
    tensor([ 1., -1.])
    """
    if isinstance(answer, Tensor):
        return Output(answer)
    reject = None
    if isinstance(answer, Mapping):
        logits, reject = answer.get("logits"), answer.get("reject")
    elif hasattr(answer, "logits"):
        logits, reject = answer.logits, getattr(answer, "reject", None)
    elif isinstance(answer, tuple | list) and answer:
        logits, second = answer[0], answer[1] if len(answer) > 1 else None
        reject = second if isinstance(second, Tensor) and second.ndim == 1 else None
    else:
        logits = answer
    if isinstance(reject, Tensor):
        reject = torch.where(reject, 1.0, -1.0).flatten() if reject.dtype == torch.bool else reject.flatten()
    return Output(cast(Tensor, logits), reject)
