"""How much of a pass is kept for its gradient, so that a gradient is taken of as many rows as memory holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["bounded_graphs", "count_graph", "counted", "forget_graph", "out_of_memory", "rows_of_a_graph"]

T = TypeVar("T")

_BYTES = 1 << 29
"""That a pass may keep for its gradient."""

_LEAST = 16
"""Rows of a pass, which is what batches are filled up to; so many have the first pass, on which bytes are counted."""


@dataclass
class _Graph:
    """What is known of the passes of one view."""

    bytes_per_row: float | None = None


_graph: ContextVar[_Graph | None] = ContextVar("unmask_graph", default=None)
_kept: ContextVar[dict[int, int] | None] = ContextVar("unmask_kept", default=None)  # bytes, by their address


@contextmanager
def bounded_graphs() -> Iterator[None]:
    """Inside, :func:`rows_of_a_graph` bounds the rows of a gradient."""
    token = _graph.set(_Graph())
    try:
        yield
    finally:
        _graph.reset(token)


def forget_graph() -> None:
    """What follows are passes of another view."""
    if (graph := _graph.get()) is not None:
        graph.bytes_per_row = None


def rows_of_a_graph() -> int | None:
    """Rows in one pass of which a gradient is taken, at most; None for any number."""
    graph = _graph.get()
    if graph is None:
        return None
    if graph.bytes_per_row is None:
        return _LEAST
    return max(1, int(_BYTES / max(1.0, graph.bytes_per_row)) // _LEAST) * _LEAST


def count_graph(call: Callable[[], T], rows: int) -> T:
    """The result of a pass of ``rows``; the first time for a view, the bytes are counted that it keeps for a gradient.

    >>> x = torch.rand(16, 1000, requires_grad=True)
    >>> with bounded_graphs():
    ...     y = count_graph(lambda: x.exp().sin(), 16)
    ...     rows_of_a_graph()
    134208
    """
    graph = _graph.get()
    if graph is None or graph.bytes_per_row is not None or not torch.is_grad_enabled():
        return call()
    kept = dict[int, int]()
    token = _kept.set(kept)
    try:
        with torch.autograd.graph.saved_tensors_hooks(counted, lambda tensor: tensor):
            result = call()
    finally:
        _kept.reset(token)
    graph.bytes_per_row = sum(kept.values()) / rows
    return result


def counted(tensor: Tensor) -> Tensor:
    """The tensor, which autograd saves; for hooks on saved tensors that are inside a pass that is counted.

    It comes without its graph: an operation that saves its own result would hold itself, and nobody would free it where
    no backward pass goes through it, as through a gradient that a model takes itself. Autograd knows the graph.
    """
    kept = _kept.get()
    if kept is not None:
        with suppress(RuntimeError, NotImplementedError):  # a tensor without memory of its own
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return tensor.detach()


def out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine had no room; the CPU's allocator has no error of its own.

    >>> out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory")), out_of_memory(RuntimeError("shape"))
    (True, False)
    """
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or any(words in str(error) for words in ("out of memory", "can't allocate memory"))
