"""Tensors as they were: what a trace keeps of each one that an operation was given or made."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch
from torch.autograd.graph import GradientEdge, get_gradient_edge

__all__ = ["TensorSnapshot", "Token", "edge_of", "numbers", "tensors", "token_of"]

Token = tuple[int, int]
"""What a tensor is known by in a trace."""


@dataclass(frozen=True, eq=False)
class TensorSnapshot:
    """A tensor as it was: its values, where gradients reach it, and what it is known by in a trace."""

    value: Tensor
    edge: GradientEdge | None  # None where no gradient does
    token: Token  # the same for the same tensor as long as nothing is written into it
    storage: int  # the same for all that look into the same memory
    mapped: bool = False  # whether it is known under this token only inside of ``torch.func.vmap``

    @classmethod
    def of(cls, tensor: Tensor, earlier: Tensor | None = None) -> TensorSnapshot:
        """A copy: whatever is written into ``tensor`` later does not count. ``earlier`` is one that may be as good."""
        with torch.inference_mode(False):
            plain = _plain(tensor)
            value = plain.detach()
            value = value.dequantize() if value.is_quantized else value
            value = value if value.layout == torch.strided else value.to_dense()
            value = earlier if earlier is not None and _same(value, earlier) else value.clone()
            return cls(value, edge_of(plain), token_of(tensor), _home(plain), plain is not tensor)


def _same(value: Tensor, earlier: Tensor) -> bool:
    """Not even what went past autograd has changed it."""
    alike = value.dtype == earlier.dtype and value.device == earlier.device and value.layout == earlier.layout
    return alike and value.layout == torch.strided and torch.equal(value, earlier)


def _plain(tensor: Tensor) -> Tensor:
    """What torch.func has wrapped, for all rows of the batch."""
    while _functorch.is_functorch_wrapped_tensor(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    return tensor


def edge_of(tensor: Tensor) -> GradientEdge | None:
    """Where gradients reach a tensor; None where none do."""
    with torch.inference_mode(False):
        tensor = _plain(tensor)
        unreached = tensor.grad_fn is None and tensor._base is not None  # a view under no_grad, whatever torch says
        return get_gradient_edge(tensor) if tensor.requires_grad and not unreached else None


def token_of(tensor: Tensor) -> Token:
    """What it is known by now."""
    return id(tensor), 0 if tensor.is_inference() else tensor._version  # inference tensors have no version


def _home(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr() or id(tensor)
    except (RuntimeError, NotImplementedError):  # sparse ones, and others that are not laid out in memory
        return id(tensor)


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested arguments or results."""
    match value:
        case Tensor():
            yield value
        case list() | tuple():
            for item in value:
                yield from tensors(item)
        case dict():
            yield from tensors(list(value.values()))
        case _ if dataclasses.is_dataclass(value) or hasattr(value, "logits"):  # an answer of the author's own form
            yield from tensors(list(getattr(value, "__dict__", {}).values()))


def numbers(value: Any) -> Iterator[float]:
    """All of Python's own numbers in nested arguments, those of slices too.

    >>> list(numbers([(torch.zeros(2), (slice(1, None), 2)), {"size": (3, 4)}]))
    [1, 2, 3, 4]
    """
    match value:
        case int() | float():
            yield value
        case slice():
            yield from numbers([value.start, value.stop, value.step])
        case list() | tuple():
            for item in value:
                yield from numbers(item)
        case dict():
            yield from numbers(list(value.values()))
