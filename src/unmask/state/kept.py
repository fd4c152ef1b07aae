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
    """One thing as it was: ``owner``, and the ``content`` that it had."""

    def __init__(self, owner: Any, content: Any = None) -> None:
        self.owner, self.content = owner, self.now(owner) if content is None else content

    @staticmethod
    def now(owner: Any) -> Any:
        """The content that a thing has."""
        raise NotImplementedError

    def restore(self) -> bool:
        """As it was; whether it was not."""
        raise NotImplementedError

    def of_copy(self, memo: dict[int, Any]) -> Kept:
        """The same of the copy of a model."""
        return type(self)(copy.deepcopy(self.owner, memo), copy.deepcopy(self.content, memo))


class KeptTensor(Kept):
    """The numbers of a tensor."""

    @staticmethod
    def now(owner: Tensor) -> Tensor:
        return owner.detach().clone()

    @torch.no_grad()
    def restore(self) -> bool:
        if self.owner.is_meta or torch.equal(self.owner, self.content):  # numpy writes without a new version
            return False
        if self.owner.shape == self.content.shape:
            self.owner.copy_(self.content)
        else:
            self.owner.data = self.content.clone()
        return True


class KeptArray(Kept):
    """The numbers of an array."""

    @staticmethod
    def now(owner: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return owner.copy()

    def restore(self) -> bool:
        if np.array_equal(self.owner, self.content) or not self.owner.flags.writeable:
            return False
        self.owner.resize(self.content.shape, refcheck=False)
        self.owner[...] = self.content
        return True


class KeptContainer(Kept):
    """What a list, a dict or a set holds."""

    @staticmethod
    def now(owner: Any) -> list[Any]:
        return [*owner.keys(), *owner.values()] if isinstance(owner, dict) else [*owner]

    def restore(self) -> bool:
        now = self.now(self.owner)
        if len(now) == len(self.content) and all(a is b for a, b in zip(now, self.content, strict=True)):
            return False
        self.owner.clear()
        if isinstance(self.owner, dict):
            half = len(self.content) // 2
            self.owner.update(zip(self.content[:half], self.content[half:], strict=True))
        elif isinstance(self.owner, set):
            self.owner.update(self.content)
        else:
            self.owner.extend(self.content)
        return True


class KeptAttributes(Kept):
    """The attributes of an object."""

    @staticmethod
    def now(owner: Any) -> dict[str, Any]:
        return own_attributes(owner)

    def restore(self) -> bool:
        now = self.now(self.owner)
        for name in now.keys() - self.content.keys():
            del vars(self.owner)[name]
        vars(self.owner).update(self.content)
        return _other(now, self.content)


class KeptShared(Kept):
    """What all copies of a model have in common."""

    def of_copy(self, memo: dict[int, Any]) -> Kept:
        return self


class KeptClassAttributes(KeptShared):
    """The attributes of a class that are plain values."""

    @staticmethod
    def now(owner: type) -> dict[str, Any]:
        return {name: value for name, value in vars(owner).items() if _is_plain(name, value)}

    def restore(self) -> bool:
        now = self.now(self.owner)
        for name in now.keys() - self.content.keys():
            delattr(self.owner, name)
        for name, value in self.content.items():
            if now.get(name, self) is not value:
                setattr(self.owner, name, value)
        return _other(now, self.content)


class KeptGlobals(KeptShared):
    """Global variables that hold plain values."""

    def __init__(self, owner: dict[str, Any], names: list[str]) -> None:
        self.names = names
        super().__init__(owner, self._plain(owner))

    def restore(self) -> bool:
        now = self._plain(self.owner)
        for name in now.keys() - self.content.keys():
            del self.owner[name]
        self.owner.update(self.content)
        return _other(now, self.content)

    def _plain(self, owner: dict[str, Any]) -> dict[str, Any]:
        return {name: owner[name] for name in self.names if _is_plain(name, owner.get(name, self))}


class KeptCell(KeptShared):
    """A plain value that a closure holds."""

    @staticmethod
    def now(owner: Any) -> Any:
        return content(owner)

    def restore(self) -> bool:
        if self.content is None or not isinstance(self.content, PLAIN) or content(self.owner) is self.content:
            return False
        self.owner.cell_contents = self.content
        return True


def own_attributes(owner: Any) -> dict[str, Any]:
    """An object's own attributes, but for what torch keeps in every module."""
    of_torch = _OF_TORCH if isinstance(owner, nn.Module) else frozenset[str]()
    return {name: value for name, value in vars(owner).items() if name not in of_torch}


def _other(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() != other.keys() or any(value is not other[name] for name, value in one.items())


def _is_plain(name: str, value: Any) -> bool:
    return isinstance(value, PLAIN) and not name.startswith("__")


def content(cell: Any) -> Any:
    """What a cell of a closure holds; None where nothing has been put in there yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None
