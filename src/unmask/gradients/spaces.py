"""The coordinates that an attack optimises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from unmask.randomness import normal
from unmask.threats import Threat

__all__ = ["Latent", "Pixels", "Space", "Tanh"]


class Space(Protocol):
    """Where a search starts, what its coordinates mean, and how it stays in the ball."""

    bounded: ClassVar[bool]  # whether ``retract`` keeps decoded images inside ball and box

    def start(self, x: Tensor, threat: Threat, *, at_random: bool) -> Tensor:
        """First coordinates (B, ...) for images ``x`` (B, C, H, W)."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """The images (B, C, H, W) at given coordinates; differentiable."""
        ...

    def retract(self, z: Tensor, x: Tensor, threat: Threat) -> Tensor:
        """Coordinates brought back into the ball, where the space can."""
        ...


@dataclass(frozen=True)
class Pixels:
    """The image itself, projected onto ball and box after each step."""

    bounded: ClassVar[bool] = True

    def start(self, x: Tensor, threat: Threat, *, at_random: bool) -> Tensor:
        return threat.start(x) if at_random else x.clone()

    def decode(self, z: Tensor) -> Tensor:
        return z

    def retract(self, z: Tensor, x: Tensor, threat: Threat) -> Tensor:
        return threat.project(z, x)


@dataclass(frozen=True)
class Tanh:
    """Images as (1 + tanh z) / 2, which stay in the box by themselves (Carlini & Wagner, S&P 2017)."""

    bounded: ClassVar[bool] = False
    edge: float = 1e-6  # how near to 0 and 1 a start may lie

    def start(self, x: Tensor, threat: Threat, *, at_random: bool) -> Tensor:
        inner = (threat.start(x) if at_random else x).clamp(self.edge, 1 - self.edge)
        return torch.atanh(2 * inner - 1)

    def decode(self, z: Tensor) -> Tensor:
        return (torch.tanh(z) + 1) / 2

    def retract(self, z: Tensor, x: Tensor, threat: Threat) -> Tensor:
        return z


@dataclass(frozen=True)
class Latent:
    """Reparameterization: images as G(z) of a generator (Athalye et al., ICML 2018).

    A search starts where the generator comes nearest to the image: of ``tries`` draws of z ~ N(0, I)
    each is improved by ``steps`` steps of Adam on the squared distance, and the nearest is kept.

    Args:
        generator: (B, size) -> (B, C, H, W) in [0, 1].
        size: length of z.
    """

    bounded: ClassVar[bool] = False
    generator: Callable[[Tensor], Tensor]
    size: int
    tries: int = 8
    steps: int = 100
    learning_rate: float = 0.1
    scale: float = 1.0  # standard deviation of the first z

    def start(self, x: Tensor, threat: Threat, *, at_random: bool) -> Tensor:
        z = self.scale * normal((len(x), self.tries * self.size), like=x)
        z = z.view(-1, self.size).requires_grad_(True)  # tries of example i lie together
        optimizer = torch.optim.Adam([z], lr=self.learning_rate)
        wanted = x.repeat_interleave(self.tries, 0)
        with torch.enable_grad():
            for _ in range(self.steps):
                (z.grad,) = torch.autograd.grad(self._far(z, wanted).sum(), z)
                optimizer.step()
        with torch.no_grad():
            nearest = self._far(z, wanted).view(len(x), self.tries).argmin(1)
        return z.detach().view(len(x), self.tries, self.size)[torch.arange(len(x), device=x.device), nearest]

    def decode(self, z: Tensor) -> Tensor:
        return self.generator(z)

    def retract(self, z: Tensor, x: Tensor, threat: Threat) -> Tensor:
        return z

    def _far(self, z: Tensor, x: Tensor) -> Tensor:
        return (self.generator(z) - x).square().flatten(1).sum(1)
