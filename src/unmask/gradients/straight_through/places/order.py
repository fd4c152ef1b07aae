"""Operations whose results are places: buckets, the largest and the smallest, and orders."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unmask.gradients.straight_through.calls import Call
from unmask.gradients.straight_through.context import Order, SoftValue
from unmask.gradients.straight_through.floats import Rule, difference, named, soft_choice, step
from unmask.gradients.straight_through.places.addresses import filled

__all__ = ["ORDER_RULES", "extreme", "part_of_order"]

_NEAR = 0.2
"""Share of the spread of distances up to which another place is nearly as near as the nearest."""

_SURE = 1e-4
"""Of the weights of places, the share beside the largest below which their slopes are lost."""

_MOST_SORTED = 256
"""Places of an order, at most, of which each is meant: it takes memory for each entry at each of them."""


def _position(x: Any, boundaries: Tensor, bucket: Tensor) -> Tensor | None:
    """The position between the boundaries, 1 a bucket."""
    if boundaries.ndim != 1 or len(boundaries) == 0 or not isinstance(x, Tensor):
        return None
    if len(boundaries) == 1:
        return bucket + x - boundaries
    inner = bucket.clamp(1, len(boundaries) - 1)
    low, high = boundaries[inner - 1], boundaries[inner]
    return inner - 0.5 + (x - low) / (high - low).clamp_min(torch.finfo(x.dtype).tiny ** 0.5)


def _argument_of(sign: int) -> Rule:
    """The index of the largest entry (or smallest): the softmax says the weight of each index."""

    def rule(call: Call) -> Any:
        x, dim, true = _sorted(call), call.given(1, "dim"), call.true
        if dim is None and isinstance(true, Tensor) and true.dtype == torch.int64:
            return _meant(_scores(sign, call.real(0).flatten(), 0), 0, true)
        if not isinstance(dim, int) or x is None:
            return None
        meant = _meant(_scores(sign, x, dim), dim, true[1] if isinstance(true, tuple) else true)
        return (_values(call, dim, true[1]), meant) if isinstance(true, tuple) else meant

    return rule


def extreme(*kinds: str) -> Rule:
    """Scores compared with their own largest ("max") or smallest ("min"): the one-hot code of ``argmax``."""

    def rule(call: Call) -> Any:
        pair = (call.args[0], call.given(1, "other"))
        for scores, limit in (pair, pair[::-1]) if len(kinds) > 1 else (pair,):
            dim = _reduced(scores, limit)
            for kind in kinds if dim is not None else ():
                if torch.equal(limit, getattr(scores, f"a{kind}")(dim, keepdim=limit.ndim > 0)):
                    assert dim is not None
                    return soft_choice(_scores(1 if kind == "max" else -1, scores, dim), dim, _SURE)
        return None

    return rule


def _reduced(scores: Any, limit: Any) -> int | None:
    """The dimension of scores that a limit may be taken over."""
    if not all(isinstance(t, Tensor) and t.is_floating_point() for t in (scores, limit)):
        return None
    if scores.ndim == 1 and limit.ndim == 0:
        return 0
    unlike = [dim for dim, pair in enumerate(zip(scores.shape, limit.shape, strict=False)) if len(set(pair)) > 1]
    one = scores.ndim == limit.ndim and len(unlike) == 1 and limit.shape[unlike[0]] == 1
    return unlike[0] if one else None


def _scores(sign: int, x: Tensor, dim: int) -> Tensor:
    """What is largest where the index is: scores as they are; distances, which have any scale, by their spread."""
    return x if sign > 0 else -x / _nearness(x, dim)


def _nearness(x: Tensor, dim: int) -> Tensor:
    return _NEAR * x.detach().std(dim, keepdim=True).clamp_min(1e-12)


def _sorted(call: Call) -> Tensor | None:
    """The scores of an order; counts as floats with their gradient; None of labels, and of what is true or false."""
    x, soft = call.args[0], call.soft_value(0)
    if soft is not None and (soft.weights is not None or soft.order_of is not None or soft.bit):
        return None
    if soft is not None and x.dtype == torch.bool:
        return None
    scores: Tensor = call.real(0) if soft is None else call.context.exact(x, soft.value.dtype)
    return scores


def _values(call: Call, dim: int, index: Tensor) -> Tensor | None:
    """What sorted counts are; floats keep their own gradient."""
    soft = call.soft_value(0)
    if soft is None or call.args[0].is_floating_point():
        return None
    at = index if index.ndim == soft.value.ndim else index.unsqueeze(dim)
    found = soft.value.gather(dim, at)
    return found if index.ndim == soft.value.ndim else found.squeeze(dim)


def _topk(call: Call) -> Any:
    """Of several places each stands for all of them."""
    x, index = _sorted(call), call.true[1]
    if x is None:
        return None
    score, dim = x if call.given(3, "largest", True) else -x, call.given(2, "dim", -1) % x.ndim
    values = _values(call, dim, index)
    if call.given(1, "k") == 1:
        return values, _meant(score, dim, index)
    score = score.movedim(dim, -1)
    width = score.detach().std(-1, keepdim=True).clamp_min(1e-12)  # distances have any scale
    meant = _meant(score / width, -1, index.movedim(dim, -1)[..., :1])
    shape = index.movedim(dim, -1).shape
    assert meant.weights is not None
    weights = meant.weights.expand(*shape, -1)
    return values, SoftValue(meant.value.expand(shape).movedim(-1, dim), weights.movedim(-2, dim))


def _meant(score: Tensor, dim: int, index: Tensor) -> SoftValue:
    weights = soft_choice(score, dim, _SURE).movedim(dim, -1)
    if index.ndim == score.ndim:
        weights = weights.unsqueeze(dim % score.ndim)
    return _as_places(weights)


def _as_places(weights: Tensor) -> SoftValue:
    return SoftValue(weights @ torch.arange(weights.shape[-1], device=weights.device, dtype=weights.dtype), weights)


def _sort(call: Call) -> Any:
    """The values of a sort keep their gradient; its index is that of ``argsort``."""
    dim, _ = _sort_arguments(call)
    order = _order(call, call.true[1])
    return None if order is None else (_values(call, dim, call.true[1]), order)


def _argsort(call: Call) -> Any:
    return _order(call, call.true)


def _order(call: Call, index: Tensor) -> SoftValue | Tensor | None:
    """The k-th place of an order; of a long order what :func:`part_of_order` needs."""
    dim, down = _sort_arguments(call)
    scores = _sorted(call)
    if scores is None:
        return _ranks(call, dim)
    order = Order(scores.movedim(dim, -1), down, dim)
    count = order.scores.shape[-1]
    if count < 2:
        return None
    if count > _MOST_SORTED:
        return SoftValue(index + 0 * order.scores.movedim(-1, dim), order_of=order)
    return _places(order, index, torch.arange(count, device=index.device))


def _places(order: Order, index: Tensor, place: Tensor) -> SoftValue:
    """Some places (P,) of an order, where ``index`` is: an entry is meant the more, the less its score differs.

    Of the largest that is the softmax, as of ``argmax``; of the smallest that of ``argmin``.
    """
    score, count = order.scores, order.scores.shape[-1]
    at = index.movedim(order.dim, -1)
    apart = (score.gather(-1, at).unsqueeze(-1) - score.unsqueeze(-2)).abs()  # (*, place, entry)
    low = (count - 1 - place if order.down else place) < count // 2
    width = torch.where(low.unsqueeze(-1), _nearness(score, -1).unsqueeze(-1), torch.ones_like(apart))
    weights = soft_choice((-apart / width).flatten(0, -2), -1, _SURE).view(*apart.shape)
    value = _as_places(weights).value.movedim(-1, order.dim)
    return SoftValue(value, weights.movedim(-2, order.dim), order_of=order)


def part_of_order(call: Call) -> SoftValue | None:
    """The first, the last, or other places that are cut out of a long order."""
    soft, index, entries = call.soft_value(0), call.args[0], call.args[1]
    if soft is None or soft.order_of is None or not soft.long_order:
        return None
    order = soft.order_of
    cut = filled([*entries] if isinstance(entries, tuple) else [entries], index.ndim)
    cut += [slice(None)] * (index.ndim - len(cut))
    chosen = cut[order.dim]
    if len(cut) > index.ndim or any(one != slice(None) for at, one in enumerate(cut) if at != order.dim):
        return None
    count = order.scores.shape[-1]
    if isinstance(chosen, int):
        chosen = slice(chosen % count, chosen % count + 1)
    if not isinstance(chosen, slice):
        return None
    place = torch.arange(count, device=index.device)[chosen]
    if not 0 < len(place) <= _MOST_SORTED:
        return None
    found = _places(order, index.index_select(order.dim, place), place)
    if call.true.ndim < index.ndim:
        assert found.weights is not None
        return SoftValue(found.value.squeeze(order.dim), found.weights.squeeze(order.dim))
    return SoftValue(found.value, found.weights)


def _ranks(call: Call, dim: int) -> Tensor | None:
    """The order of an order says how many scores are below each."""
    _, down = _sort_arguments(call)
    soft, index = call.soft_value(0), call.args[0].movedim(dim, -1)
    if soft is None or soft.order_of is None or soft.order_of.scores.shape != index.shape:
        return None
    score = -soft.order_of.scores if soft.order_of.down else soft.order_of.scores
    if score.shape[-1] > _MOST_SORTED:
        return None
    below = step(call, difference(score.unsqueeze(-1), score.unsqueeze(-2))).sum(-1)
    return (below.flip(-1) if down else below).movedim(-1, dim)


def _sort_arguments(call: Call) -> tuple[int, bool]:
    """The dimension, and whether from the largest down."""
    x, given = call.args[0], list(call.args[1:])
    if given and isinstance(given[0], bool):
        given.pop(0)
    dim = call.kwargs.get("dim", given[0] if given else -1)
    down = call.kwargs.get("descending", given[1] if len(given) > 1 else False)
    return dim % x.ndim, bool(down)


ORDER_RULES: dict[str, Rule] = {
    **named(lambda call: _position(call.real(0), call.args[1], call.true), "bucketize"),
    **named(lambda call: _position(call.real(1), call.args[0], call.true), "searchsorted"),
    **named(_argument_of(1), "argmax", "max"),
    **named(_argument_of(-1), "argmin", "min"),
    **named(_topk, "topk"),
    **named(_sort, "sort"),
    **named(_argsort, "argsort"),
}
"""The rule of each operation, by its name without leading or trailing underscores."""
