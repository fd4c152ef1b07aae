"""Drawing random numbers, from a stream where one is in use."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmask.randomness.keys import Keys
from unmask.randomness.source import Source, below_one
from unmask.randomness.torch_random import keyed, keyed_again

__all__ = ["current", "draws_numbers", "normal", "replay", "uniform", "use_keys", "use_rows"]

_active: ContextVar[Source | None] = ContextVar("unmask_randomness", default=None)


def current() -> Keys | None:
    """A stream that continues the one being drawn from, or None outside ``use_keys``."""
    source = _active.get()
    if source is None:
        return None
    source.calls += 1
    return source.keys.fold_in(source.calls)


@contextmanager
def use_keys(keys: Keys | None, *, uses_torch_random: bool = False) -> Iterator[None]:
    """Draw from ``keys`` inside this block; ``uses_torch_random`` also keys torch's random operations.

    ``uses_torch_random`` costs a Python call for each torch operation in the block: it is for models whose source of
    randomness is not :func:`uniform` or :func:`normal`. It also seeds the global generators of ``random``,
    ``numpy.random`` and torch, from which all else is drawn, and restores them. If ``keys`` is None, nothing changes.
    """
    if keys is None:
        yield
        return
    source = Source(keys)
    token = _active.set(source)
    try:
        with keyed(source) if uses_torch_random else nullcontext():
            yield
    finally:
        _active.reset(token)


@contextmanager
def use_rows(rows: Tensor, of: int, *, last: bool) -> Iterator[None]:
    """Draw for some rows (M,) out of ``of`` what they would draw together with all others.

    Inside the block the stream begins where it was at the first of several such blocks; after the ``last`` one it is
    where it would be had all rows drawn at once. Nothing changes outside ``use_keys``, and where rows share a draw.

    >>> from unmask.randomness import make_keys
    >>> with use_keys(make_keys(0, range(2), "both")):
    ...     both = uniform((2, 1), torch.zeros(()))
    >>> with use_keys(make_keys(0, range(2), "both")), use_rows(torch.tensor([1]), 2, last=True):
    ...     bool(uniform((1, 1), torch.zeros(())) == both[1])
    True
    """
    source = _active.get()
    known = 0 if source is None else len(source.keys.rows)
    if source is None or not known or of % known:
        yield
        return
    keys = source.keys if of == known else source.keys.repeat(of // known)
    part = Source(keys.select(rows))
    part.calls = source.calls
    token = _active.set(part)
    try:
        yield
    finally:
        _active.reset(token)
    if last:
        source.calls = part.calls


def replay() -> Callable[[], AbstractContextManager[None]]:
    """What opens blocks that draw what is drawn from now on, again: for what is computed a second time, later.

    Outside of ``use_keys`` these blocks change nothing.

    >>> from unmask.randomness import make_keys
    >>> with use_keys(make_keys(0, [3], "noise")):
    ...     again, first = replay(), normal((1, 2), torch.zeros(()))
    >>> with again(): print(torch.equal(first, normal((1, 2), torch.zeros(()))))
    True
    """
    source = _active.get()
    if source is None:
        return nullcontext
    twin = source.copy()
    torch_random = nullcontext if twin.torch_seed is None else keyed_again(twin)

    @contextmanager
    def block() -> Iterator[None]:
        twin.calls = calls
        token = _active.set(twin)
        try:
            with torch_random():
                yield
        finally:
            _active.reset(token)

    calls = twin.calls
    return block


def draws_numbers(call: Callable[[], object], keys: Keys) -> bool:
    """Whether a call draws random numbers: by torch, by the global generators of Python and numpy, or by this module.

    What a generator of its own draws is not seen.

    >>> from unmask.randomness import make_keys
    >>> keys = make_keys(0, range(1), "draws")
    >>> draws_numbers(lambda: torch.rand(2), keys), draws_numbers(lambda: torch.ones(2), keys)
    (True, False)
    """
    with use_keys(keys, uses_torch_random=True):
        source, before = _active.get(), _global_states()
        assert source is not None
        call()
        return source.calls > 0 or _global_states() != before


def _global_states() -> tuple[object, ...]:
    state: Any = np.random.get_state()
    return random.getstate(), state[1].tobytes(), *state[2:], torch.get_rng_state().numpy().tobytes()


def uniform(size: Sequence[int], like: Tensor) -> Tensor:
    """Uniform in [0, 1), shape ``size``, dtype and device of ``like``; the first dimension is the batch."""
    source = _active.get()
    if source is None:
        return torch.rand(tuple(size), dtype=like.dtype, device=like.device)
    return below_one(source.uniform(size, like.device).to(like.dtype))


def normal(size: Sequence[int], like: Tensor) -> Tensor:
    """Standard normal, shape ``size``, dtype and device of ``like``; the first dimension is the batch."""
    source = _active.get()
    if source is None:
        return torch.randn(tuple(size), dtype=like.dtype, device=like.device)
    return source.normal(size, like.device, like.dtype).to(like.dtype)
