"""Parts that a model computes again in the backward pass, to save memory, by ``torch.utils.checkpoint``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils import checkpoint as checkpointing

from unmask.randomness import replay

__all__ = ["computed_once", "recomputed"]

_GENERATOR = "_checkpoint_without_reentrant_generator"


@contextmanager
def recomputed() -> Iterator[None]:
    """While this is open, parts that a model checkpoints have their true gradient.

    A part that is computed again, in a backward pass later, draws what it drew, by the keys that are in use here: torch
    would restore the state of its own generator, from which keyed numbers do not come. A part that is checkpointed with
    ``use_reentrant=True``, which ``torch.autograd.grad`` refuses, is checkpointed without.

    >>> import torch
    >>> x = torch.ones(1, requires_grad=True)
    >>> with recomputed():
    ...     y = checkpointing.checkpoint(lambda x: x * x, x, use_reentrant=True)
    >>> torch.autograd.grad(y, x)
    (tensor([2.]),)
    """
    own: Callable[..., Any] = getattr(checkpointing, _GENERATOR)
    with _instead(lambda function, *args, **kwargs: own(_replayed(function), *args, **kwargs)):
        yield


@contextmanager
def computed_once() -> Iterator[None]:
    """While this is open, a model checkpoints nothing: what runs it otherwise, or watches it, does so only once."""
    with _instead(lambda function, *args, **kwargs: iter((None,))):
        yield


@contextmanager
def _instead(generator: Callable[..., Iterator[None]]) -> Iterator[None]:
    before = {name: getattr(checkpointing, name) for name in (_GENERATOR, "CheckpointFunction")}
    setattr(checkpointing, _GENERATOR, generator)
    checkpointing.CheckpointFunction = _NotReentrant  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(checkpointing, name, value)


class _NotReentrant:
    """What ``checkpoint(..., use_reentrant=True)`` calls instead of its autograd function."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        return checkpointing.checkpoint(function, *args, use_reentrant=False, preserve_rng_state=preserve_rng_state)


def _replayed(function: Callable[..., Any]) -> Callable[..., Any]:
    again = replay()

    def run(*args: Any, **kwargs: Any) -> Any:
        with again():
            return function(*args, **kwargs)

    return run
