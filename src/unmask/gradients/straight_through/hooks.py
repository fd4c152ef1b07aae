"""Hooks on gradients, which may change them, work only for gradients that the model itself takes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from unmask.gradients.straight_through.context import SurrogateContext

__all__ = ["suspended", "suspended_hooks"]

Hook = Callable[..., Any]


def suspended(hook: Hook, context: SurrogateContext) -> Hook:
    """The hook as long as the forward pass runs; later nothing is changed."""
    return lambda *args, **kwargs: hook(*args, **kwargs) if context.running else None


@contextmanager
def suspended_hooks(model: nn.Module, context: SurrogateContext) -> Iterator[None]:
    """While this is open, parts that run have hooks on their gradients that end with the forward pass."""
    own = [(part, name, getattr(part, name)) for part in model.modules() for name in _NAMES if getattr(part, name)]
    try:
        for part, name, hooks in own:
            setattr(part, name, OrderedDict((key, suspended(hook, context)) for key, hook in hooks.items()))
        yield
    finally:
        for part, name, hooks in own:
            setattr(part, name, hooks)


_NAMES = ("_backward_hooks", "_backward_pre_hooks")
