"""Types that all parts of unmask share: the output of a model, views, estimators and attacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from unmask.errors import UnmaskError

__all__ = ["LOGITS", "Estimator", "InvalidModelOutput", "Loss", "Model", "Objective", "Output", "as_output", "items_of"]


class Output(NamedTuple):
    """The output of a model for a batch of B inputs and K classes."""

    logits: Tensor  # (B, K)
    reject: Tensor | None = None  # (B,) margin of a detector; > 0 refuses the input


Model = Callable[[Tensor], Output | Tensor]
"""(B, C, H, W) in [0, 1] -> ``Output``; whatever :func:`as_output` understands is accepted everywhere."""

Loss = Callable[[Output, Tensor], Tensor]
"""(output, labels (B,)) -> (B,); higher is closer to success (a wrong class AND no rejection)."""


LOGITS, REJECT = "logits", "reject"
"""The names of an answer's parts, by attribute or by key."""


_BELOW = 100.0
"""How far a logit of -inf counts as below the lowest finite one."""


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


class InvalidModelOutput(UnmaskError):
    """What a model answers cannot be judged; the message says what it is and what to return."""


def as_output(answer: Any, rows: int | None = None) -> Output:
    """Give what a model answers the form of an :class:`Output`.

    A tensor of logits (B, K) is one; so is whatever has ``logits``, and perhaps ``reject``, by attribute or by key.
    True refuses, False does not; ``reject`` may also be an array of numpy, or a list. Logits that are integers become
    floats.

    Args:
        answer: what the model returned.
        rows: images that it was given; None where shapes are checked elsewhere. With it the tensors are copies, since
            some models return the same buffer each time, and logits of -inf, of classes that the model rules out, are
            finite: 100 below the lowest others of the image.

    Raises :class:`InvalidModelOutput` where it is not clear which tensor holds the logits, and, given ``rows``, for
    shapes that cannot be logits and a margin.

    >>> import torch
    >>> as_output(torch.zeros(2, 10)).reject is None
    True
    >>> as_output({"logits": torch.zeros(2, 10), "reject": torch.tensor([True, False])}).reject
    tensor([ 1., -1.])
    >>> as_output(torch.tensor([[0.6, 0.4, 0.0]]).log(), rows=1).logits
    tensor([[  -0.5108,   -0.9163, -100.9163]])
    >>> as_output((torch.zeros(2, 4), torch.zeros(2, 10)))
    Traceback (most recent call last):
    unmask.types.InvalidModelOutput: the model answers a tuple of 0: (2, 4), 1: (2, 10): name the logits with --output \
0, or unmask.select_output(model, 0)
    """
    logits, reject = _parts(answer)
    if not isinstance(logits, Tensor):
        raise InvalidModelOutput(f"the model answers {_form(answer)}", "return logits (batch, classes)")
    whole = not (logits.is_floating_point() or logits.is_complex())
    output = Output(logits.float() if whole else logits, None if reject is None else _margins(reject, logits))
    return output if rows is None else _checked(output, rows)


def _margins(reject: Any, logits: Tensor) -> Tensor:
    """Margins of refusal (B,), of a tensor, an array of numpy or a list."""
    if not isinstance(reject, Tensor):
        try:
            reject = torch.as_tensor(reject, device=logits.device)
        except (TypeError, ValueError, RuntimeError) as error:
            hint = "give a tensor (batch,): a margin, or whether an image is refused"
            raise InvalidModelOutput(f"`reject` is a {type(reject).__name__}", hint) from error
        reject = reject.float() if reject.dtype == torch.float64 else reject
    if not (reject.is_floating_point() or reject.dtype == torch.bool):
        raise InvalidModelOutput(f"`reject` is {reject.dtype}", "give a margin, above 0 where an image is refused")
    return torch.where(reject, 1.0, -1.0).flatten() if reject.dtype == torch.bool else reject.flatten()


def _finite(logits: Tensor) -> Tensor:
    """Logits (B, K) without -inf."""
    ruled_out = logits.isneginf() if logits.is_floating_point() else torch.zeros(())
    if not ruled_out.any():
        return logits.clone()
    lowest = logits.detach().masked_fill(logits.isinf(), torch.inf).amin(1, keepdim=True)
    return torch.where(ruled_out, lowest - _BELOW, logits)


