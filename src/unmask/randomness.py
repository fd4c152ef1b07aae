"""Randomness keyed by (seed, example, purpose), so that no result depends on how examples are batched.

A :class:`Stream` holds a 64-bit key for each example of a batch. Inside ``with drawing(stream):``
every random number that is drawn for row i depends on the key of row i and on how many draws came
before, and on nothing else: not on the batch size, the other rows, the device or the process.
:func:`uniform` and :func:`normal` draw explicitly; the random operations of torch (``torch.rand``,
``dropout``, ``bernoulli_`` ...) that a model calls are replaced by keyed ones, so that models written
by others are repeatable too. A draw whose first dimension is a multiple of the batch is taken for copies
of it, one after the other; any other is shared by the whole batch and keyed by (seed, purpose) alone.

Outside of such a block :func:`uniform` and :func:`normal` use torch's global generator.

The generator is SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) in counter mode.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Stream", "current", "drawing", "normal", "stream", "uniform"]

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser; int64 arithmetic wraps, and ``& mask`` makes the shifts logical."""
    z = (z ^ ((z >> 30) & ((1 << 34) - 1))) * _MIX1
    z = (z ^ ((z >> 27) & ((1 << 37) - 1))) * _MIX2
    return z ^ ((z >> 31) & ((1 << 33) - 1))


def _fold(keys: Tensor, salt: int | Tensor) -> Tensor:
    return _mix(keys * 3 + _mix(torch.as_tensor(salt, device=keys.device) + _GOLDEN))


def _digest(*parts: object) -> int:
    """A 64-bit key of some plain values, the same in every process."""
    raw = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(raw, "little", signed=True)


@dataclass(frozen=True)
class Stream:
    """Keys of a batch: one for each row, and one that the rows share."""

    rows: Tensor  # (B,) int64
    shared: int

    def fold(self, salt: int | str) -> Stream:
        """The stream of a further step or purpose."""
        number = _digest(salt) if isinstance(salt, str) else salt
        return Stream(_fold(self.rows, number), _digest(self.shared, number))

    def repeat(self, times: int, first: int = 0) -> Stream:
        """Copies ``first`` to ``first + times - 1``, copy by copy: rows i, B + i, 2B + i ... are example i."""
        copy = torch.arange(first, first + times, device=self.rows.device).repeat_interleave(len(self.rows))
        return Stream(_fold(self.rows.repeat(times), ~copy), _digest(self.shared, ~first))  # ~: apart from ``fold``

    def select(self, rows: Tensor) -> Stream:
        """The stream of some of the rows, by index or mask."""
        return Stream(self.rows[rows.to(self.rows.device)], self.shared)


def stream(seed: int, index: Tensor | Sequence[int], purpose: str) -> Stream:
    """The keys of examples ``index`` (their positions in the data set) for one purpose.

    >>> a = stream(0, [3, 4], "start")
    >>> b = stream(0, [4], "start")
    >>> with drawing(a): first = uniform((2, 5), torch.zeros(()))
    >>> with drawing(b): second = uniform((1, 5), torch.zeros(()))
    >>> bool((first[1] == second[0]).all())
    True
    """
    shared = _digest(seed, purpose)
    rows = torch.as_tensor(index, dtype=torch.int64)
    return Stream(_fold(rows + 1, shared), shared)


class _Source:
    """A stream that is being drawn from: counts the draws."""

    def __init__(self, keys: Stream) -> None:
        self.keys = keys
        self.calls = 0

    def bits(self, size: Sequence[int], device: torch.device) -> Tensor:
        """53 random bits for each element of ``size``, as int64."""
        self.calls += 1
        rows = self.keys.rows.to(device)
        total = math.prod(size)
        if size and size[0] and len(rows) and size[0] % len(rows) == 0:
            times = size[0] // len(rows)
            base = self.keys.repeat(times).rows.to(device) if times > 1 else rows
        else:
            base = torch.tensor([self.keys.shared], device=device)
        base = _fold(base, self.calls)
        counter = torch.arange(total // len(base), device=device) * _GOLDEN
        mixed = _mix(base[:, None] + counter)
        return ((mixed >> 11) & ((1 << 53) - 1)).reshape(tuple(size))

    def uniform(self, size: Sequence[int], device: torch.device) -> Tensor:
        """float64 in [0, 1)."""
        number: Tensor = self.bits(size, device).double() * 2.0**-53
        return number

    def normal(self, size: Sequence[int], device: torch.device) -> Tensor:
        """float64, standard normal, by the inverse distribution function."""
        number: Tensor = torch.special.ndtri(self.uniform(size, device).clamp_min(2.0**-54))
        return number


_active: ContextVar[_Source | None] = ContextVar("unmask_randomness", default=None)


def current() -> Stream | None:
    """A stream that continues the one being drawn from, or None outside ``drawing``."""
    source = _active.get()
    if source is None:
        return None
    source.calls += 1
    return source.keys.fold(source.calls)


@contextmanager
def drawing(keys: Stream | None, *, foreign: bool = False) -> Iterator[None]:
    """Draw from ``keys`` inside this block; ``foreign`` also keys the random operations of torch.

    ``foreign`` costs a Python call for each torch operation in the block: it is for models whose
    source of randomness is not :func:`uniform` or :func:`normal`. It also seeds the global generators
    of ``random``, ``numpy.random`` and torch, from which all else is drawn, and restores them. None
    changes nothing.
    """
    if keys is None:
        yield
        return
    source = _Source(keys)
    token = _active.set(source)
    try:
        if foreign:
            with _seeded(keys.shared), _Keyed(source):
                yield
        else:
            yield
    finally:
        _active.reset(token)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    python, numpy_state = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices):
            random.seed(seed)
            np.random.seed(seed & 0xFFFFFFFF)
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)


