"""Surrogates of operations on labels: a label is replaced by class weights, the softmax of its scores.

The rules have the form of those in ``floats``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.gradients.straight_through.context import Call, SoftValue, SurrogateContext, each
from unmask.gradients.straight_through.floats import Rule, equal, named

__all__ = ["LABEL_RULES", "as_weights", "rearranged"]


def rearranged(name: str) -> Rule:
    """Rearranged or selected labels keep their class weights."""

    def rule(call: Call) -> Any:
        soft, labels = call.soft_value(0), call.args[0]
        if soft is None or soft.weights is None:
            return None
        weights = soft.weights.flatten(0, -2)
        at = torch.arange(labels.numel(), device=labels.device).view(labels.shape)
        return each(
            lambda place: SoftValue(soft.value.flatten()[place], weights[place]),
            getattr(Tensor, name)(at, *call.args[1:], **call.kwargs),
        )

    return rule


def _joined(func: Callable[..., Tensor]) -> Rule:
    """Stacked labels keep their class weights."""

    def rule(call: Call) -> Any:
        softs = [call.context.soft_value(part) for part in call.args[0]]
        dim = call.given(1, "dim", 0) % call.true.ndim
        weights = [soft.weights for soft in softs if soft is not None and soft.weights is not None]
        if len(weights) < len(softs) or len({meant.shape[-1] for meant in weights}) > 1:
            return None
        values = [soft.value for soft in softs if soft is not None]
        return SoftValue(func(values, dim), func(weights, dim))

    return rule


def _mode(call: Call) -> Any:
    """What most are: labels are meant as much as all of them together mean it, other numbers by their mean."""
    dim, keep = call.given(1, "dim", -1) % call.args[0].ndim, call.given(2, "keepdim", False)
    soft = call.soft_value(0)
    if soft is None or soft.weights is None:
        return call.real(0).mean(dim, keep), None
    return SoftValue(soft.value.mean(dim, keep), soft.weights.mean(dim, keep)), None


def _equal(call: Call) -> Any:
    """Of labels how much the same is meant."""
    pair, context = (call.args[0], call.given(1, "other")), call.context
    known = next((s.weights for s in map(context.soft_value, pair) if s is not None and s.weights is not None), None)
    one, other = (None if known is None else as_weights(context, label, known) for label in pair)
    if one is None or other is None or one.shape[-1] != other.shape[-1]:
        return equal(call)
    return (one * other).sum(-1)


def as_weights(context: SurrogateContext, label: Any, like: Tensor) -> Tensor | None:
    """How much each place is meant (*shape, K) by a label; None where it is none of the K places of ``like``."""
    soft, places = context.soft_value(label), like.shape[-1]
    if soft is not None:
        return soft.weights
    label = torch.as_tensor(label, device=like.device)
    if label.is_floating_point() or not 0 <= int(label.min()) <= int(label.max()) < places:
        return None
    return F.one_hot(label.long(), places).to(like.dtype)


def _multinomial(call: Call) -> Any:
    """The class weights of a sample are the probabilities that it is drawn with."""
    shares = call.real(0)
    weights = (shares / shares.sum(-1, keepdim=True)).unsqueeze(-2).expand(*call.true.shape, -1)
    return SoftValue(weights @ torch.arange(weights.shape[-1], device=weights.device, dtype=weights.dtype), weights)


_ARRANGING = (
    *("unsqueeze", "squeeze", "view", "reshape", "flatten", "expand", "repeat", "t", "transpose", "permute", "movedim"),
    *("unbind", "split", "chunk", "clone", "contiguous"),
)

LABEL_RULES: dict[str, Rule] = {
    **{name: rearranged(name) for name in _ARRANGING},
    **named(_joined(torch.stack), "stack"),
    **named(_joined(torch.cat), "cat", "concat", "concatenate"),
    **named(_mode, "mode"),
    **named(_multinomial, "multinomial"),
    **named(_equal, "eq"),
    **named(lambda call: 1 - _equal(call), "ne", "not_equal"),
}
"""The rule of each operation, by its name without leading or trailing underscores."""
