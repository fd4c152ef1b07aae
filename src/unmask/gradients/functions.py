"""Custom autograd functions as torch calls them: seen, or given another backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.gradients.bpda import ModelView, Surrogate, View, fit_size, identity, substitute

__all__ = ["bpda_function", "functions_called"]

Call = Callable[..., Any]


@contextmanager
def functions_called(around: Callable[[type, Call, tuple[Any, ...]], Any]) -> Iterator[None]:
    """While this is open, ``around(function, apply, args)`` takes the place of each ``function.apply(*args)``."""
    own = torch.autograd.Function.__dict__["apply"]

    def apply(cls: type, *args: Any, **kwargs: Any) -> Any:
        if kwargs:
            return own.__get__(None, cls)(*args, **kwargs)
        return around(cls, own.__get__(None, cls), args)

    torch.autograd.Function.apply = classmethod(apply)  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.autograd.Function.apply = own  # type: ignore[method-assign]


def bpda_function(name: str, surrogate: Surrogate = identity) -> View:
    """A view in which gradients pass the ``torch.autograd.Function`` of this class name through ``surrogate``.

    As :func:`unmask.bpda`, for what is no module: a function with a backward pass of its own, which may be
    wrong. ``surrogate`` takes the first of its arguments that requires a gradient.

    >>> class Blocked(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x): return x.clone()
    ...     @staticmethod
    ...     def backward(ctx, gradient): return torch.zeros_like(gradient)
    >>> class Defense(nn.Module):
    ...     def forward(self, x): return Blocked.apply(x)
    >>> x = torch.ones(1, 2, requires_grad=True)
    >>> bpda_function("Blocked")(Defense())(x).sum().backward(); x.grad.tolist()
    [[1.0, 1.0]]
    """

    def around(function: type, apply: Call, args: tuple[Any, ...]) -> Any:
        given = next((a for a in args if isinstance(a, Tensor) and a.requires_grad), None)
        if function.__name__ != name or given is None or not torch.is_grad_enabled():
            return apply(*args)
        with torch.no_grad():
            true = apply(*args)
        if not isinstance(true, Tensor):
            raise UnmaskError(f"function {name!r} gives a {type(true).__name__}, not a tensor", "pass around it")
        return substitute(true, fit_size(name, surrogate(given), true))

    def run(model: nn.Module, x: Tensor) -> Any:
        with functions_called(around):
            return model(x)

    return lambda model: ModelView(model, run)