def uniform(size: Sequence[int], like: Tensor) -> Tensor:
    """Uniform in [0, 1), shape ``size``, dtype and device of ``like``; the first dimension is the batch."""
    source = _active.get()
    if source is None:
        return torch.rand(tuple(size), dtype=like.dtype, device=like.device)
    return _below_one(source.uniform(size, like.device).to(like.dtype))


def normal(size: Sequence[int], like: Tensor) -> Tensor:
    """Standard normal, shape ``size``, dtype and device of ``like``; the first dimension is the batch."""
    source = _active.get()
    if source is None:
        return torch.randn(tuple(size), dtype=like.dtype, device=like.device)
    return source.normal(size, like.device).to(like.dtype)


def _below_one(u: Tensor) -> Tensor:
    """Rounding to a narrower type can reach 1, which a uniform draw never is."""
    return u.clamp(max=1 - torch.finfo(u.dtype).eps / 2)


class _Keyed(TorchDispatchMode):
    """Replaces the random operations of torch by draws from one source."""

    def __init__(self, source: _Source) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.source = source

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        name = func._overloadpacket.__name__
        if name == "native_dropout":
            x, p = args[0], float(args[1])
            keep = self.source.uniform(x.shape, x.device) >= p
            return x * keep / max(1 - p, 1e-12), keep
        out = func(*args, **kwargs)  # right shape, dtype, device; its numbers are replaced
        if not isinstance(out, Tensor):
            return out
        draw = self._draw(name, out, args, kwargs)
        return out if draw is None else out.copy_(draw)

    def _draw(self, name: str, out: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        size, device = out.shape, out.device
        floating = out.dtype if out.dtype.is_floating_point else torch.float64
        if name in ("rand", "rand_like"):
            return _below_one(self.source.uniform(size, device).to(floating))
        if name in ("randn", "randn_like"):
            return self.source.normal(size, device)
        if name == "uniform_":
            low, high = _arguments(args, kwargs, ("from", 0.0), ("to", 1.0))
            return low + (high - low) * _below_one(self.source.uniform(size, device).to(floating))
        if name in ("normal_", "normal"):
            mean, std = _arguments(args, kwargs, ("mean", 0.0), ("std", 1.0), skip=name == "normal_")
            return mean + std * self.source.normal(size, device)
        if name in ("bernoulli", "bernoulli_"):
            p = args[1] if len(args) > 1 else kwargs.get("p", args[0] if name == "bernoulli" else 0.5)
            return (self.source.uniform(size, device) < p).to(out.dtype)
        if name in ("randint", "randint_like", "random_"):
            bounds = [a for a in args[(0 if name == "randint" else 1) :] if isinstance(a, int)]
            low, high = (0, bounds[0]) if len(bounds) == 1 else (bounds[0], bounds[1]) if bounds else (0, 2**24)
            return low + (self.source.uniform(size, device) * (high - low)).floor()
        if name == "exponential_":
            return -torch.log1p(-self.source.uniform(size, device)) / (args[1] if len(args) > 1 else 1.0)
        if name == "randperm":
            return self.source.uniform((1, *size), device).argsort().squeeze(0)  # one order, not one a row
        if name == "multinomial":
            p = args[0].double()
            if len(args) > 2 and args[2]:
                cdf = p.cumsum(-1) / p.sum(-1, keepdim=True)
                return torch.searchsorted(cdf, self.source.uniform(size, device))
            race = -torch.log1p(-self.source.uniform(p.shape, device)) / p.clamp_min(1e-300)
            return race.topk(size[-1], dim=-1, largest=False).indices
        return None


def _arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any], *wanted: tuple[str, float], skip: bool = True
) -> list[Any]:
    given = args[1:] if skip else args
    return [given[i] if i < len(given) else kwargs.get(key, default) for i, (key, default) in enumerate(wanted)]
