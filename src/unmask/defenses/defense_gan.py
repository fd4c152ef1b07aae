"""Defense-GAN: the classifier sees the nearest image that a generator can make."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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

    Where the input requires a gradient, the descent is unrolled into the graph: this is what the plain
    attack differentiates, through ``steps`` second derivatives that vanish or explode.
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
    ) -> None:
        super().__init__()
        self.generator = generator
        self.latent, self.restarts, self.steps = latent, restarts, steps
        self.rate, self.momentum, self.scale = rate, momentum, scale

    def forward(self, x: Tensor) -> Tensor:
        unrolled = torch.is_grad_enabled() and x.requires_grad
        wanted = x.repeat_interleave(self.restarts, 0)
        z = self.scale * normal((len(x), self.restarts * self.latent), like=x).view(-1, self.latent)
        with torch.enable_grad():
            z = self._descend(z, wanted, unrolled)
        errors = self._error(z, wanted).view(len(x), self.restarts).nan_to_num(torch.inf)  # a descent may diverge
        best = errors.argmin(1) + torch.arange(0, len(z), self.restarts, device=x.device)
        image: Tensor = self.generator(z[best])
        return image

    def _descend(self, z: Tensor, wanted: Tensor, unrolled: bool) -> Tensor:
        velocity = torch.zeros_like(z)
        z = z.requires_grad_(True)
        for step in range(self.steps):
            rate = self.rate * (0.1 if step >= 0.8 * self.steps else 1.0)
            (slope,) = torch.autograd.grad(self._error(z, wanted).sum(), z, create_graph=unrolled)
            velocity = self.momentum * velocity + slope
            z = z - rate * velocity
            if not unrolled:
                z, velocity = z.detach().requires_grad_(True), velocity.detach()
        return z if unrolled else z.detach()

    def _error(self, z: Tensor, wanted: Tensor) -> Tensor:
        """Mean squared error (B * restarts,)."""
        error: Tensor = (self.generator(z) - wanted).square().flatten(1).mean(1)
        return error


class DefenseGAN(nn.Module):
    """A classifier of projected images (Samangouei et al., ICLR 2018). Vanishing and exploding gradients."""

    def __init__(self, classifier: nn.Module, purify: Projection) -> None:
        super().__init__()
        self.purify = purify
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.purify(x))
        return logits
