"""A view that an audit may try, and the code that makes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from unmask.gradients.bpda import View

__all__ = ["OWN_GRADIENT", "CandidateView", "call_source", "named", "plain", "through"]


@dataclass(frozen=True)
class CandidateView:
    """A view, and the calls that make it, innermost first, as a script writes them."""

    code: tuple[str, ...] = ()
    view: View | None = field(repr=False, compare=False, default=None)
    end_to_end: bool = True  # whether it computes what the model does, and leaves out no part of it
    fitted: bool = False  # whether the gradient is that of a network that was fitted to a part of the model

    @property
    def name(self) -> str:
        """As a report says it."""
        return ", ".join(self.code) or "own gradient"

    def then(self, other: CandidateView) -> CandidateView:
        """This view, and the other one of what it gives."""
        if self.view is None or other.view is None:
            return other if self.view is None else self
        first, second = self.view, other.view
        return CandidateView(
            (*self.code, *other.code),
            lambda model: second(first(model)),
            self.end_to_end and other.end_to_end,
            self.fitted or other.fitted,
        )


OWN_GRADIENT = CandidateView()


def plain(view: View, *, end_to_end: bool = True) -> CandidateView:
    """A view without arguments."""
    return CandidateView((view.__name__,), view, end_to_end)


def through(make: Callable[[Any], View], name: str | Sequence[str], *, end_to_end: bool = True) -> CandidateView:
    """The view that ``make`` makes for the part, or the function, of this name; or for several."""
    return CandidateView((call_source(make.__name__, name),), make(name), end_to_end)


def call_source(view: str, name: str | Sequence[str]) -> str:
    """As Python writes it, whatever the name.

    >>> call_source("bpda", "encode")
    'bpda("encode")'
    """
    return f"{view}({json.dumps(name)})"


def named(parts: Sequence[str]) -> Any:
    """A part as views take it, or several."""
    return parts[0] if len(parts) == 1 else tuple(parts)
