"""Reading a table at computed places gives the mean of its entries, as much as each place is meant.

Where the entries are places themselves, such as labels in a permutation, the result is meant by the same weights,
moved to the places that the entries name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unmask.gradients.straight_through.calls import Call
from unmask.gradients.straight_through.context import SoftValue, SurrogateContext
from unmask.gradients.straight_through.floats import Rule, named
from unmask.gradients.straight_through.labels import moved, rearranged
from unmask.gradients.straight_through.places.addresses import Spot, along, spots
from unmask.gradients.straight_through.places.order import part_of_order

__all__ = ["READ_RULES"]


def _read(context: SurrogateContext, table: Tensor, found: Sequence[Spot], plain: Tensor) -> SoftValue:
    """What a table gives at ``found``; ``plain`` is the surrogate of what it gives at the true places.

    A table of floats that depend on the input keeps the gradient of its true places. To first order, a change of
    several places is the sum of the changes of each.
    """
    value, meant = plain, None
    entries = context.real(table).reshape(-1)
    for number, spot in enumerate(found):
        weights = spot.soft.weights
        if weights is None:
            value, known = value + _rise(entries, spot), None
        else:
            weights = weights[..., : spot.size]
            at = spot.at_first(weights.shape[-1])
            whole = number == 0 and not table.is_floating_point()
            mean = (weights * (entries if whole else entries.detach())[at].to(weights.dtype)).sum(-1)
            value, known = mean if whole else value + mean - mean.detach(), _named(context, table, weights, at)
        if number == 0:
            meant = known
        elif meant is not None:
            same = known is not None and known.shape == meant.shape
            meant = meant + known - known.detach() if known is not None and same else None
    return SoftValue(value, meant)


def _named(context: SurrogateContext, table: Tensor, weights: Tensor, at: Tensor) -> Tensor | None:
    """How much each place is meant that the entries at these addresses name; None where they name none."""
    known = context.label(table)
    if known is not None and known.weights is not None:
        return (weights.unsqueeze(-1) * known.weights.reshape(-1, known.weights.shape[-1])[at]).sum(-2)
    if table.is_floating_point() or context.carries(table):
        return None
    return moved(weights, table.reshape(-1)[at])


def _rise(entries: Tensor, spot: Spot) -> Tensor:
    """The slope of a table between the neighbours of the place, times the continuous position."""
    place = spot.place()
    above, below = (place + 1).clamp_max(spot.size - 1), (place - 1).clamp_min(0)
    rise = (entries[spot.at(above)] - entries[spot.at(below)]).detach()
    return rise * spot.soft.value / (above - below).clamp_min(1)


def _item(call: Call) -> Any:
    """``table[i]`` and ``table[i, ..., j]`` at computed places, ``x[mask]`` as it is."""
    context, table, index = call.context, call.args[0], call.args[1]
    part = part_of_order(call)
    if part is not None:
        return part
    rows = _rows(context, table, index)
    if rows is not None:
        return rows
    found = spots(context, table.shape, index)
    if found:
        return _read(context, table, found, context.real(table)[index])
    kept = rearranged("__getitem__")(call)
    indices = index if isinstance(index, tuple) else (index,)
    return context.soft(table)[index] if kept is None and any(map(context.soft_value, indices)) else kept


def _rows(context: SurrogateContext, table: Tensor, index: Any) -> Tensor | SoftValue | None:
    """Whole rows of a table: the same as :func:`_read`, without a copy of the table for each place."""
    soft = context.soft_value(index[0] if isinstance(index, tuple) and len(index) == 1 else index)
    if soft is None or soft.weights is None:
        return None
    if context.carries(table) and not table.is_floating_point():
        return None
    weights = soft.weights[..., : len(table)]
    first = context.real(table)[: weights.shape[-1]].detach()
    value: Tensor = torch.tensordot(weights, first.to(weights.dtype), 1)
    if table.is_floating_point():
        plain: Tensor = context.real(table)[index]
        return plain + value - value.detach()
    return SoftValue(value, moved(weights, table[: weights.shape[-1]])) if table.ndim == 1 else None


def _embedding(call: Call) -> Any:
    return _item(call.like(call.given(1, "weight"), call.args[0]))


def _take(call: Call) -> Any:
    context, table, index = call.context, call.args[0], call.given(1, "index")
    found = spots(context, (table.numel(),), index)
    if not found:
        return rearranged("take")(call)
    return _read(context, table, found, context.real(table).reshape(-1)[index])


def _gather(call: Call) -> Any:
    table, dim, index = call.in_order()[:3]
    return _picked(call, table, torch.gather, (dim, index), "gather")


def _take_along(call: Call) -> Any:
    table, index, dim = call.args[0], call.given(1, "indices"), call.given(2, "dim")
    if dim is None:
        return _take(call.like(table, index))
    return _picked(call, table, lambda t, dim, index: torch.take_along_dim(t, index, dim), (dim, index), None)


def _picked(call: Call, table: Tensor, pick: Callable[..., Tensor], where: tuple[int, Tensor], name: str | None) -> Any:
    """One entry for each element of an index along an axis."""
    found = along(call.context, table.shape, *where, pick=pick)
    if found:
        return _read(call.context, table, found, pick(call.context.real(table), *where))
    return rearranged(name)(call) if name else None


def _index_select(call: Call) -> Any:
    table, dim, index = call.in_order()[:3]
    every = [slice(None)] * (dim % table.ndim)
    return _item(call.like(table, (*every, index) if every else index))


READ_RULES: dict[str, Rule] = {
    **named(_item, "getitem"),
    **named(_embedding, "embedding"),
    **named(_take, "take"),
    **named(_gather, "gather"),
    **named(_take_along, "take_along_dim"),
    **named(_index_select, "index_select"),
}
"""The rule of each operation, by its name without leading or trailing underscores."""
