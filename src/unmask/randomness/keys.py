"""Keys: 64-bit numbers for (seed, example, purpose), and the mixing that makes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache

import torch
from torch import Tensor

__all__ = ["Keys", "fold", "make_keys", "uniform_bits", "words"]

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser; int64 arithmetic wraps."""
    return _shifted(_shifted(_shifted(z, 30).mul_(_MIX1), 27).mul_(_MIX2), 31)


def _shifted(z: Tensor, by: int) -> Tensor:
    """``z ^ (z >> by)``, a logical shift."""
    return (z >> by).bitwise_and_((1 << (64 - by)) - 1).bitwise_xor_(z)


def fold(keys: Tensor, salt: int | Tensor) -> Tensor:
    """Keys of a further step: (B,) int64 keys and a number, or (B,) numbers."""
    mixed = _mixed(salt) if isinstance(salt, int) else _mix(salt.to(keys.device) + _GOLDEN)
    return _mix(keys * 3 + mixed)


@lru_cache(maxsize=4096)
def _mixed(salt: int) -> int:
    return int(_mix(torch.tensor(salt) + _GOLDEN))


def _digest(*parts: object) -> int:
    """A 64-bit key of some plain values, the same in every process."""
    raw = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(raw, "little", signed=True)


def words(base: Tensor, count: int) -> Tensor:
    """64 random bits (N, count), as int64, for each of the keys ``base`` (N,)."""
    return _mix(base[:, None] + torch.arange(count, device=base.device) * _GOLDEN)


def uniform_bits(base: Tensor, count: int) -> Tensor:
    """53 random bits (N, count), as int64, for each of the keys ``base`` (N,)."""
    return (words(base, count) >> 11).bitwise_and_((1 << 53) - 1)


class Keys:
    """Keys of a batch: one for each row, and one that the rows share; worked out only where something is drawn.

    Args:
        rows: (B,) int64, or what makes them.
        shared: or what makes it.
    """

    def __init__(self, rows: Tensor | Callable[[], Tensor], shared: int | Callable[[], int]) -> None:
        self._rows, self._shared = rows, shared

    @cached_property
    def rows(self) -> Tensor:
        """(B,) int64."""
        return self._rows if isinstance(self._rows, Tensor) else self._rows()

    @cached_property
    def shared(self) -> int:
        """Of all rows together."""
        return self._shared if isinstance(self._shared, int) else self._shared()

    def fold_in(self, salt: int | str) -> Keys:
        """The stream of a further step or purpose."""
        number = _digest(salt) if isinstance(salt, str) else salt
        return Keys(lambda: fold(self.rows, number), lambda: _digest(self.shared, number))

    def fold_in_each(self, salts: range) -> Keys:
        """The streams of several steps, one after the other; their shared key is that of the first."""
        salt = torch.arange(salts.start, salts.stop, salts.step, device=self.rows.device)
        rows = fold(self.rows.repeat(len(salts)), salt.repeat_interleave(len(self.rows)))
        return Keys(rows, self.fold_in(salts.start).shared)

    def repeat(self, times: int, first: int = 0) -> Keys:
        """Copies ``first`` to ``first + times - 1``, copy by copy: rows i, B + i, 2B + i ... are example i."""
        copy = torch.arange(first, first + times, device=self.rows.device).repeat_interleave(len(self.rows))
        return Keys(fold(self.rows.repeat(times), ~copy), _digest(self.shared, ~first))  # ~: apart from ``fold``

    def select(self, rows: Tensor) -> Keys:
        """The stream of some of the rows, by index or mask."""
        return Keys(self.rows[rows.to(self.rows.device)], self.shared)

    def extended(self, more: int) -> Keys:
        """The stream with ``more`` copies of the last row."""
        return Keys(lambda: torch.cat((self.rows, self.rows[-1:].expand(more))), lambda: self.shared)


def make_keys(seed: int, index: Tensor | Sequence[int], purpose: str) -> Keys:
    """The keys of examples ``index`` (their positions in the data set) for one purpose.

    >>> from unmask.randomness import use_keys, uniform
    >>> a = make_keys(0, [3, 4], "start")
    >>> b = make_keys(0, [4], "start")
    >>> with use_keys(a): first = uniform((2, 5), torch.zeros(()))
    >>> with use_keys(b): second = uniform((1, 5), torch.zeros(()))
    >>> bool((first[1] == second[0]).all())
    True
    """
    shared = _digest(seed, purpose)
    rows = torch.as_tensor(index, dtype=torch.int64)
    return Keys(fold(rows + 1, shared), shared)