def items_of(answer: Any) -> dict[Any, Any]:
    """The parts of an answer by key, field or position; empty for a tensor, or where it has none.

    >>> items_of((1, 2)), items_of({"a": 1})
    ({0: 1, 1: 2}, {'a': 1})
    """
    if isinstance(answer, Mapping):
        return dict(answer)
    if isinstance(answer, tuple) and hasattr(answer, "_asdict"):
        return dict(answer._asdict())
    if isinstance(answer, tuple | list):
        return dict(enumerate(answer))
    return dict(vars(answer)) if dataclasses.is_dataclass(answer) and not isinstance(answer, type) else {}


def _checked(output: Output, rows: int) -> Output:
    """A copy of an output for a number of images, which has a row for each."""
    logits, reject = output
    if logits.ndim != 2 or len(logits) != rows or not logits.shape[1]:
        one = "; unmask.two_classes(model) makes two classes of a single logit" if logits.numel() == rows else ""
        shape = tuple(logits.shape)
        raise InvalidModelOutput(
            f"the model answers a tensor of shape {shape} to {rows} images", f"return logits (batch, classes){one}"
        )
    if reject is not None and len(reject) != rows:
        raise InvalidModelOutput(
            f"`reject` holds {len(reject)} margins of refusal for {rows} images",
            "give one an image, or name the logits with --output logits",
        )
    return Output(_finite(logits), None if reject is None else reject.clone())


def _parts(answer: Any) -> tuple[Any, Any]:
    """What may be the logits, and the margin of refusal."""
    if isinstance(answer, Tensor | Output):
        return (answer, None) if isinstance(answer, Tensor) else answer
    named = answer if isinstance(answer, Mapping) else vars(answer) if hasattr(answer, "__dict__") else {}
    if isinstance(answer, Mapping) and LOGITS in answer:
        return _named(answer[LOGITS], answer.get(REJECT), named)
    if hasattr(answer, LOGITS):
        reject = getattr(answer, REJECT, None)
        return _named(getattr(answer, LOGITS), None if callable(reject) else reject, named or items_of(answer))
    parts = {key: part for key, part in items_of(answer).items() if part is not None}
    if isinstance(answer, tuple | list) and len(parts) == 1:
        return next(iter(parts.values())), None
    if not parts:
        return answer, None
    key = next(iter(parts))
    raise InvalidModelOutput(
        f"the model answers {_form(answer)}",
        f"name the logits with --output {key}, "
        f"or unmask.select_output(model, {key!r}){_refusing(list(parts.values()))}",
    )


def _named(logits: Any, reject: Any, parts: Mapping[Any, Any]) -> tuple[Any, Any]:
    """Both; InvalidModelOutput for another number for each image, which may be a margin of refusal by a wrong name."""
    for key, part in parts.items() if reject is None and isinstance(logits, Tensor) else ():
        number = isinstance(part, Tensor) and (part.is_floating_point() or part.dtype == torch.bool) and part.ndim
        if number and key != LOGITS and logits.ndim == 2 and len(part) == part.numel() == len(logits):
            raise InvalidModelOutput(
                f"the model answers {key!r}, a number for each image, beside `{LOGITS}`: name it `{REJECT}`, if it "
                f"refuses images; if it does not, --output {LOGITS}, or unmask.select_output(model, {LOGITS!r})"
            )
    return logits, reject


def _refusing(parts: list[Any]) -> str:
    """What to say where the second of two tensors has the form of a margin of refusal."""
    shapes = [part.ndim for part in parts if isinstance(part, Tensor)]
    return "; or return unmask.Output(logits, reject), if the second refuses images" if shapes == [2, 1] else ""


def _form(answer: Any) -> str:
    """A model's answer in words: the type, the keys and the shapes."""
    items = items_of(answer)
    shapes = (f"{key}: {tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__}" for key, v in items.items())
    return f"a {type(answer).__name__}{' of ' if items else ''}{', '.join(shapes)}"
