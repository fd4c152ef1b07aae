"""How a search moves, given a direction of ascent. State is per example, so that examples can leave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unmask.threats import Threat

__all__ = ["Adam", "Optimizer", "Steepest"]

State = tuple[Tensor, ...]


class Optimizer(Protocol):
    """A rule that moves coordinates ``z`` (B, ...) along a direction of the same shape."""

    def init(self, z: Tensor) -> State: ...

    def update(
        self, z: Tensor, direction: Tensor, state: State, step: int, threat: Threat, radius: Tensor, x: Tensor | None
    ) -> tuple[Tensor, State]:
        """``z`` and the state after step number ``step``.

        Args:
            threat: the ball.
            radius: (B,) its radius.
            x: the images, where ``z`` are pixels; None for other coordinates, which have no box.
        """
        ...


@dataclass(frozen=True)
class Steepest:
    """Steps of fixed length in the threat's own norm: signs for Linf, the normalised gradient for L2.

    Args:
        rel_step_size: length of a step, as a share of eps.
        momentum: decay of the running direction (Dong et al., CVPR 2018); 0 is plain PGD.
    """

    rel_step_size: float = 0.1
    momentum: float = 0.0

    def init(self, z: Tensor) -> State:
        return (torch.zeros_like(z),) if self.momentum else ()

    def update(
        self, z: Tensor, direction: Tensor, state: State, step: int, threat: Threat, radius: Tensor, x: Tensor | None
    ) -> tuple[Tensor, State]:
        if self.momentum:
            mean = direction.abs().flatten(1).mean(1).clamp_min(1e-30).view(-1, *[1] * (z.ndim - 1))
            direction = self.momentum * state[0] + direction / mean
            state = (direction,)
        length = (self.rel_step_size * radius).to(z.dtype).view(-1, *[1] * (z.ndim - 1))
        return threat.ascent(direction, None if x is None else z, x).mul_(length).add_(z), state


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba, ICLR 2015) on each example by itself, ascending; ``lr`` in units of z."""

    lr: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999

    def init(self, z: Tensor) -> State:
        return torch.zeros_like(z), torch.zeros_like(z)

    def update(
        self, z: Tensor, direction: Tensor, state: State, step: int, threat: Threat, radius: Tensor, x: Tensor | None
    ) -> tuple[Tensor, State]:
        first = torch.lerp(state[0], direction, 1 - self.beta1)
        second = torch.lerp(state[1], direction.square(), 1 - self.beta2)
        scale = (second / (1 - self.beta2 ** (step + 1))).sqrt().add_(1e-8)
        return z + self.lr * first / (1 - self.beta1 ** (step + 1)) / scale, (first, second)
