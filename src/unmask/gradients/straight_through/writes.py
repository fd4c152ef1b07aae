"""Operations that write into a tensor: the value is computed apart, then copied in with its gradient."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.gradients.straight_through.context import SoftValue, SurrogateContext
from unmask.gradients.straight_through.labels import label_pair
from unmask.gradients.straight_through.places import Spot, moves, spots, spread

__all__ = ["Saved", "Writer", "out_of_place"]

_NOT_IN_PLACE = {"__init__", "__index__", "__int__", "__invert__", "__iter__"}


def out_of_place(func: Any, name: str, kwargs: dict[str, Any]) -> Callable[..., Any] | None:
    """The function that gives what an in-place one would write; None if there is no such function."""
    if kwargs.get("inplace"):
        found: Any = func
    elif name.startswith("__i") and name not in _NOT_IN_PLACE:
        found = getattr(Tensor, f"__{name[3:]}", None)
    elif name.endswith("_") and not name.startswith("_"):
        found = next((getattr(home, name[:-1]) for home in (Tensor, torch, F) if hasattr(home, name[:-1])), None)
    else:
        found = None
    return found  # type: ignore[no-any-return]


class _Held:
    """A tensor that autograd saved for the backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class Saved:
    """Copies what autograd saved before it is overwritten: without gradients, models may write where they like."""

    def __init__(self) -> None:
        self._held: defaultdict[int, WeakSet[_Held]] = defaultdict(WeakSet)

    def pack(self, tensor: Tensor) -> _Held:
        snapshot = _Held(tensor)
        self._held[tensor.untyped_storage().data_ptr()].add(snapshot)
        return snapshot

    @staticmethod
    def unpack(snapshot: _Held) -> Tensor:
        return snapshot.tensor

    def before_write(self, target: Tensor) -> None:
        for snapshot in self._held.pop(target.untyped_storage().data_ptr(), ()):
            snapshot.tensor = snapshot.tensor.clone()


def _computed_places(context: SurrogateContext, target: Tensor, index: Any) -> list[Spot]:
    try:
        return spots(context, target.shape, index)
    except (RuntimeError, TypeError, ValueError, IndexError):  # an index of a form that only torch knows
        return []


def _change(target: Tensor, index: Any, value: Any) -> Tensor:
    """What a write changes."""
    value, kind = torch.as_tensor(value, device=target.device), torch.get_default_dtype()
    change: Tensor = value.detach().to(kind) - target.detach()[index].to(kind)
    return change


class Writer:
    """Writes values into tensors, with their gradients, except into tensors that outlive the forward pass."""

    def __init__(self, context: SurrogateContext, saved: Saved, lasting: set[int]) -> None:
        self._world = context
        self._saved = saved
        self._lasting = lasting  # addresses of the model's parameters and buffers

    def write(self, target: Tensor, value: Tensor) -> Tensor:
        """``target.copy_(value)``."""
        self._saved.before_write(target)
        if self._lasts(target):
            self.follow(target, value)
            with torch.no_grad():
                return target.copy_(value)
        if target.is_floating_point():
            label = self._world.label(value)
            self._world.relabel(target, label if label and value.dtype == target.dtype else None)
            try:
                return target.copy_(self._world.exact(value, target.dtype))
            except RuntimeError:  # autograd refuses some views, such as those of ``split``; they keep their gradient
                target.data.copy_(value.detach())
                return target
        soft = self._world.soft_value(value) or (SoftValue(value) if value.grad_fn else None)
        self._world.forget(target)
        self._world.join(target.copy_(value.detach()), soft)
        return target

    def set_item(self, target: Tensor, index: Any, value: Any) -> None:
        """``target[index] = value``."""
        self._saved.before_write(target)
        if self._lasts(target):
            with torch.no_grad():
                target[index] = value
            return
        found = _computed_places(self._world, target, index)
        weights = None if found else self._written_weights(target, index, value)
        if target.is_floating_point() and not found:
            target[index] = self._world.exact(value, target.dtype)
            self._world.relabel(target, None if weights is None else SoftValue(target.clone(), weights))
            return
        surrogate = self._written(target, index, value, found)
        true = value.detach() if isinstance(value, Tensor) else value
        if target.is_floating_point():
            written = target.detach().clone()
            written[index] = true
            self.write(target, self._world.gate(written, surrogate))
        else:
            target[index] = true
            self._world.join(target, SoftValue(surrogate, weights))

    def _written(self, target: Tensor, index: Any, value: Any, found: list[Spot]) -> Tensor:
        """The surrogate of the target after a write, which at computed places would have gone elsewhere too."""
        surrogate: Tensor = self._world.real(target).clone()
        read = self._world.was(value, target, index)
        if found and read is not None:  # ``target[index] += ...``
            return surrogate + spread(target.shape, found, self._world.real(value) - read)
        surrogate[index] = self._world.real(value)
        try:
            return surrogate + moves(target.shape, found, _change(target, index, value)) if found else surrogate
        except RuntimeError:  # shapes that only torch's own write takes
            return surrogate

    def _written_weights(self, target: Tensor, index: Any, value: Any) -> Tensor | None:
        """How much each class is meant where labels are written among labels; None where these are none."""
        pair = label_pair(self._world, target, value)
        if pair is None:
            return None
        weights = pair[0].clone()
        weights[(*(index if isinstance(index, tuple) else (index,)), slice(None))] = pair[1]
        return weights

    def overwrite(self, target: Tensor, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Numbers that do not depend on the input, such as those of ``zero_`` and ``normal_``."""
        self._saved.before_write(target)
        self._world.forget(target)
        if self._lasts(target):
            with torch.no_grad():
                return func(target, *args, **kwargs)
        return func(target, *args, **kwargs)

    def follow(self, target: Tensor, value: Tensor) -> None:
        """Where a leaf that the model moves by its own gradients has come from."""
        if target.is_leaf and target.untyped_storage().data_ptr() not in self._lasting:
            self._world.follow(target, value)

    def _lasts(self, target: Tensor) -> bool:
        leaf = target.requires_grad and target.grad_fn is None
        return leaf or target.untyped_storage().data_ptr() in self._lasting
