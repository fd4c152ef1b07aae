"""Surrogates of operations on labels: a label is replaced by class weights, the softmax of its scores.

The rules have the form of those in ``floats``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.gradients.straight_through.calls import Call, each
from unmask.gradients.straight_through.context import SoftValue, SurrogateContext
from unmask.gradients.straight_through.floats import Rule, equal, named

__all__ = [
    "LABEL_RULES",
    "MOST",
    "alike",
    "as_weights",
    "as_wide",
    "choice",
    "fitted",
    "label_pair",
    "moved",
    "rearranged",
]

MOST = 2**14
"""Numbers from here on are no places, of which each would have a weight."""


def rearranged(name: str) -> Rule:
    """Rearranged or selected labels keep their class weights."""

    def rule(call: Call) -> Any:
        soft, labels = call.label(0), call.args[0]
        if soft is None or soft.weights is None:
            return None
        weights = soft.weights.reshape(-1, soft.weights.shape[-1])
        at = torch.arange(labels.numel(), device=labels.device).view(labels.shape)
        return each(
            lambda place: SoftValue(soft.value.reshape(-1)[place], weights[place], partial=soft.partial),
            getattr(Tensor, name)(at, *call.args[1:], **call.kwargs),
        )

    return rule


def _joined(func: Callable[..., Tensor]) -> Rule:
    """Stacked labels keep their class weights."""

    def rule(call: Call) -> Any:
        softs = [call.context.label(part) for part in call.args[0]]
        dim = call.given(1, "dim", 0) % call.true.ndim
        weights = as_wide([soft.weights for soft in softs if soft is not None and soft.weights is not None])
        if len(weights) < len(softs):
            return None
        values = [soft.value for soft in softs if soft is not None]
        partial = any(soft.partial for soft in softs if soft is not None)
        return SoftValue(func(values, dim), func(weights, dim), partial=partial)

    return rule


def _mode(call: Call) -> Any:
    """What most are: labels are meant as much as all of them together mean it, other numbers by their mean."""
    dim, keep = call.given(1, "dim", -1) % call.args[0].ndim, call.given(2, "keepdim", False)
    soft = call.label(0)
    if soft is None or soft.weights is None:
        return call.real(0).mean(dim, keep), None
    return SoftValue(soft.value.mean(dim, keep), soft.weights.mean(dim, keep), partial=soft.partial), None


def alike(call: Call) -> Any:
    """Of labels how much the same is meant."""
    pair = label_pair(call.context, call.args[0], call.given(1, "other"))
    return equal(call) if pair is None else (pair[0] * pair[1]).sum(-1)


def _masked_scatter(call: Call) -> Any:
    """Labels that are written in order where a mask holds; it is not known what they would be elsewhere."""
    x, mask, source = call.in_order()[:3]
    found = label_pair(call.context, x, source)
    if found is None:
        return None
    at = torch.arange(source.numel(), device=x.device)
    at = torch.zeros(x.shape, dtype=at.dtype, device=x.device).masked_scatter(mask, at)
    held = call.context.real(mask).expand(x.shape)
    before = call.real(0)
    value = torch.where(mask, call.context.real(source).reshape(-1)[at] - before, 0.0)
    change = torch.where(mask.unsqueeze(-1), found[1].reshape(-1, found[1].shape[-1])[at] - found[0], 0.0)
    return SoftValue(before + held * value, found[0] + held.unsqueeze(-1) * change)


def choice(call: Call) -> Any:
    """By a condition, one of two labels; a number that is none of the model's counts as a label too."""
    if len(call.args) < 3:
        return None
    condition, pair, context = call.args[0], call.args[1:3], call.context
    found = label_pair(context, *pair)
    if found is None:
        return None
    held = context.real(condition).to(found[0].dtype)
    value = held * context.real(pair[0]) + (1 - held) * context.real(pair[1])
    held = held.unsqueeze(-1)
    partial = any(soft.partial for soft in map(context.label, pair) if soft is not None)
    return SoftValue(value, held * found[0] + (1 - held) * found[1], partial=partial)


