"""Copies of models that are whole: what the model's functions hold on to is the copy's own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import suppress
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from unmask.state.snapshot import is_users

__all__ = ["deep_copy"]

_WHOLE = (nn.Module, dict, list, tuple, set, frozenset)
"""What is copied with all that it holds, or not at all."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def deep_copy(model: nn.Module) -> nn.Module:
    """As ``copy.deepcopy``, which leaves functions as they are: a hook that closes over ``self`` would go on to keep
    features for the original, where the copy does not look for them. Tensors that are left from earlier calls come
    without their graph, with which torch does not copy them.

    >>> import torch
    >>> class Features(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.net, self.seen = nn.Flatten(), {}
    ...         self.net.register_forward_hook(lambda part, given, made: self.seen.update(made=made))
    ...
    ...     def forward(self, x): return self.net(x) + self.seen["made"]
    >>> one = Features(); other = deep_copy(one); made = other(torch.zeros(1, 1, 1, 2))
    >>> list(one.seen), list(other.seen)
    ([], ['made'])

    Sparse tensors, which torch does not copy by ``deepcopy`` either, are cloned. What cannot be copied at all, such as
    locks, modules of Python, open files and running generators, is shared.

    Raises what ``copy.deepcopy`` raises for a model that cannot be copied even so.
    """
    clones = {id(tensor): _clone(tensor) for tensor in _uncopiable(list(_own(model)))}
    memo: dict[int, Any] = {**clones}
    try:
        twin = copy.deepcopy(model, memo)
    except Exception:  # of the author's objects
        memo = {**clones}
        _share(list(_own(model)), memo, set())
        twin = copy.deepcopy(model, memo)
    for place in _own(twin):
        for name, value in place.items():
            if isinstance(value, FunctionType):
                place[name] = _bound(value, memo)
    return twin


def _own(model: nn.Module) -> Iterator[dict[Any, Any]]:
    """Where parts keep what they have: attributes, buffers, hooks ..."""
    for part in model.modules():
        yield vars(part)
        yield from (vars(part)[name] for name in _HOOKS if name in vars(part))


def _uncopiable(value: Any) -> Iterator[Tensor]:
    """Tensors that have a graph, or are not laid out by strides: deepcopy fails on them."""
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor) and (leaf.grad_fn is not None or leaf.layout != torch.strided):
            yield leaf


def _share(value: Any, memo: dict[int, Any], seen: set[int]) -> None:
    """Let ``memo`` have the objects in ``value`` that cannot be copied, though their parts can be."""
    if id(value) in seen or _copies(value, memo):
        return
    seen.add(id(value))
    for part in _parts(value):
        _share(part, memo, seen)
    if not isinstance(value, _WHOLE) and not _copies(value, memo):
        memo[id(value)] = value


def _copies(value: Any, memo: dict[int, Any]) -> bool:
    try:
        copy.deepcopy(value, dict(memo))
    except Exception:  # of the author's objects
        return False
    return True


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return [*value]
    own = isinstance(value, nn.Module) or is_users(type(value).__module__)
    return [*vars(value).values()] if own and isinstance(getattr(value, "__dict__", None), dict) else []


def _clone(tensor: Tensor) -> Tensor:
    twin = tensor.detach().clone()
    return nn.Parameter(twin, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else twin


def _bound(value: Any, memo: dict[int, Any]) -> Any:
    """What the copy has for what a function holds on to: things of the model, and functions of such things."""
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, MethodType):
        return MethodType(value.__func__, _bound(value.__self__, memo))
    if not isinstance(value, FunctionType) or not (value.__closure__ or value.__defaults__):
        return value
    cells = [memo.setdefault(id(cell), CellType()) for cell in value.__closure__ or ()]
    made = FunctionType(value.__code__, value.__globals__, value.__name__, None, tuple(cells))
    memo[id(value)] = made
    for new, old in zip(cells, value.__closure__ or (), strict=True):
        with suppress(ValueError):  # nothing has been put in there yet
            new.cell_contents = _bound(old.cell_contents, memo)
    made.__defaults__ = value.__defaults__ and tuple(_bound(one, memo) for one in value.__defaults__)
    made.__kwdefaults__ = value.__kwdefaults__
    vars(made).update(vars(value))
    return made
