"""One thing that a model keeps, as it was, and how it is put back."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict, deque
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = [
    "CONTAINERS",
    "PLAIN",
    "Kept",
    "KeptArray",
    "KeptAttributes",
    "KeptCell",
    "KeptClassAttributes",
    "KeptContainer",
    "KeptGlobals",
    "KeptTensor",
    "content",
    "own_attributes",
]

_OF_TORCH = frozenset((*vars(nn.Module()), "forward"))
"""Attributes of every module that are no state of a model; hooks and views put things there."""

CONTAINERS = (dict, OrderedDict, defaultdict, list, set, deque)
"""Types of Python's own, whose items are what they hold."""

PLAIN = (type(None), bool, int, float, complex, str, bytes, tuple, frozenset, Tensor, np.ndarray, *CONTAINERS)
"""Types of the values that class attributes, global variables and closures are put back to."""


class Kept:
    """One thing as it was."""

    def restore(self) -> bool:
        """As it was; whether it was not."""
        raise NotImplementedError

    def of_copy(self, memo: dict[int, Any]) -> Kept:
        """The same of the copy; what all copies share is kept once."""
        return self


class KeptTensor(Kept):
    """The numbers of a tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.content = tensor, tensor.detach().clone()

    @torch.no_grad()
    def restore(self) -> bool:
        if torch.equal(self.tensor, self.content):  # batch norm and numpy write without a new version
            return False
        if self.tensor.shape == self.content.shape:
            self.tensor.copy_(self.content)
        else:
            self.tensor.data = self.content.clone()
        return True

    def of_copy(self, memo: dict[int, Any]) -> Kept:
        twin = object.__new__(KeptTensor)
        twin.tensor, twin.content = copy.deepcopy(self.tensor, memo), self.content.clone()
        return twin


class KeptArray(Kept):
    """The numbers of an array."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array, self.content = array, array.copy()

    def restore(self) -> bool:
        if np.array_equal(self.array, self.content) or not self.array.flags.writeable:
            return False
        self.array.resize(self.content.shape, refcheck=False)
        self.array[...] = self.content
        return True

    def of_copy(self, memo: dict[int, Any]) -> Kept:
        twin = object.__new__(KeptArray)
        twin.array, twin.content = copy.deepcopy(self.array, memo), self.content.copy()
        return twin


class KeptContainer(Kept):
    """What a list, a dict or a set holds."""

    def __init__(self, container: Any) -> None:
        self.container, self.content = container, _items(container)

    def restore(self) -> bool:
        now = _items(self.container)
        if len(now) == len(self.content) and all(a is b for a, b in zip(now, self.content, strict=True)):
            return False
        self.container.clear()
        if isinstance(self.container, dict):
            half = len(self.content) // 2
            self.container.update(zip(self.content[:half], self.content[half:], strict=True))
        elif isinstance(self.container, set):
            self.container.update(self.content)
        else:
            self.container.extend(self.content)
        return True

    def of_copy(self, memo: dict[int, Any]) -> Kept:
        twin = object.__new__(KeptContainer)
        twin.container = copy.deepcopy(self.container, memo)
        twin.content = [copy.deepcopy(value, memo) for value in self.content]
        return twin


class KeptAttributes(Kept):
    """The attributes of an object."""

    def __init__(self, owner: Any) -> None:
        self.owner, self.content = owner, own_attributes(owner)

    def restore(self) -> bool:
        now, own = vars(self.owner), own_attributes(self.owner)
        for name in own.keys() - self.content.keys():
            del now[name]
        now.update(self.content)
        return _other(own, self.content)

    def of_copy(self, memo: dict[int, Any]) -> Kept:
        twin = object.__new__(KeptAttributes)
        twin.owner = copy.deepcopy(self.owner, memo)
        twin.content = {name: copy.deepcopy(value, memo) for name, value in self.content.items()}
        return twin


class KeptClassAttributes(Kept):
    """The attributes of a class that are plain values."""

    def __init__(self, owner: type) -> None:
        self.owner, self.content = owner, self._plain(owner)

    def restore(self) -> bool:
        now = self._plain(self.owner)
        for name in now.keys() - self.content.keys():
            delattr(self.owner, name)
        for name, value in self.content.items():
            if now.get(name, self) is not value:
                setattr(self.owner, name, value)
        return _other(now, self.content)

    @staticmethod
    def _plain(owner: type) -> dict[str, Any]:
        return {name: value for name, value in vars(owner).items() if _is_plain(name, value)}


class KeptGlobals(Kept):
    """Global variables that hold plain values."""

    def __init__(self, owner: dict[str, Any], names: list[str]) -> None:
        self.owner, self.names = owner, names
        self.content = self._plain()

    def restore(self) -> bool:
        now = self._plain()
        for name in now.keys() - self.content.keys():
            del self.owner[name]
        self.owner.update(self.content)
        return _other(now, self.content)

    def _plain(self) -> dict[str, Any]:
        return {name: self.owner[name] for name in self.names if _is_plain(name, self.owner.get(name, self))}


class KeptCell(Kept):
    """A plain value that a closure holds."""

    def __init__(self, cell: Any) -> None:
        self.cell, self.content = cell, content(cell)

    def restore(self) -> bool:
        if self.content is None or not isinstance(self.content, PLAIN) or content(self.cell) is self.content:
            return False
        self.cell.cell_contents = self.content
        return True


def own_attributes(owner: Any) -> dict[str, Any]:
    """An object's own attributes, but for what torch keeps in every module."""
    of_torch = _OF_TORCH if isinstance(owner, nn.Module) else frozenset[str]()
    return {name: value for name, value in vars(owner).items() if name not in of_torch}


def _other(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() != other.keys() or any(value is not other[name] for name, value in one.items())


def _items(container: Any) -> list[Any]:
    return [*container.keys(), *container.values()] if isinstance(container, dict) else [*container]


def _is_plain(name: str, value: Any) -> bool:
    return isinstance(value, PLAIN) and not name.startswith("__")


def content(cell: Any) -> Any:
    """What a cell of a closure holds; None where nothing has been put in there yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None