def label_pair(context: SurrogateContext, one: Any, other: Any) -> tuple[Tensor, Tensor] | None:
    """How much each place is meant by two labels, of which one may be fixed; None where this is not known."""
    known = next((s.weights for s in map(context.label, (one, other)) if s is not None), None)
    if known is None:
        return None
    found = [weights for label in (one, other) if (weights := as_weights(context, label, known)) is not None]
    return tuple(as_wide(found)) if len(found) == 2 else None  # type: ignore[return-value]


def as_weights(context: SurrogateContext, label: Any, like: Tensor) -> Tensor | None:
    """How much each place (at least as many as of ``like``) is meant by a label; None where it is no place."""
    soft = context.label(label)
    if soft is not None or context.carries(label):
        return soft.weights if soft is not None else None
    return fixed(torch.as_tensor(label, device=like.device), like.shape[-1], like.dtype)


def fixed(label: Tensor, least: int, dtype: torch.dtype) -> Tensor | None:
    """One-hot codes of numbers that do not depend on the input; None where these are no places."""
    if not label.numel() or not 0 <= float(label.min()) <= float(label.max()) < MOST:
        return None
    if label.is_floating_point() and not torch.equal(label, label.round()):
        return None
    label = label.long()
    return F.one_hot(label, max(least, int(label.max()) + 1)).to(dtype)


def moved(weights: Tensor, places: Tensor) -> Tensor | None:
    """Weights (*shape, K) of what each of K places is renamed to; None where the names are no places."""
    if not places.numel() or float(places.max()) < 0:
        return None
    places = places.expand(weights.shape)
    if float(places.min()) < 0:
        places = torch.where(weights.detach() == 0, torch.zeros_like(places), places)  # those are never meant
    if not 0 <= float(places.min()) <= float(places.max()) < MOST:
        return None
    if places.is_floating_point() and not torch.equal(places, places.round()):
        return None
    empty = torch.zeros(*weights.shape[:-1], int(places.max()) + 1, dtype=weights.dtype, device=weights.device)
    return empty.scatter_add(-1, places.long(), weights)


def fitted(weights: Tensor, places: int) -> Tensor:
    """Weights of this many places; those that are new are not meant, and those beyond cannot be."""
    return F.pad(weights, (0, places - weights.shape[-1]))


def as_wide(found: list[Tensor]) -> list[Tensor]:
    """Weights of as many places as the widest of them have."""
    widest = max((weights.shape[-1] for weights in found), default=0)
    return [fitted(weights, widest) for weights in found]


def _multinomial(call: Call) -> Any:
    """The class weights of a sample are the probabilities that it is drawn with."""
    shares = call.real(0)
    weights = (shares / shares.sum(-1, keepdim=True)).unsqueeze(-2).expand(*call.true.shape, -1)
    return SoftValue(weights @ torch.arange(weights.shape[-1], device=weights.device, dtype=weights.dtype), weights)


_ARRANGING = (
    *("unsqueeze", "squeeze", "view", "reshape", "flatten", "expand", "repeat", "t", "transpose", "permute", "movedim"),
    *("unbind", "split", "chunk", "clone", "contiguous", "ravel", "flip", "roll", "tile", "narrow", "select"),
    *("swapaxes", "moveaxis", "broadcast_to", "expand_as", "view_as", "repeat_interleave", "masked_select"),
    *("unflatten", "diagonal"),
)

LABEL_RULES: dict[str, Rule] = {
    **{name: rearranged(name) for name in _ARRANGING},
    **named(lambda call: rearranged("t")(call.like(call.args[0])), "get T"),
    **named(_joined(torch.stack), "stack"),
    **named(_joined(torch.cat), "cat", "concat", "concatenate"),
    **named(_mode, "mode"),
    **named(_masked_scatter, "masked_scatter"),
    **named(_multinomial, "multinomial"),
}
"""The rule of each operation, by its name without leading or trailing underscores."""
