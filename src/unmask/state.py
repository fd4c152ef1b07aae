"""What a model keeps from call to call: as it was at one moment, and put back."""

from __future__ import annotations

import builtins
import copy
import random
import sys
import sysconfig
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["State", "is_users"]

_OF_TORCH = frozenset((*vars(nn.Module()), "forward"))
"""Attributes of every module that are no state of a model; hooks and views put things there."""

_CONTAINERS = (dict, OrderedDict, defaultdict, list, set, deque)
_PLAIN = (type(None), bool, int, float, complex, str, bytes, tuple, frozenset, Tensor, np.ndarray, *_CONTAINERS)
_GENERATORS = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)


class State:
    """The attributes, buffers, weights and containers of a model, and the class attributes and global variables that
    its code names, as they were when this was made.

    What lies outside of Python objects, such as a file, is not seen. Restored are the same objects, so that whatever
    refers to them finds them as they were.

    >>> class Counts(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.seen = []
    ...
    ...     def forward(self, x): self.seen.append(x); return x
    >>> model = Counts(); state = State(model); _ = model(torch.zeros(1)); before = len(model.seen)
    >>> before, state.restore(), len(model.seen)
    (1, True, 0)
    """

    def __init__(self, model: nn.Module) -> None:
        self.draws = False
        """Whether a generator of random numbers is among them, which is left as it is."""
        self._kept: list[_Kept] = []
        self._seen: set[int] = set()
        self._visit(model)

    def restore(self) -> bool:
        """Everything as it was; whether anything was not."""
        return True in [kept.restore() for kept in self._kept]  # all of them

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        """What was kept of a model becomes what was kept of its copy."""
        twin = object.__new__(State)
        memo[id(self)] = twin
        twin.draws, twin._seen = self.draws, set()
        twin._kept = [kept.of_copy(memo) for kept in self._kept]
        return twin

    def _visit(self, value: Any) -> None:
        if id(value) in self._seen or isinstance(value, bool | int | float | str | bytes | None):
            return
        self._seen.add(id(value))
        if isinstance(value, Tensor):
            if value.layout == torch.strided and not value.is_inference() and not value.is_quantized:
                self._kept.append(_Tensor(value))
        elif isinstance(value, np.ndarray):
            self._kept.append(_Array(value))
        elif isinstance(value, torch.jit.ScriptModule):
            for tensor in (*value.parameters(), *value.buffers()):
                self._visit(tensor)
        elif isinstance(value, nn.Module):
            for part in value.modules():
                self._module(part)
        elif isinstance(value, _GENERATORS):
            self.draws = True
        elif type(value) in _CONTAINERS:
            self._kept.append(_Container(value))
            for item in [*value.values()] if isinstance(value, dict) else [*value]:
                self._visit(item)
        elif isinstance(value, tuple | frozenset):
            for item in value:
                self._visit(item)
        elif isinstance(value, MethodType):
            self._visit(value.__self__)
            self._visit(value.__func__)
        elif isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, type):
            self._class(value)
        elif not isinstance(value, ModuleType | BuiltinFunctionType) and is_users(type(value).__module__):
            if isinstance(getattr(value, "__dict__", None), dict):
                self._attributes(value)
            self._visit(type(value))

    def _module(self, part: nn.Module) -> None:
        self._seen.add(id(part))
        if isinstance(part, torch.jit.ScriptModule):
            return
        self._attributes(part)
        for tensors in (part._buffers, part._parameters):
            self._visit(tensors)
        for hooks in (part._forward_pre_hooks, part._forward_hooks):
            for hook in hooks.values():
                if not isinstance(getattr(hook, "__self__", None), nn.Module):
                    self._visit(hook)
        if "forward" in vars(part):
            self._visit(vars(part)["forward"])
        self._visit(type(part))

    def _attributes(self, owner: Any) -> None:
        self._kept.append(_Attributes(owner))
        for value in _own(owner).values():
            self._visit(value)

    def _class(self, which: type) -> None:
        for base in which.__mro__:
            if not is_users(base.__module__):
                continue
            self._kept.append(_ClassAttributes(base))
            for value in [*vars(base).values()]:
                if isinstance(value, (FunctionType, *_PLAIN)):
                    self._visit(value)
                elif isinstance(value, staticmethod | classmethod):
                    self._visit(value.__func__)

    def _function(self, function: FunctionType) -> None:
        if not is_users(function.__module__):
            return
        for cell in function.__closure__ or ():
            self._kept.append(_Cell(cell))
            self._visit(_content(cell))
        for default in function.__defaults__ or ():
            self._visit(default)
        names = [name for name in dict.fromkeys(_names(function.__code__)) if not hasattr(builtins, name)]
        self._kept.append(_Globals(function.__globals__, names))
        for name in names:
            value = function.__globals__.get(name)
            if isinstance(value, (FunctionType, type, *_PLAIN)) or is_users(type(value).__module__):
                self._visit(value)


