"""Shadows through operations on integers and booleans: arithmetic, bits and logic.

The rules have the form of those in ``floats``. What has no rule here follows :func:`same_op`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unmask.gradients.straight_through.context import SurrogateContext, each, tensors
from unmask.gradients.straight_through.floats import Args, Kwargs, Rule, named

__all__ = ["INTEGER_RULES", "same_op"]


def same_op(func: Callable[..., Any], context: SurrogateContext, true: Any, args: Args, kwargs: Kwargs) -> Any:
    """Arithmetic and shape operations: the surrogate of the result is the same function of the surrogates."""
    results = tensors(true)
    if not results or not any(map(context.soft_value, tensors([args, kwargs]))):
        return None
    stand_in = context.exact if results[0].is_floating_point() else context.soft
    return func(*each(stand_in, args), **each(stand_in, kwargs))


def _shift(sign: int) -> Rule:
    def rule(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
        return context.real(args[0]) * 2.0 ** (sign * context.real(args[1]))

    return rule


def _and(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    """For integers a mask: it keeps the high bits, so the number changes as before."""
    a, b = map(context.real, args)
    if true.dtype == torch.bool:
        return a * b
    return a if context.carries(args[0]) else b


def _or(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    """For integers the joining of disjoint bits, which is their sum."""
    a, b = map(context.real, args)
    return a + b - a * b if true.dtype == torch.bool else a + b


def _xor(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    a, b = map(context.real, args)
    return a + b - 2 * a * b if true.dtype == torch.bool else a + b


def _not(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    return (1 if true.dtype == torch.bool else -1) - context.real(args[0])


def _any(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    return context.real(args[0]).amax(*args[1:], **kwargs)


def _all(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    return context.real(args[0]).amin(*args[1:], **kwargs)


INTEGER_RULES: dict[str, Rule] = {
    **named(_shift(-1), "rshift", "bitwise_right_shift"),
    **named(_shift(1), "lshift", "bitwise_left_shift"),
    **named(_and, "and", "bitwise_and", "logical_and"),
    **named(_or, "or", "bitwise_or", "logical_or"),
    **named(_xor, "xor", "bitwise_xor", "logical_xor"),
    **named(_not, "invert", "bitwise_not", "logical_not"),
    **named(_any, "any"),
    **named(_all, "all"),
}
"""The rule of each operation, by its name without leading or trailing underscores."""
