"""The words every part of unmask shares: what a model answers and what an attack asks of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = ["Estimator", "InvalidModelOutput", "Loss", "Objective", "Output", "Victim", "as_output"]


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


class InvalidModelOutput(ValueError):
    """What a model answers cannot be judged; the message says what it is and what to return."""


def as_output(answer: Any, rows: int | None = None) -> Output:
    """Give what a model answers the form of an :class:`Output`.

    A tensor of logits (B, K) is one; so is whatever has ``logits``, and perhaps ``reject``, by attribute or by key;
    so is a tuple of logits and, if that has one number an image, a margin of refusal. True refuses, False does not.

    Args:
        answer: what the model returned.
        rows: images that it was given; None where shapes are checked elsewhere.

    Raises :class:`InvalidModelOutput` where it is not clear which tensor holds the logits, and, given ``rows``, for
    shapes that cannot be logits and a margin.

    >>> import torch
    >>> as_output(torch.zeros(2, 10)).reject is None
    True
    >>> as_output({"logits": torch.zeros(2, 10), "reject": torch.tensor([True, False])}).reject
    tensor([ 1., -1.])
    >>> as_output((torch.zeros(2, 4), torch.zeros(2, 10)))
    Traceback (most recent call last):
    unmask.types.InvalidModelOutput: the model answers a tuple of tensors 0: (2, 4), 1: (2, 10): name the logits with \
--output, or unmask.select_output(model, 0)
    """
    logits, reject = _parts(answer)
    if not isinstance(logits, Tensor):
        raise InvalidModelOutput(f"the model answers {_form(answer)}: return logits (batch, classes)")
    if isinstance(reject, Tensor):
        reject = torch.where(reject, 1.0, -1.0).flatten() if reject.dtype == torch.bool else reject.flatten()
    if rows is not None:
        if logits.ndim != 2 or len(logits) != rows or not logits.shape[1]:
            raise InvalidModelOutput(
                f"the model answers a tensor of shape {tuple(logits.shape)} to {rows} images: "
                f"return logits (batch, classes){_one_logit(logits, rows)}"
            )
        if isinstance(reject, Tensor) and len(reject) != rows:
            raise InvalidModelOutput(
                f"the model gives {len(reject)} margins of refusal to {rows} images: return one an image"
            )
    return Output(logits, reject if isinstance(reject, Tensor) else None)


def _parts(answer: Any) -> tuple[Any, Any]:
    """What may be the logits, and the margin of refusal."""
    if isinstance(answer, Tensor | Output):
        return (answer, None) if isinstance(answer, Tensor) else answer
    if isinstance(answer, Mapping) and "logits" in answer:
        return answer["logits"], answer.get("reject")
    if hasattr(answer, "logits"):
        return answer.logits, getattr(answer, "reject", None)
    if isinstance(answer, tuple | list) and answer and isinstance(answer[0], Tensor):
        further = [part for part in answer[1:] if isinstance(part, Tensor)]
        if not further or (len(answer) == 2 and further[0].ndim == 1):
            return answer[0], further[0] if further else None
    if isinstance(answer, Mapping | tuple | list) and answer:
        keys = list(answer) if isinstance(answer, Mapping) else range(len(answer))
        raise InvalidModelOutput(
            f"the model answers {_form(answer)}: "
            f"name the logits with --output, or unmask.select_output(model, {next(iter(keys))!r})"
        )
    return answer, None


def _form(answer: Any) -> str:
    """A model's answer in words: the type, the keys and the shapes."""
    if not isinstance(answer, Mapping | tuple | list):
        return f"a {type(answer).__name__}"
    items = answer.items() if isinstance(answer, Mapping) else enumerate(answer)
    shapes = (f"{key}: {tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__}" for key, v in items)
    return f"a {type(answer).__name__} of {'tensors ' if answer else 'nothing'}{', '.join(shapes)}"


def _one_logit(logits: Tensor, rows: int) -> str:
    one = logits.ndim in (1, 2) and logits.numel() == rows
    return "; unmask.two_classes(model) makes two classes of a single logit" if one else ""
