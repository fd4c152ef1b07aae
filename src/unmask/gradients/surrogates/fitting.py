"""How a surrogate is fitted: what a part is given and gives is observed, and a small network learns it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unmask.gradients.bpda import first_tensor
from unmask.gradients.rows import rows_of_all
from unmask.randomness import make_keys, use_keys

__all__ = ["Seen", "Training", "fit"]


_NUMBERS = 1 << 25
"""Of inputs or outputs that are kept."""

_SOLVED, _RIDGE = 2048, 1e-4
"""Pairs that a linear map is fitted to, at most; and its penalty, as a share of the variance of an input."""


@dataclass(frozen=True)
class Training:
    """How a network is fitted."""

    steps: int
    batch: int
    rate: float
    noise: float
    rounds: int | None
    seed: int


class Seen:
    """What a part was given, and what it gave, in each call of a pass."""

    def __init__(self) -> None:
        self.given: list[Tensor] = []
        self.made: list[Tensor] = []

    @contextmanager
    def whole(self, module: nn.Module) -> Iterator[None]:
        """While this is open, for one pass."""
        self.given.clear()
        self.made.clear()

        def hook(part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            given = first_tensor(type(part).__name__, args, kwargs)
            self.given.append(rows_of_all(given).float().clone())
            self.made.append(rows_of_all(output).float().clone())

        with module.register_forward_hook(hook, with_kwargs=True):
            yield


def fit(
    observe: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor, network: nn.Module | None, how: Training
) -> nn.Module:
    """``network``, or one for the shapes, fitted to what ``observe`` gives for noisy images: inputs and outputs."""
    generator = torch.Generator().manual_seed(how.seed)
    keys = make_keys(how.seed, range(min(how.batch, len(x))), "surrogate")

    def pair(images: Tensor, step: int) -> tuple[Tensor, Tensor]:
        with use_keys(keys.fold_in(step), uses_torch_random=True), torch.no_grad():
            return observe(images)

    def around(images: Tensor) -> Tensor:
        return (images + how.noise * torch.randn(images.shape, generator=generator).to(images)).clamp(0, 1)

    inputs, outputs = pair(x[:2], 0)
    with torch.random.fork_rng():
        torch.manual_seed(how.seed)
        network = _default(inputs, outputs) if network is None else network
    network = network.to(x.device).train()
    optimizer = torch.optim.Adam(network.parameters(), how.rate)
    rows = _NUMBERS // max(inputs[0].numel(), outputs[0].numel())
    parts = (x.split(how.batch) * (how.rounds or 0))[: max(1, rows // how.batch)]
    seen = [torch.cat(side) for side in zip(*(pair(around(part), i) for i, part in enumerate(parts)), strict=True)]
    if isinstance(network, _Dense):
        few = enumerate(x[:_SOLVED].split(how.batch), start=how.steps)
        pairs = seen or [torch.cat(side) for side in zip(*(pair(around(part), i) for i, part in few), strict=True)]
        network.solve(*pairs)
    for step in range(how.steps):
        index = torch.randint(len(seen[0]) if seen else len(x), (min(how.batch, len(x)),), generator=generator)
        inputs, outputs = (side[index] for side in seen) if seen else pair(around(x[index]), step)
        with torch.enable_grad():
            loss = (network(inputs) - outputs).square().mean()
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
    return network.eval().requires_grad_(False)


class _Residual(nn.Module):
    def __init__(self, channels: int, out: int, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, out, 3, padding=1),
        )
        self.skip = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.skip(x) + self.body(x)
        return answer


class _Dense(nn.Module):
    """A linear map, which :meth:`solve` fits, and a network for what it leaves."""

    def __init__(self, inputs: Tensor, outputs: Tensor, width: int = 256) -> None:
        super().__init__()
        given, made = inputs[0].numel(), outputs[0].numel()
        self.linear, self.body = nn.Linear(given, made), nn.Sequential(nn.Linear(given, width), nn.ReLU())
        self.last, self.shape = nn.Linear(width, made), outputs.shape[1:]
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        answer: Tensor = (self.linear(flat) + self.last(self.body(flat))).unflatten(1, self.shape)
        return answer

    @torch.no_grad()
    def solve(self, inputs: Tensor, outputs: Tensor) -> None:
        """Ridge regression, of as many pairs or as many inputs as there are fewer of."""
        given, made = (side[:_SOLVED].flatten(1).double() for side in (inputs, outputs))
        centre, mean = given.mean(0), made.mean(0)
        given, made = given - centre, made - mean
        wide = given.shape[1] > len(given)
        gram = given @ given.T if wide else given.T @ given
        gram.diagonal().add_(_RIDGE * gram.diagonal().mean() + 1e-12)
        slope = given.T @ torch.linalg.solve(gram, made) if wide else torch.linalg.solve(gram, given.T @ made)
        self.linear.weight.copy_(slope.T)
        self.linear.bias.copy_(mean - centre @ slope)


def _default(inputs: Tensor, outputs: Tensor) -> nn.Module:
    if inputs.ndim == outputs.ndim == 4 and inputs.shape[-2:] == outputs.shape[-2:]:
        return _Residual(inputs.shape[1], outputs.shape[1])
    return _Dense(inputs, outputs)
