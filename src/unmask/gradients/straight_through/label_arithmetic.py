"""Surrogates of arithmetic by which votes choose among labels: products with conditions, or, where, sum, maximum.

How much each class is meant goes through all of them; what is meant by no label adds nothing. The rules have the form
of those in ``floats``.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from unmask.gradients.straight_through.context import Call, SoftValue
from unmask.gradients.straight_through.floats import FLOAT_RULES, Rule, named
from unmask.gradients.straight_through.indices import PLACE_RULES
from unmask.gradients.straight_through.integers import INTEGER_RULES
from unmask.gradients.straight_through.labels import as_weights

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
    return SoftValue(held * soft.value, held.unsqueeze(-1) * soft.weights)


def _either(call: Call) -> Any:
    """Of labels of which conditions leave one: each is meant as much as it is by itself."""
    softs = [call.context.soft_value(one) for one in (call.args[0], call.given(1, "other"))]
    met = [soft for soft in softs if soft is not None and soft.weights is not None]
    weights = [soft.weights for soft in met if soft.weights is not None]
    if len(weights) < 2 or weights[0].shape[-1] != weights[1].shape[-1]:
        return None
    return SoftValue(met[0].value + met[1].value, weights[0] + weights[1])


def _chosen(call: Call) -> Any:
    """By a condition, one of two labels; a number that is none of the model's counts as a label too."""
    if len(call.args) < 3 or call.true.is_floating_point():
        return None
    condition, pair, context = call.args[0], call.args[1:3], call.context
    known = next((s.weights for s in map(context.soft_value, pair) if s is not None and s.weights is not None), None)
    one, other = (None if known is None else as_weights(context, label, known) for label in pair)
    if one is None or other is None or one.shape[-1] != other.shape[-1]:
        return None
    held = context.real(condition).to(one.dtype)
    value = held * context.real(pair[0]) + (1 - held) * context.real(pair[1])
    held = held.unsqueeze(-1)
    return SoftValue(value, held * one + (1 - held) * other)


def _summed(call: Call) -> Any:
    """The sum, or the largest, of labels that conditions leave, as :func:`_either`."""
    soft, dim = call.soft_value(0), call.given(1, "dim")
    if soft is None or soft.weights is None or not isinstance(dim, int):
        return None
    dim, keep = dim % call.args[0].ndim, call.given(2, "keepdim", False)
    found = SoftValue(soft.value.sum(dim, keep), soft.weights.sum(dim, keep))
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


LABEL_ARITHMETIC: dict[str, Rule] = {
    **named(_masked, "mul", "multiply", "rmul"),
    **named(_or_else(_either, INTEGER_RULES["or"]), "or", "bitwise_or"),
    **named(_either, "add", "radd", "maximum"),
    **named(_or_else(_chosen, FLOAT_RULES["where"]), "where"),
    **named(_or_else(lambda call: _chosen(call.like(*_filled(call))), FLOAT_RULES["masked_fill"]), "masked_fill"),
    **named(_summed, "sum", "amax"),
    **named(_or_else(_summed, PLACE_RULES["max"]), "max"),
}
"""The rule of each operation, by its name without leading or trailing underscores."""