class _Kept:
    """One thing as it was."""

    def restore(self) -> bool:
        """As it was; whether it was not."""
        raise NotImplementedError

    def of_copy(self, memo: dict[int, Any]) -> _Kept:
        """The same of the copy; what all copies share is kept once."""
        return self


class _Tensor(_Kept):
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

    def of_copy(self, memo: dict[int, Any]) -> _Kept:
        twin = object.__new__(_Tensor)
        twin.tensor, twin.content = copy.deepcopy(self.tensor, memo), self.content.clone()
        return twin


class _Array(_Kept):
    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array, self.content = array, array.copy()

    def restore(self) -> bool:
        if np.array_equal(self.array, self.content) or not self.array.flags.writeable:
            return False
        self.array.resize(self.content.shape, refcheck=False)
        self.array[...] = self.content
        return True

    def of_copy(self, memo: dict[int, Any]) -> _Kept:
        twin = object.__new__(_Array)
        twin.array, twin.content = copy.deepcopy(self.array, memo), self.content.copy()
        return twin


class _Container(_Kept):
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

    def of_copy(self, memo: dict[int, Any]) -> _Kept:
        twin = object.__new__(_Container)
        twin.container = copy.deepcopy(self.container, memo)
        twin.content = [copy.deepcopy(value, memo) for value in self.content]
        return twin


class _Attributes(_Kept):
    def __init__(self, owner: Any) -> None:
        self.owner, self.content = owner, _own(owner)

    def restore(self) -> bool:
        now, own = vars(self.owner), _own(self.owner)
        for name in own.keys() - self.content.keys():
            del now[name]
        now.update(self.content)
        return _other(own, self.content)

    def of_copy(self, memo: dict[int, Any]) -> _Kept:
        twin = object.__new__(_Attributes)
        twin.owner = copy.deepcopy(self.owner, memo)
        twin.content = {name: copy.deepcopy(value, memo) for name, value in self.content.items()}
        return twin


class _ClassAttributes(_Kept):
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


class _Globals(_Kept):
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


class _Cell(_Kept):
    def __init__(self, cell: Any) -> None:
        self.cell, self.content = cell, _content(cell)

    def restore(self) -> bool:
        if self.content is None or not isinstance(self.content, _PLAIN) or _content(self.cell) is self.content:
            return False
        self.cell.cell_contents = self.content
        return True


def _own(owner: Any) -> dict[str, Any]:
    """An object's own attributes, but for what torch keeps in every module."""
    of_torch = _OF_TORCH if isinstance(owner, nn.Module) else frozenset[str]()
    return {name: value for name, value in vars(owner).items() if name not in of_torch}


def _other(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() != other.keys() or any(value is not other[name] for name, value in one.items())


def _items(container: Any) -> list[Any]:
    return [*container.keys(), *container.values()] if isinstance(container, dict) else [*container]


def _is_plain(name: str, value: Any) -> bool:
    return isinstance(value, _PLAIN) and not name.startswith("__")


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing has been put in there yet
        return None


def _names(code: CodeType) -> Iterator[str]:
    """What a function and those within it name, global variables among them."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def is_users(module: str | None) -> bool:
    """Whether a module is neither Python's own, nor installed, nor a part of this package."""
    if module is None or module.partition(".")[0] in (*sys.stdlib_module_names, "unmask"):
        return module == "__main__"
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is None or not file.startswith(_INSTALLED)


_INSTALLED = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
