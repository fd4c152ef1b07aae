"""Surrogates of operations on floats: steps, saturations, comparisons, casts, and cut gradients.

A rule takes ``(context, true, args, kwargs)``: what the operation really gave, and what it was called with.
It returns the surrogate whose gradient the result shall have (only the gradient counts, not the
value), or None to leave the operation its own gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unmask.gradients.straight_through.context import SurrogateContext

__all__ = ["FLOAT_RULES", "Args", "Kwargs", "Rule", "equal", "named"]

Args = tuple[Any, ...]
Kwargs = dict[str, Any]
Rule = Callable[[SurrogateContext, Any, Args, Kwargs], Any]


def _same(context: SurrogateContext, true: Any, args: Args, kwargs: Kwargs) -> Any:
    """Steps and cuts: the gradient passes as if the operation were not there."""
    return context.soft_value(args[0]) or args[0]


def _clamp(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Tensor | None:
    """Identity also outside the range, but ``clamp(x, min=0)`` is a ReLU and keeps its gradient."""
    low, high = _pair(args, kwargs, "min", "max")
    if any(map(context.carries, (low, high))) or (high is None and isinstance(low, int | float) and low == 0):
        return None
    x: Tensor = context.real(args[0])
    return x


def _hardtanh(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Tensor:
    """Identity outside the range; from 0 upwards (ReLU6) it is a ReLU without the upper bound."""
    low, _ = _pair(args, kwargs, "min_val", "max_val")
    x: Tensor = args[0]
    return torch.relu(x) if low == 0 else x


def _relu6(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Tensor:
    return torch.relu(args[0])


def _remainder(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    """Half: between ``x - x % s``, whose trend needs 0 here, and ``x % s``, whose slope is 1."""
    return 0.5 * context.real(args[0]) if context.carries(args[0]) else None


def _difference(context: SurrogateContext, args: Args, kwargs: Kwargs) -> Tensor:
    """a - b in units of its spread within the example, so that one width suits every scale."""
    a, b = context.real(args[0]), context.real(args[1] if len(args) > 1 else kwargs["other"])
    difference: Tensor = a - b
    with torch.no_grad():
        if difference.ndim > 1:
            scale = difference.abs().flatten(1).mean(1).reshape(-1, *[1] * (difference.ndim - 1))
        else:
            scale = abs(a) + abs(b)
        scale = scale.clamp_min(1e-6)
    return difference / scale


def _step(u: Tensor) -> Tensor:
    """A smooth step from 0 to 1; its slope falls with the square of u, so it never vanishes altogether."""
    return 0.5 + 0.5 * u / (1 + u.abs())


def _greater(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Tensor:
    return _step(_difference(context, args, kwargs))


def _less(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Tensor:
    return 1 - _step(_difference(context, args, kwargs))


def equal(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Tensor:
    """A bump around equality, whose slope says in which direction the two come closer."""
    return 1 / (1 + _difference(context, args, kwargs).square())


def _unequal(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Tensor:
    return 1 - equal(context, true, args, kwargs)


def _sign(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Tensor:
    return 2 * _step(_difference(context, (args[0], 0.0), {})) - 1


def _heaviside(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Tensor:
    return _step(_difference(context, (args[0], 0.0), {}))


def _cast(context: SurrogateContext, true: Any, args: Args, kwargs: Kwargs) -> Any:
    """Through an integer type and back, the gradient is that of the number."""
    if not isinstance(true, Tensor) or (args[0].is_floating_point() and true.is_floating_point()):
        return None
    if true.dtype == torch.bool != args[0].dtype:
        return _unequal(context, true, (args[0], 0), {})
    return context.soft_value(args[0]) or args[0]


def _where(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    """Besides what the chosen branch passes, the condition passes (a - b) times its own gradient."""
    if len(args) < 3:
        return None
    condition, a, b = args[0], context.real(args[1]), context.real(args[2])
    chosen = torch.where(condition, context.exact(args[1]), context.exact(args[2]))
    soft = context.soft_value(condition)
    if soft is None:
        return chosen
    gap = torch.as_tensor(a - b).detach().nan_to_num(0.0, 0.0, 0.0)  # a guarded branch may be infinite
    return chosen + gap * soft.value


def _masked_fill(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    x, mask, value = (*args, *kwargs.values())[:3]
    return _where(context, true, (mask, value, x), {})


def _division(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    """A division that rounds has the gradient of the one that does not."""
    return context.real(args[0]) / context.real(args[1])


def _reflected_division(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    return context.real(args[1]) / context.real(args[0])


def _rounded(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    if kwargs.get("rounding_mode") is None and not any(map(context.soft_value, args)):
        return None
    return _division(context, true, args, kwargs)


def _pair(args: Args, kwargs: Kwargs, first: str, second: str) -> tuple[Any, Any]:
    given = dict(zip((first, second), args[1:], strict=False)) | kwargs
    return given.get(first), given.get(second)


def named(rule: Rule, *names: str) -> dict[str, Rule]:
    """One rule for several operations, as a part of a table of rules."""
    return dict.fromkeys(names, rule)


FLOAT_RULES: dict[str, Rule] = {
    **named(_same, "round", "floor", "ceil", "trunc", "fix", "bernoulli", "clamp_max"),
    **named(_same, "detach", "get data", "tensor", "as_tensor", "asarray", "quantize_per_tensor", "dequantize"),
    **named(_clamp, "clamp", "clip", "clamp_min"),
    **named(_hardtanh, "hardtanh"),
    **named(_relu6, "relu6"),
    **named(_remainder, "remainder", "fmod", "frac", "mod"),
    **named(_greater, "gt", "ge", "greater", "greater_equal"),
    **named(_less, "lt", "le", "less", "less_equal"),
    **named(_sign, "sign", "sgn"),
    **named(_heaviside, "heaviside"),
    **named(_cast, "to", "type", "type_as", "float", "double", "half", "bfloat16"),
    **named(_cast, "int", "long", "short", "byte", "char", "bool"),
    **named(_where, "where"),
    **named(_masked_fill, "masked_fill"),
    **named(_division, "floor_divide", "floordiv"),
    **named(_reflected_division, "rfloordiv"),
    **named(_rounded, "div", "divide", "true_divide"),
}
"""The rule of each operation, by its name without leading or trailing underscores."""
