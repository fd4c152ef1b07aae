"""The walk through a model that finds what it keeps from call to call."""

from __future__ import annotations

import builtins
import random
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unmask.state.kept import (
    CONTAINERS,
    PLAIN,
    Kept,
    KeptArray,
    KeptAttributes,
    KeptCell,
    KeptClassAttributes,
    KeptContainer,
    KeptGlobals,
    KeptTensor,
    content,
    own_attributes,
)

__all__ = ["GENERATORS", "State", "is_users"]

GENERATORS = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)
"""Classes of generators of random numbers."""


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
        self._kept: list[Kept] = []
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
        if type(value) in CONTAINERS:
            self._container(value)
            return
        for kinds, visit in _VISITS:
            if isinstance(value, kinds):
                visit(self, value)
                return
        self._object(value)

    def _tensor(self, tensor: Tensor) -> None:
        if tensor.layout == torch.strided and not tensor.is_inference() and not tensor.is_quantized:
            self._kept.append(KeptTensor(tensor))

    def _array(self, array: np.ndarray[Any, Any]) -> None:
        self._kept.append(KeptArray(array))

    def _script(self, script: torch.jit.ScriptModule) -> None:
        for tensor in (*script.parameters(), *script.buffers()):
            self._visit(tensor)

    def _model(self, model: nn.Module) -> None:
        for part in model.modules():
            self._module(part)

    def _generator(self, _: Any) -> None:
        self.draws = True

    def _container(self, container: Any) -> None:
        self._kept.append(KeptContainer(container))
        self._items([*container.values()] if isinstance(container, dict) else [*container])

    def _items(self, items: Iterable[Any]) -> None:
        for item in items:
            self._visit(item)

    def _method(self, method: MethodType) -> None:
        self._visit(method.__self__)
        self._visit(method.__func__)

    def _nothing(self, _: Any) -> None:
        """A module of Python, or a function of C, whose state is not the model's."""

    def _object(self, value: Any) -> None:
        if not is_users(type(value).__module__):
            return
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
        self._kept.append(KeptAttributes(owner))
        for value in own_attributes(owner).values():
            self._visit(value)

    def _class(self, which: type) -> None:
        for base in which.__mro__:
            if not is_users(base.__module__):
                continue
            self._kept.append(KeptClassAttributes(base))
            for value in [*vars(base).values()]:
                if isinstance(value, (FunctionType, *PLAIN)):
                    self._visit(value)
                elif isinstance(value, staticmethod | classmethod):
                    self._visit(value.__func__)

    def _function(self, function: FunctionType) -> None:
        if not is_users(function.__module__):
            return
        for cell in function.__closure__ or ():
            self._kept.append(KeptCell(cell))
            self._visit(content(cell))
        for default in function.__defaults__ or ():
            self._visit(default)
        names = [name for name in dict.fromkeys(_names(function.__code__)) if not hasattr(builtins, name)]
        self._kept.append(KeptGlobals(function.__globals__, names))
        for name in names:
            value = function.__globals__.get(name)
            if isinstance(value, (FunctionType, type, *PLAIN)) or is_users(type(value).__module__):
                self._visit(value)


_VISITS: tuple[tuple[type | tuple[type, ...], Callable[[State, Any], None]], ...] = (
    (Tensor, State._tensor),
    (np.ndarray, State._array),
    (torch.jit.ScriptModule, State._script),
    (nn.Module, State._model),
    (GENERATORS, State._generator),
    ((tuple, frozenset), State._items),
    (MethodType, State._method),
    (FunctionType, State._function),
    (type, State._class),
    ((ModuleType, BuiltinFunctionType), State._nothing),
)
"""What is done with a value: the first whose kind it is of."""


def _names(code: CodeType) -> Iterator[str]:
    """What a function and those within it name, global variables among them."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def is_users(module: str | None) -> bool:
    """Whether a module is neither Python's own, nor installed, nor a part of this package."""
    if module is None or (package := module.partition(".")[0]) == "unmask" or package in sys.stdlib_module_names:
        return module == "__main__"
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is None or not file.startswith(_INSTALLED)


_INSTALLED = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
