"""The call of an operation, as the rules see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from unmask.gradients.straight_through.context import SoftValue, SurrogateContext

__all__ = ["Call", "each", "tensors"]


@dataclass(frozen=True)
class Call:
    """An operation on something that depends on the input: what it was called with, and what it really gave."""

    context: SurrogateContext
    true: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def given(self, place: int, name: str, default: Any = None) -> Any:
        """An argument by position or by name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)

    def in_order(self) -> tuple[Any, ...]:
        """All arguments; those with names come last."""
        return (*self.args, *self.kwargs.values())

    def soft_value(self, place: int) -> SoftValue | None:
        return self.context.soft_value(self.args[place])

    def label(self, place: int) -> SoftValue | None:
        return self.context.label(self.args[place])

    def real(self, place: int) -> Any:
        """As :meth:`SurrogateContext.real`, of the argument at a place."""
        return self.context.real(self.args[place])

    def like(self, *args: Any, true: Any = None) -> Call:
        """The call of an operation with the same result, or another one, on other arguments."""
        return Call(self.context, self.true if true is None else true, args, {})


def each(change: Callable[[Any], Any], value: Any) -> Any:
    """Apply ``change`` to every leaf of nested tuples, lists and dicts."""
    # Called twice for each operation; torch.utils._pytree.tree_map takes seven times as long on so small trees.
    if type(value) in (tuple, list):
        return type(value)(each(change, item) for item in value)
    if type(value) is dict:
        return {key: each(change, item) for key, item in value.items()}
    return change(value)


def tensors(value: Any) -> list[Tensor]:
    """The tensors among the leaves of nested tuples, lists and dicts."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
