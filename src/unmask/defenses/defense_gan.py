"""Defense-GAN: the classifier sees the nearest image that a generator can make."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from unmask.progress import track
from unmask.randomness import normal

__all__ = ["DefenseGAN", "Projection"]


class Projection(nn.Module):
    """G(argmin_z |G(z) - x|^2) by gradient descent from random starts: (B, C, H, W) -> (B, C, H, W).

    Args:
        generator: (B, latent) -> (B, C, H, W) in [0, 1].
        latent: length of z.
        restarts: R, starts per image, of which the nearest result is kept.
        steps: L, steps of gradient descent on the mean squared error.
        rate: learning rate, a tenth of it after 80 % of the steps.
        momentum: of the descent.
        scale: standard deviation of the first z.
        rows: descents at a time, for as much memory as there is.
        kept: steps of a differentiated descent whose intermediate results are in memory at a time; of all
            others only z and the velocity, every ``kept`` steps, from which the rest is computed again.

    If the input requires a gradient, the descent with the nearest result is run again and differentiated: the plain
    attack uses this gradient, through ``steps`` second derivatives that vanish or explode.
    """

    def __init__(
        self,
        generator: nn.Module,
        latent: int,
        restarts: int = 10,
        steps: int = 200,
        rate: float = 10.0,
        momentum: float = 0.7,
        scale: float = 128**-0.5,
        rows: int = 1024,
        kept: int = 10,
    ) -> None:
        super().__init__()
        self.generator: nn.Module = generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.latent, self.restarts, self.steps = latent, restarts, steps
        self.rate, self.momentum, self.scale = rate, momentum, scale
        self.rows, self.kept = rows, kept

    def forward(self, x: Tensor) -> Tensor:
        unrolled = torch.is_grad_enabled() and x.requires_grad
        z = self.scale * normal((len(x), self.restarts * self.latent), like=x)
        images = max(1, self.rows // self.restarts)
        pairs = zip(x.split(images), z.split(images), strict=True)
        return torch.cat([self._project(part, start.view(-1, self.latent), unrolled) for part, start in pairs])

    def _project(self, x: Tensor, starts: Tensor, unrolled: bool) -> Tensor:
        wanted = x.detach().repeat_interleave(self.restarts, 0)
        ends = self._descent(starts, wanted, unrolled=False)
        errors = self._error(ends, wanted).view(len(x), self.restarts).nan_to_num(torch.inf)  # a descent may diverge
        best = errors.argmin(1) + torch.arange(0, len(ends), self.restarts, device=x.device)
        image: Tensor = self.generator(self._descent(starts[best], x, unrolled=True) if unrolled else ends[best])
        return image

    def _descent(self, z: Tensor, wanted: Tensor, unrolled: bool) -> Tensor:
        velocity = torch.zeros_like(z)
        for first in track(range(0, self.steps, self.kept), "projection"):
            steps = partial(self._descend, first)
            if unrolled:
                z, velocity = _Recomputed.apply(steps, z, velocity, wanted)  # type: ignore[no-untyped-call]
            else:
                z, velocity = steps(z, velocity, wanted)
        return z

    def _descend(
        self, first: int, z: Tensor, velocity: Tensor, wanted: Tensor, unrolled: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The next ``kept`` steps."""
        for step in range(first, min(first + self.kept, self.steps)):
            rate = self.rate * (0.1 if step >= 0.8 * self.steps else 1.0)
            with torch.enable_grad():
                z = z if unrolled else z.detach().requires_grad_(True)
                (slope,) = torch.autograd.grad(self._error(z, wanted).sum(), z, create_graph=unrolled)
                velocity = self.momentum * velocity + slope
                z = z - rate * velocity
        return (z, velocity) if unrolled else (z.detach(), velocity.detach())

    def _error(self, z: Tensor, wanted: Tensor) -> Tensor:
        """Mean squared error (B * restarts,)."""
        error: Tensor = (self.generator(z) - wanted).square().flatten(1).mean(1)
        return error


class _Recomputed(torch.autograd.Function):
    """Some steps of a descent, forgotten, and computed again for the backward pass."""

    @staticmethod
    def forward(ctx: Any, descent: Callable[..., tuple[Tensor, Tensor]], *inputs: Tensor) -> tuple[Tensor, Tensor]:
        ctx.descent = descent
        ctx.save_for_backward(*inputs)
        return descent(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs = [tensor.detach().requires_grad_(True) for tensor in ctx.saved_tensors]
        with torch.enable_grad():
            outputs = ctx.descent(*inputs, unrolled=True)
        return None, *torch.autograd.grad(outputs, inputs, gradients)


class DefenseGAN(nn.Module):
    """A classifier of projected images (Samangouei et al., ICLR 2018). Vanishing and exploding gradients."""

    def __init__(self, classifier: nn.Module, purify: Projection) -> None:
        super().__init__()
        self.purify = purify
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.purify(x))
        return logits
