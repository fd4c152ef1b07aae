"""Surrogates of operations on labels: a label is replaced by class weights, the softmax of its scores.

The rules have the form of those in ``floats``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.gradients.straight_through.context import SoftValue, SurrogateContext, each
from unmask.gradients.straight_through.floats import Args, Kwargs, Rule, equal, named

__all__ = ["LABEL_RULES", "rearranged"]


def rearranged(name: str) -> Rule:
    """Rearranged or selected labels keep their class weights."""

    def rule(context: SurrogateContext, true: Any, args: Args, kwargs: Kwargs) -> Any:
        soft = context.soft_value(args[0])
        if soft is None or soft.weights is None:
            return None
        weights = soft.weights.flatten(0, -2)
        at = torch.arange(args[0].numel(), device=args[0].device).view(args[0].shape)
        return each(
            lambda place: SoftValue(soft.value.flatten()[place], weights[place]),
            getattr(Tensor, name)(at, *args[1:], **kwargs),
        )

    return rule


def _joined(func: Callable[..., Tensor]) -> Rule:
    """Stacked labels keep their class weights."""

    def rule(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
        softs = [context.soft_value(part) for part in args[0]]
        dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % true.ndim
        weights = [soft.weights for soft in softs if soft is not None and soft.weights is not None]
        if len(weights) < len(softs) or len({meant.shape[-1] for meant in weights}) > 1:
            return None
        values = [soft.value for soft in softs if soft is not None]
        return SoftValue(func(values, dim), func(weights, dim))

    return rule


def _mode(context: SurrogateContext, true: Any, args: Args, kwargs: Kwargs) -> Any:
    """What most are: labels are meant as much as all of them together mean it, other numbers by their mean."""
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", -1)) % args[0].ndim
    keep = args[2] if len(args) > 2 else kwargs.get("keepdim", False)
    soft = context.soft_value(args[0])
    if soft is None or soft.weights is None:
        return context.real(args[0]).mean(dim, keep), None
    return SoftValue(soft.value.mean(dim, keep), soft.weights.mean(dim, keep)), None


def _equal(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    """Of labels how much the same is meant."""
    pair = (args[0], args[1] if len(args) > 1 else kwargs["other"])
    known = next((s.weights for s in map(context.soft_value, pair) if s is not None and s.weights is not None), None)
    one, other = (None if known is None else _as_weights(context, label, known) for label in pair)
    if one is None or other is None or one.shape[-1] != other.shape[-1]:
        return equal(context, true, pair, {})
    return (one * other).sum(-1)


def _unequal(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    return 1 - _equal(context, true, args, kwargs)


def _as_weights(context: SurrogateContext, label: Any, like: Tensor) -> Tensor | None:
    """How much each place is meant (*shape, K) by a label; None where it is none of the K places of ``like``."""
    soft, places = context.soft_value(label), like.shape[-1]
    if soft is not None:
        return soft.weights
    label = torch.as_tensor(label, device=like.device)
    if label.is_floating_point() or not 0 <= int(label.min()) <= int(label.max()) < places:
        return None
    return F.one_hot(label.long(), places).to(like.dtype)


def _multinomial(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    """The class weights of a sample are the probabilities that it is drawn with."""
    shares = context.real(args[0])
    weights = (shares / shares.sum(-1, keepdim=True)).unsqueeze(-2).expand(*true.shape, -1)
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
    **named(_unequal, "ne", "not_equal"),
}
"""The rule of each operation, by its name without leading or trailing underscores."""
