"""Shadows through operations on integers and booleans: arithmetic, bits and logic.

The rules have the form of those in ``floats``. What has no rule here follows :func:`same_op`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from unmask.gradients.straight_through.calls import Call, each, tensors
from unmask.gradients.straight_through.floats import Rule, named

__all__ = ["INTEGER_RULES", "same_op"]


def same_op(func: Callable[..., Any], call: Call) -> Any:
    """Arithmetic and shape operations: the surrogate of the result is the same function of the surrogates."""
    results = tensors(call.true)
    if not results or not any(map(call.context.soft_value, tensors([call.args, call.kwargs]))):
        return None
    stand_in = call.context.exact if results[0].is_floating_point() else call.context.soft
    kept = {key: value for key, value in call.kwargs.items() if key != "dtype" or results[0].is_floating_point()}
    return func(*each(stand_in, call.args), **each(stand_in, kept))


def _logical(call: Call) -> bool:
    return bool(call.true.dtype == torch.bool)


def _and(call: Call) -> Any:
    """For integers a mask: it keeps the high bits, so the number changes as before."""
    a, b = map(call.context.real, call.args)
    if _logical(call):
        return a * b
    return a if call.context.carries(call.args[0]) else b


def _or(call: Call) -> Any:
    """For integers the joining of disjoint bits, which is their sum."""
    a, b = map(call.context.real, call.args)
    return a + b - a * b if _logical(call) else a + b


def _xor(call: Call) -> Any:
    a, b = map(call.context.real, call.args)
    return a + b - 2 * a * b if _logical(call) else a + b


INTEGER_RULES: dict[str, Rule] = {
    **named(lambda call: call.real(0) * 2.0 ** -call.real(1), "rshift", "bitwise_right_shift"),
    **named(lambda call: call.real(0) * 2.0 ** call.real(1), "lshift", "bitwise_left_shift"),
    **named(_and, "and", "bitwise_and", "logical_and"),
    **named(_or, "or", "bitwise_or", "logical_or"),
    **named(_xor, "xor", "bitwise_xor", "logical_xor"),
    **named(lambda call: (1 if _logical(call) else -1) - call.real(0), "invert", "bitwise_not", "logical_not"),
    **named(lambda call: call.real(0).amax(*call.args[1:], **call.kwargs), "any"),
    **named(lambda call: call.real(0).amin(*call.args[1:], **call.kwargs), "all"),
}
"""The rule of each operation, by its name without leading or trailing underscores."""
