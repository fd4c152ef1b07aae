"""Shadows through operations on integers and booleans: arithmetic, bits, logic, indices and look-ups.

The rules have the form of those in ``_shadow_floats``. What has no rule here follows :func:`alike`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unmask.gradients._shadow import Shadow, World, each, hats, tensors
from unmask.gradients._shadow_floats import Args, Kwargs, Rule

__all__ = ["INTEGER_RULES", "alike"]


def alike(func: Callable[..., Any], world: World, true: Any, args: Args, kwargs: Kwargs) -> Any:
    """Arithmetic and shape operations: the shadow of the result is the same function of the shadows."""
    results = tensors(true)
    if not results or not any(map(world.shadow, tensors([args, kwargs]))):
        return None
    stand_in = world.exact if results[0].is_floating_point() else world.soft
    return func(*each(stand_in, args), **each(stand_in, kwargs))


def _shift(sign: int) -> Rule:
    def rule(world: World, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
        return world.real(args[0]) * 2.0 ** (sign * world.real(args[1]))

    return rule


def _and(world: World, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    """For integers a mask: it keeps the high bits, so the number changes as before."""
    a, b = map(world.real, args)
    if true.dtype == torch.bool:
        return a * b
    return a if world.carries(args[0]) else b


def _or(world: World, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    """For integers the joining of disjoint bits, which is their sum."""
    a, b = map(world.real, args)
    return a + b - a * b if true.dtype == torch.bool else a + b


def _xor(world: World, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    a, b = map(world.real, args)
    return a + b - 2 * a * b if true.dtype == torch.bool else a + b


def _not(world: World, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    return (1 if true.dtype == torch.bool else -1) - world.real(args[0])


def _any(world: World, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    return world.real(args[0]).amax(*args[1:], **kwargs)


def _all(world: World, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    return world.real(args[0]).amin(*args[1:], **kwargs)


def _bucketize(world: World, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    """The position between the boundaries, 1 a bucket."""
    return _position(world.real(args[0]), args[1], true)


def _searchsorted(world: World, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    return _position(world.real(args[1]), args[0], true)


def _position(x: Any, boundaries: Tensor, bucket: Tensor) -> Tensor | None:
    if boundaries.ndim != 1 or len(boundaries) == 0 or not isinstance(x, Tensor):
        return None
    if len(boundaries) == 1:
        return bucket + x - boundaries
    inner = bucket.clamp(1, len(boundaries) - 1)
    low, high = boundaries[inner - 1], boundaries[inner]
    return inner - 0.5 + (x - low) / (high - low).clamp_min(torch.finfo(x.dtype).tiny ** 0.5)


def _one_hot(world: World, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    return _places(world.shadow(args[0]), true.shape[-1])


def _places(shadow: Shadow | None, count: int) -> Tensor | None:
    if shadow is None:
        return None
    if shadow.weights is not None and shadow.weights.shape[-1] == count:
        return shadow.weights
    return hats(shadow.value, count)


def _scatter(world: World, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    """Writing one number at computed places: a one-hot code along ``dim``."""
    x, dim, index, value = (*args, *kwargs.values())[:4]
    places = _places(world.shadow(index), true.shape[dim])
    if places is None or isinstance(value, Tensor):
        return None
    return world.real(x) + value * places.sum(dim % true.ndim).movedim(-1, dim)


def _unsqueeze(world: World, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    shadow = world.shadow(args[0])
    if shadow is None:
        return None
    dim = (args[1] if len(args) > 1 else kwargs["dim"]) % true.ndim
    weights = None if shadow.weights is None else shadow.weights.unsqueeze(dim)
    return Shadow(shadow.value.unsqueeze(dim), weights)


def _argument_of(sign: int) -> Rule:
    """The index of the largest entry (or smallest): the softmax says how much each place is meant."""

    def rule(world: World, true: Any, args: Args, kwargs: Kwargs) -> Any:
        x, dim = world.real(args[0]), args[1] if len(args) > 1 else kwargs.get("dim")
        if dim is None and isinstance(true, Tensor) and true.dtype == torch.int64:
            return _meant(sign * x.flatten(), 0, true)
        if not isinstance(dim, int) or world.shadow(args[0]):
            return None
        return (None, _meant(sign * x, dim, true[1])) if isinstance(true, tuple) else _meant(sign * x, dim, true)

    return rule


def _topk(world: World, true: Any, args: Args, kwargs: Kwargs) -> Any:
    given = {"dim": -1, "largest": True} | dict(zip(("k", "dim", "largest"), args[1:], strict=False)) | kwargs
    if given["k"] != 1 or world.shadow(args[0]):
        return None
    return None, _meant(args[0] if given["largest"] else -args[0], given["dim"], true[1])


def _meant(score: Tensor, dim: int, index: Tensor) -> Shadow:
    weights = score.softmax(dim).movedim(dim, -1)
    if index.ndim == score.ndim:
        weights = weights.unsqueeze(dim % score.ndim)
    places = torch.arange(weights.shape[-1], device=score.device, dtype=score.dtype)
    return Shadow(weights @ places, weights)


def _lookup(look: Callable[..., Tensor], *names: str) -> Rule:
    """A table at computed places: linear interpolation between the entries, or the mean over what an argmax means."""

    def rule(world: World, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
        given = dict(zip(names, args, strict=False)) | kwargs
        table, index, dim = world.soft(given["table"]), given["index"], given.get("dim")
        shadow = world.shadow(index)
        if shadow is None:
            return None
        if index.dtype in (torch.bool, torch.uint8) and names[0] != "index":
            return table[index]
        if dim is None and look is _rows and shadow.weights is not None and shadow.weights.shape[-1] == len(table):
            return torch.tensordot(shadow.weights, table.to(shadow.weights.dtype), 1)
        count = table.numel() if look is torch.take else table.shape[dim or 0]
        where = index.long() % count
        above, below = (where + 1).clamp_max(count - 1), (where - 1).clamp_min(0)
        at = [dim] if dim is not None else []
        rise = (look(table, *at, above) - look(table, *at, below)).detach()
        position = shadow.value / (above - below).clamp_min(1)
        before = dim % table.ndim if look is torch.index_select and dim is not None else 0
        shape = [1] * before + [*position.shape] + [1] * (true.ndim - before - position.ndim)
        return look(table, *at, where) + rise * position.reshape(shape)

    return rule


def _rows(table: Tensor, index: Tensor) -> Tensor:
    return table[index]


def _named(rule: Rule, *names: str) -> dict[str, Rule]:
    return dict.fromkeys(names, rule)


INTEGER_RULES: dict[str, Rule] = {
    **_named(_shift(-1), "rshift", "bitwise_right_shift"),
    **_named(_shift(1), "lshift", "bitwise_left_shift"),
    **_named(_and, "and", "bitwise_and", "logical_and"),
    **_named(_or, "or", "bitwise_or", "logical_or"),
    **_named(_xor, "xor", "bitwise_xor", "logical_xor"),
    **_named(_not, "invert", "bitwise_not", "logical_not"),
    **_named(_any, "any"),
    **_named(_all, "all"),
    **_named(_bucketize, "bucketize"),
    **_named(_searchsorted, "searchsorted"),
    **_named(_one_hot, "one_hot"),
    **_named(_scatter, "scatter"),
    **_named(_unsqueeze, "unsqueeze"),
    **_named(_argument_of(1), "argmax", "max"),
    **_named(_argument_of(-1), "argmin", "min"),
    **_named(_topk, "topk"),
    **_named(_lookup(_rows, "index", "table"), "embedding"),
    **_named(_lookup(_rows, "table", "index"), "getitem"),
    **_named(_lookup(torch.take, "table", "index"), "take"),
    **_named(_lookup(torch.index_select, "table", "dim", "index"), "index_select"),
    **_named(_lookup(torch.gather, "table", "dim", "index"), "gather"),
}
