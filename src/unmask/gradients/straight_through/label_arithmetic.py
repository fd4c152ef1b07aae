"""Surrogates of arithmetic by which votes choose among labels: products with conditions, or, where, sum, maximum.

How much each class is meant goes through all of them; what is meant by no label adds nothing. The rules have the form
of those in ``floats``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unmask.gradients.straight_through.calls import Call
from unmask.gradients.straight_through.context import SoftValue, SurrogateContext
from unmask.gradients.straight_through.floats import FLOAT_RULES, Rule, equal, named
from unmask.gradients.straight_through.integers import INTEGER_RULES
from unmask.gradients.straight_through.labels import MOST, alike, as_wide, choice, moved
from unmask.gradients.straight_through.places import PLACE_RULES, extreme

__all__ = ["LABEL_ARITHMETIC"]


def _masked(call: Call) -> Any:
    """A label times a condition: it is meant as much as the condition holds."""
    pair, context = (call.args[0], call.given(1, "other")), call.context
    met = [
        (soft, rest)
        for one, rest in (pair, pair[::-1])
        if (soft := context.soft_value(one)) and soft.weights is not None
    ]
    if len(met) != 1 or call.true.is_floating_point():
        return None
    soft, held = met[0][0], context.real(met[0][1])
    if soft.weights is None or not isinstance(held, Tensor) or not held.numel() or held.detach().abs().max() > 1:
        return None
    return SoftValue(held * soft.value, held.unsqueeze(-1) * soft.weights, partial=True)


def _either(call: Call) -> Any:
    """Of labels of which conditions leave one: each is meant as much as it is by itself."""
    met = [soft for one in (call.args[0], call.given(1, "other")) if (soft := call.context.label(one)) is not None]
    weights = as_wide([soft.weights for soft in met if soft.weights is not None])
    if len(weights) < 2 or not any(soft.partial for soft in met):
        return None
    return SoftValue(met[0].value + met[1].value, weights[0] + weights[1], partial=True)


def _computed(func: Callable[[Any, Any], Tensor]) -> Rule:
    """A function of a label and of a number or another label: each result is meant as much as what gives it."""

    def rule(call: Call) -> Any:
        one, other = call.args[0], call.given(1, "other")
        if call.context.label(one) is None and call.context.label(other) is None:
            return None
        first, second = (_values(call.context, operand, call.true.device) for operand in (one, other))
        if first is None or second is None:
            return None
        (a, p), (b, q) = first, second
        results = func(a.unsqueeze(-1), b.unsqueeze(-2))
        if results.shape[-1] * results.shape[-2] > MOST or not results.numel() or results.max() < 0:
            return None
        weights = torch.ones((), device=results.device) if p is None else p.unsqueeze(-1)
        weights = weights if q is None else weights * q.unsqueeze(-2)
        shape = (*call.true.shape, *results.shape[-2:])
        found = moved(weights.expand(shape).flatten(-2), results.expand(shape).flatten(-2))
        if found is None:
            return None
        return SoftValue(found @ torch.arange(found.shape[-1], device=found.device, dtype=found.dtype), found)

    return rule


def _values(context: SurrogateContext, operand: Any, device: torch.device) -> tuple[Tensor, Tensor | None] | None:
    """The values that an operand may have (..., K) and how much each is meant; None where they are not known."""
    soft, found = context.soft_value(operand), context.label(operand)
    if found is not None and found.weights is not None:
        missing = (1 - found.weights.sum(-1, keepdim=True)).clamp_min(0)  # what no label means is 0
        weights = torch.cat([found.weights[..., :1] + missing, found.weights[..., 1:]], -1)
        return torch.arange(weights.shape[-1], device=weights.device), weights
    if soft is not None and (soft.bit or operand.dtype == torch.bool):
        return torch.arange(2, device=operand.device), torch.stack([1 - soft.value, soft.value], -1)
    if context.carries(operand):
        return None
    return torch.as_tensor(operand, device=device).unsqueeze(-1), None


def _summed(call: Call) -> Any:
    """The sum, or the largest, of labels that conditions leave, as :func:`_either`."""
    soft, dim = call.soft_value(0), call.given(1, "dim")
    if soft is None or soft.weights is None or not isinstance(dim, int) or not soft.partial:
        return None
    dim, keep = dim % call.args[0].ndim, call.given(2, "keepdim", False)
    found = SoftValue(soft.value.sum(dim, keep), soft.weights.sum(dim, keep), partial=True)
    return (found, None) if isinstance(call.true, tuple) else found


def _filled(call: Call) -> tuple[Any, ...]:
    """``masked_fill`` as the arguments of ``where``."""
    x, mask, value = call.in_order()[:3]
    return mask, value, x


def _or_else(rule: Rule, other: Rule) -> Rule:
    """``other`` where ``rule`` does not apply."""

    def first(call: Call) -> Any:
        found = rule(call)
        return other(call) if found is None else found

    return first


def _differing(call: Call) -> Any:
    """``cdist`` with p = 0: how many elements differ."""
    if call.given(2, "p", 2.0) != 0:
        return None
    context, a, b = call.context, call.args[0], call.given(1, "x2")
    pair = context.real(a).unsqueeze(-2), context.real(b).unsqueeze(-3)
    return (1 - equal(call.like(*pair))).sum(-1)


def _computed_else(func: Callable[[Any, Any], Tensor], other: Rule) -> Rule:
    return _or_else(_computed(func), other)


_equal = _or_else(extreme("max", "min"), alike)

LABEL_ARITHMETIC: dict[str, Rule] = {
    **named(_or_else(_masked, _computed(torch.mul)), "mul", "multiply", "rmul"),
    **named(_or_else(_either, _computed_else(torch.bitwise_or, INTEGER_RULES["or"])), "or", "bitwise_or"),
    **named(_or_else(_either, _computed(torch.maximum)), "maximum"),
    **named(_or_else(_either, _computed(torch.add)), "add", "radd"),
    **named(_computed(torch.minimum), "minimum"),
    **named(_computed(torch.sub), "sub", "subtract"),
    **named(_computed(lambda a, b: b - a), "rsub"),
    **named(_computed_else(torch.bitwise_and, INTEGER_RULES["and"]), "and", "bitwise_and"),
    **named(_computed_else(torch.bitwise_xor, INTEGER_RULES["xor"]), "xor", "bitwise_xor"),
    **named(_computed_else(torch.bitwise_right_shift, INTEGER_RULES["rshift"]), "rshift", "bitwise_right_shift"),
    **named(_computed_else(torch.bitwise_left_shift, INTEGER_RULES["lshift"]), "lshift", "bitwise_left_shift"),
    **named(_computed_else(torch.floor_divide, FLOAT_RULES["floordiv"]), "floordiv", "floor_divide"),
    **named(_computed_else(torch.remainder, FLOAT_RULES["mod"]), "mod", "remainder"),
    **named(_equal, "eq"),
    **named(lambda call: 1 - _equal(call), "ne", "not_equal"),
    **named(_or_else(extreme("max"), FLOAT_RULES["ge"]), "ge", "greater_equal"),
    **named(_or_else(extreme("min"), FLOAT_RULES["le"]), "le", "less_equal"),
    **named(_differing, "cdist"),
    **named(_or_else(choice, FLOAT_RULES["where"]), "where"),
    **named(_or_else(lambda call: choice(call.like(*_filled(call))), FLOAT_RULES["masked_fill"]), "masked_fill"),
    **named(_summed, "sum", "amax"),
    **named(_or_else(_summed, PLACE_RULES["max"]), "max"),
}
"""The rule of each operation, by its name without leading or trailing underscores."""
