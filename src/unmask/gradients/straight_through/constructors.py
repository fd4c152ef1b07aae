"""Constructors that make a leaf of the values of a tensor, where torch lets no mode see them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unmask.gradients.straight_through.context import SurrogateContext

__all__ = ["followed_constructors"]


@contextmanager
def followed_constructors(context: SurrogateContext) -> Iterator[None]:
    """While this is open, what ``Variable`` and ``nn.Parameter`` make of a tensor has the gradient of that tensor."""

    def call(cls: type, *args: Any, **kwargs: Any) -> Any:
        made = type.__call__(cls, *args, **kwargs)
        data = args[0] if args else kwargs.get("data")
        if isinstance(data, Tensor) and context.carries(data) and torch.is_grad_enabled():
            context.follow(made, context.exact(data))
        return made

    kinds: list[Any] = [type(torch.autograd.Variable), type(nn.Parameter)]
    own = [vars(kind).get("__call__") for kind in kinds]
    for kind in kinds:
        kind.__call__ = call
    try:
        yield
    finally:
        for kind, before in zip(kinds, own, strict=True):
            if before is None:
                del kind.__call__
            else:
                kind.__call__ = before
