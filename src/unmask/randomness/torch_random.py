"""Random numbers that a model draws by torch, numpy or ``random`` itself, keyed all the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from unmask.randomness.source import Source, below_one

__all__ = ["keyed", "keyed_again"]


@contextmanager
def keyed(source: Source) -> Iterator[None]:
    """Replace the random operations of torch by draws from ``source``; seed all else, and restore it.

    What the model draws by a seed that it sets itself, for all or for a generator that it makes, is not random and
    stays as it is.
    """
    with _restored():
        seed = source.keys.shared
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed writes down the whole stack, for CUDA's sake
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
        source.torch_seed = torch.default_generator.initial_seed()
        with _Keyed(source):
            yield


def keyed_again(source: Source) -> Callable[[], AbstractContextManager[None]]:
    """What opens blocks in which torch and all else draw by ``source``, which is as the one in use now is.

    Their global generators go on from where they are now.
    """
    python, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()

    @contextmanager
    def block() -> Iterator[None]:
        with _restored():
            random.setstate(python)
            np.random.set_state(numpy_state)
            torch.set_rng_state(torch_state)
            with _Keyed(source):
                yield

    return block


@contextmanager
def _restored() -> Iterator[None]:
    """What is drawn in this block from global generators does not change them."""
    python, numpy_state = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)


class _Keyed(TorchDispatchMode):
    def __init__(self, source: Source) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.source = source
        self._fixed: dict[torch.Generator, bool] = {}  # which have just been seeded as they are first drawn from

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        if self._told(kwargs.get("generator")):
            return func(*args, **kwargs)
        name = func._overloadpacket.__name__
        if name == "native_dropout":
            return _native_dropout(self.source, *args)
        out = _place(name, func, args, kwargs)  # right shape, dtype and device; its numbers are replaced
        if name not in _DRAWS or not isinstance(out, Tensor):
            return out
        return out.copy_(_DRAWS[name](self.source, out, args, kwargs))

    def _told(self, generator: torch.Generator | None) -> bool:
        """Whether the model itself has said what a generator, or torch's own, draws next."""
        if generator is None or generator.initial_seed() == self.source.torch_seed:
            return bool(torch.default_generator.initial_seed() != self.source.torch_seed)
        if generator not in self._fixed:
            fresh = torch.Generator(generator.device).manual_seed(generator.initial_seed())
            self._fixed[generator] = torch.equal(generator.get_state(), fresh.get_state())
        return self._fixed[generator]


Args = tuple[Any, ...]
Kwargs = dict[str, Any]

_EMPTY: dict[str, Callable[..., Tensor]] = {
    "rand": torch.empty, "randn": torch.empty, "rand_like": torch.empty_like, "randn_like": torch.empty_like
}  # fmt: skip


def _place(name: str, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Where an operation's numbers go; numbers that nobody reads are not drawn where arguments cannot be wrong."""
    if name not in _EMPTY or "out" in kwargs or "names" in kwargs:
        return func(*args, **kwargs)
    return _EMPTY[name](*args, **{key: value for key, value in kwargs.items() if key != "generator"})


def _native_dropout(source: Source, x: Tensor, p: float, train: bool | None = True) -> tuple[Tensor, Tensor]:
    keep = source.uniform(x.shape, x.device) >= p
    return x * keep / max(1 - p, 1e-12), keep


def _unit(source: Source, out: Tensor) -> Tensor:
    return below_one(source.uniform(out.shape, out.device).to(out.dtype))


def _uniform(source: Source, out: Tensor, args: Args, kwargs: Kwargs) -> Any:
    low, high = _given(args[1:], kwargs, {"from": 0.0, "to": 1.0})
    return _unit(source, out) * (high - low) + low


def _normal(source: Source, out: Tensor, args: Args, kwargs: Kwargs) -> Any:
    mean, std = _given(args, kwargs, {"mean": 0.0, "std": 1.0})
    number: Tensor = mean + std * source.normal(out.shape, out.device, out.dtype)
    return number


def _bernoulli(source: Source, out: Tensor, args: Args, kwargs: Kwargs) -> Any:
    p: Any = args[1] if len(args) > 1 else kwargs.get("p", args[0])
    return source.uniform(out.shape, out.device) < p


def _bernoulli_in_place(source: Source, out: Tensor, args: Args, kwargs: Kwargs) -> Any:
    (p,) = _given(args[1:], kwargs, {"p": 0.5})
    return source.uniform(out.shape, out.device) < p


def _integers(source: Source, out: Tensor, bounds: Args) -> Any:
    numbers = [bound for bound in bounds if isinstance(bound, int)]
    low, high = (0, *numbers)[-2:] if numbers else (0, 1 << 24)
    return (source.uniform(out.shape, out.device) * (high - low)).floor() + low


def _exponential(source: Source, out: Tensor, args: Args, kwargs: Kwargs) -> Any:
    (rate,) = _given(args[1:], kwargs, {"lambd": 1.0})
    return -torch.log1p(-source.uniform(out.shape, out.device)) / rate


def _order(source: Source, out: Tensor, args: Args, kwargs: Kwargs) -> Any:
    """One order for the batch, not one a row."""
    return source.uniform((1, *out.shape), out.device).argsort().squeeze(0)


def _multinomial(source: Source, out: Tensor, args: Args, kwargs: Kwargs) -> Any:
    weights, replacement = args[0].double(), len(args) > 2 and args[2]
    if replacement:
        shares = weights.cumsum(-1) / weights.sum(-1, keepdim=True)
        return torch.searchsorted(shares, source.uniform(out.shape, out.device))
    race = -torch.log1p(-source.uniform(weights.shape, out.device)) / weights.clamp_min(1e-300)
    return race.topk(out.shape[-1], dim=-1, largest=False).indices


_DRAWS: dict[str, Callable[[Source, Tensor, Args, Kwargs], Any]] = {
    "rand": lambda source, out, args, kwargs: _unit(source, out),
    "rand_like": lambda source, out, args, kwargs: _unit(source, out),
    "randn": lambda source, out, args, kwargs: source.normal(out.shape, out.device, out.dtype),
    "randn_like": lambda source, out, args, kwargs: source.normal(out.shape, out.device, out.dtype),
    "uniform_": _uniform,
    "normal": _normal,
    "normal_": lambda source, out, args, kwargs: _normal(source, out, args[1:], kwargs),
    "bernoulli": _bernoulli,
    "bernoulli_": _bernoulli_in_place,
    "randint": lambda source, out, args, kwargs: _integers(source, out, args),
    "randint_like": lambda source, out, args, kwargs: _integers(source, out, args[1:]),
    "random_": lambda source, out, args, kwargs: _integers(source, out, args[1:]),
    "exponential_": _exponential,
    "randperm": _order,
    "multinomial": _multinomial,
}


def _given(args: Args, kwargs: Kwargs, wanted: dict[str, float]) -> list[Any]:
    """Arguments given by position or by name, or their defaults."""
    return [args[i] if i < len(args) else kwargs.get(name, wanted[name]) for i, name in enumerate(wanted)]
