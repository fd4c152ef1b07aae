"""Surrogates of operations on floats: steps, saturations, comparisons, casts, and cut gradients.

A rule takes the call of an operation. It returns the surrogate whose gradient the result shall have (only the gradient
counts, not the value), or None to leave the operation its own gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unmask.gradients.straight_through.calls import Call

__all__ = ["FLOAT_RULES", "Rule", "difference", "equal", "named", "soft_choice", "step"]

Rule = Callable[[Call], Any]

_FLAT = 0.05
"""Mean slope of a sigmoid, as a share of its largest one, or mean weight beside the largest, below which it is flat."""

_APART = 2.0
"""How far the other scores of a flat softmax are below the largest, on average, where its gradient is taken."""


def _same(call: Call) -> Any:
    """Steps and cuts: the gradient passes as if the operation were not there."""
    return call.label(0) or call.soft_value(0) or call.args[0]


def _clamp(call: Call) -> Any:
    """Identity also outside the range, but ``clamp(x, min=0)`` is a ReLU and keeps its gradient."""
    low, high = call.given(1, "min"), call.given(2, "max")
    if any(map(call.context.carries, (low, high))) or (high is None and isinstance(low, int | float) and low == 0):
        return None
    return call.real(0)


def _hardtanh(call: Call) -> Any:
    """Identity outside the range; from 0 upwards (ReLU6) it is a ReLU without the upper bound."""
    return torch.relu(call.args[0]) if call.given(1, "min_val") == 0 else call.args[0]


def _remainder(call: Call) -> Any:
    """Half: between ``x - x % s``, whose trend needs 0 here, and ``x % s``, whose slope is 1."""
    return 0.5 * call.real(0) if call.context.carries(call.args[0]) else None


def difference(a: Any, b: Any) -> Tensor:
    """a - b in units of its spread within the example, so that one width suits every scale."""
    gap: Tensor = a - b
    with torch.no_grad():
        scale = (_mean(gap.abs()) if gap.ndim > 1 else abs(a) + abs(b)).clamp_min(1e-6)
    return gap / scale


def _compared(call: Call) -> Tensor:
    return difference(call.real(0), call.context.real(call.given(1, "other")))


def step(call: Call, u: Tensor) -> Tensor:
    """A smooth step from 0 to 1; its slope falls with the square of u, so it never vanishes altogether."""
    u = u / call.context.width
    return 0.5 + 0.5 * u / (1 + u.abs())


def _bump(u: Tensor) -> Tensor:
    """A bump around equality, whose slope says in which direction the two come closer."""
    return 1 / (1 + u.square())


def equal(call: Call) -> Tensor:
    """That of a comparison for equality; bits, such as signs and those of a code, have no third value to turn to."""
    own = (call.args[0], call.given(1, "other"))
    a, b = map(call.context.real, own)
    fixed = next((t for t in own if not call.context.carries(t)), None)
    if not isinstance(fixed, Tensor) or fixed.numel() < 2:
        return _bump(difference(a, b))
    low, high = float(fixed.min()), float(fixed.max())
    if low == high or not ((fixed == low) | (fixed == high)).all():
        return _bump(difference(a, b))
    bits = ((own[0] == low) | (own[0] == high)) & ((own[1] == low) | (own[1] == high))
    p, q = (a - low) / (high - low), (b - low) / (high - low)
    return torch.where(bits, 1 - p - q + 2 * p * q, _bump(difference(a, b)))


def _cast(call: Call) -> Any:
    """Through an integer type and back, the gradient is that of the number."""
    true, x = call.true, call.args[0]
    if not isinstance(true, Tensor) or (x.is_floating_point() and true.is_floating_point()):
        return call.label(0)
    if true.dtype == torch.bool != x.dtype:
        return 1 - _bump(difference(call.real(0), 0))
    soft = call.soft_value(0)
    return soft._replace(bit=True) if soft is not None and x.dtype == torch.bool else _same(call)


def _where(call: Call) -> Any:
    """Besides what the chosen branch passes, the condition passes (a - b) times its own gradient."""
    if len(call.args) < 3:
        return None
    condition, a, b = call.args
    chosen = torch.where(condition, call.context.exact(a), call.context.exact(b))
    soft = call.soft_value(0)
    if soft is None:
        return chosen
    gap = torch.as_tensor(call.real(1) - call.real(2)).detach()
    return chosen + gap.nan_to_num(0.0, 0.0, 0.0) * soft.value  # a guarded branch may be infinite


def _masked_fill(call: Call) -> Any:
    x, mask, value = call.in_order()[:3]
    return _where(call.like(mask, value, x))


def _softmax(call: Call) -> Any:
    return soft_choice(call.real(0), call.given(1, "dim"))


def soft_choice(scores: Tensor, dim: int, flat: float = _FLAT) -> Tensor:
    """The softmax; where on average less than ``flat`` of its weight is beside the largest, as at a low temperature,
    that of scores which are a few units apart.
    """
    own = scores.softmax(dim)
    with torch.no_grad():
        below = (scores.amax(dim, keepdim=True) - scores).sum(dim, keepdim=True) / max(1, scores.shape[dim] - 1)
        sure = _mean(own.amax(dim, keepdim=True)) > 1 - flat
        apart = _mean(below).clamp_min(_APART)
    return torch.where(sure, (scores * (_APART / apart)).softmax(dim), own)


def _sigmoid(call: Call) -> Any:
    """Where nearly all elements are where it is flat, a step that is as wide as they spread."""
    u = call.real(0)
    with torch.no_grad():
        flat = _mean(4 * call.true * (1 - call.true)) < _FLAT
    return torch.where(flat, step(call, difference(u, 0.0)), u.sigmoid())


def _tanh(call: Call) -> Any:
    """As of the sigmoid, from -1 to 1."""
    u = call.real(0)
    with torch.no_grad():
        flat = _mean(1 - call.true.square()) < _FLAT
    return torch.where(flat, 2 * step(call, difference(u, 0.0)) - 1, u.tanh())


def _mean(value: Tensor) -> Tensor:
    """Of each example, in a tensor of as many dimensions; of all, where there are no others."""
    return value.flatten(1).mean(1).reshape(-1, *[1] * (value.ndim - 1)) if value.ndim > 1 else value.mean()


def _division(call: Call) -> Any:
    """A division that rounds has the gradient of the one that does not."""
    return call.real(0) / call.real(1)


def _rounded(call: Call) -> Any:
    if call.kwargs.get("rounding_mode") is None and not any(map(call.context.soft_value, call.args)):
        return None
    return _division(call)


def named(rule: Rule, *names: str) -> dict[str, Rule]:
    """One rule for several operations, as a part of a table of rules."""
    return dict.fromkeys(names, rule)


FLOAT_RULES: dict[str, Rule] = {
    **named(_same, "round", "floor", "ceil", "trunc", "fix", "bernoulli", "clamp_max"),
    **named(_same, "detach", "get data", "tensor", "as_tensor", "asarray", "quantize_per_tensor", "dequantize"),
    **named(lambda call: call.soft_value(1) or call.args[1], "new_tensor"),
    **named(_clamp, "clamp", "clip", "clamp_min"),
    **named(_hardtanh, "hardtanh"),
    **named(lambda call: torch.relu(call.args[0]), "relu6"),
    **named(_remainder, "remainder", "fmod", "frac", "mod"),
    **named(lambda call: step(call, _compared(call)), "gt", "ge", "greater", "greater_equal"),
    **named(lambda call: 1 - step(call, _compared(call)), "lt", "le", "less", "less_equal"),
    **named(lambda call: 2 * step(call, difference(call.real(0), 0.0)) - 1, "sign", "sgn"),
    **named(lambda call: step(call, difference(call.real(0), 0.0)), "heaviside"),
    **named(_cast, "to", "type", "type_as", "float", "double", "half", "bfloat16"),
    **named(_cast, "int", "long", "short", "byte", "char", "bool"),
    **named(_where, "where"),
    **named(_masked_fill, "masked_fill"),
    **named(_softmax, "softmax"),
    **named(_sigmoid, "sigmoid"),
    **named(_tanh, "tanh"),
    **named(_division, "floor_divide", "floordiv"),
    **named(lambda call: call.real(1) / call.real(0), "rfloordiv"),
    **named(_rounded, "div", "divide", "true_divide"),
}
"""The rule of each operation, by its name without leading or trailing underscores."""
