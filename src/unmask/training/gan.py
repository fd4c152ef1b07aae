"""Training of generators as Wasserstein GANs with a gradient penalty."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unmask.training.checkpoints import Checkpoints

__all__ = ["GanRecipe", "train_gan"]


@dataclass(frozen=True)
class GanRecipe:
    """WGAN-GP (Gulrajani et al., NeurIPS 2017) as Defense-GAN trains its generator.

    Args:
        iterations: updates of the generator.
        critic: updates of the critic before each of them.
        batch: images per update.
        rate: of Adam, betas 0.5 and 0.9.
        penalty: weight of the gradient penalty.
        scale: standard deviation of z.
        report: iterations per log line and saved state.
        average: decay of the running mean of the generator's weights, which is what is kept.
    """

    iterations: int = 2000
    critic: int = 5
    batch: int = 64
    rate: float = 2e-4
    penalty: float = 10.0
    scale: float = 1.0
    report: int = 200
    average: float = 0.999


def train_gan(
    generator: nn.Module,
    critic: nn.Module,
    latent: int,
    images: Callable[[Tensor], tuple[Tensor, Tensor]],
    size: int,
    recipe: GanRecipe,
    checkpoints: Checkpoints,
    *,
    seed: int = 0,
    device: str = "cpu",
) -> Iterator[dict[str, Any]]:
    """Train ``generator`` in place against ``critic``; yields a log line every ``recipe.report`` iterations.

    The numbers of an interrupted run go on as they would have: each iteration has a seed of its own.
    The weights left in ``generator`` at the end are the running mean.
    """
    generator.to(device), critic.to(device)
    mean = torch.optim.swa_utils.AveragedModel(
        generator, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.average)
    )
    optimizers = [torch.optim.Adam(m.parameters(), recipe.rate, (0.5, 0.9)) for m in (generator, critic)]
    parts: dict[str, Any] = {
        "generator": generator,
        "critic": critic,
        "mean": mean,
        "g": optimizers[0],
        "c": optimizers[1],
    }
    done, state = 0, checkpoints.load()
    if state is not None:
        for name, part in parts.items():
            part.load_state_dict(state[name])
        done = state["iteration"]
    started = time.monotonic()
    for iteration in range(done, recipe.iterations):
        source = torch.Generator().manual_seed(seed * 10_000_019 + iteration)
        for _ in range(recipe.critic):
            real = images(torch.randint(size, (recipe.batch,), generator=source))[0].to(device)
            z = recipe.scale * torch.randn(recipe.batch, latent, generator=source).to(device)
            mix = torch.rand(recipe.batch, 1, 1, 1, generator=source).to(device)
            gap = _critic_step(critic, generator, real, z, mix, recipe.penalty, optimizers[1])
        z = recipe.scale * torch.randn(recipe.batch, latent, generator=source).to(device)
        optimizers[0].zero_grad(set_to_none=True)
        (-critic(generator(z)).mean()).backward()
        optimizers[0].step()
        mean.update_parameters(generator)
        if (iteration + 1) % recipe.report == 0 or iteration + 1 == recipe.iterations:
            log = {"iteration": iteration + 1, "of": recipe.iterations, "distance": gap}
            log["seconds"] = time.monotonic() - started
            saved = {name: part.state_dict() for name, part in parts.items()}
            checkpoints.save({**saved, "iteration": iteration + 1}, log)
            yield log
    generator.load_state_dict(mean.module.state_dict())


def _critic_step(
    critic: nn.Module,
    generator: nn.Module,
    real: Tensor,
    z: Tensor,
    mix: Tensor,
    weight: float,
    optimizer: torch.optim.Optimizer,
) -> float:
    """One update of the critic; returns its estimate of the Wasserstein distance."""
    with torch.no_grad():
        fake = generator(z)
    between = (mix * real + (1 - mix) * fake).requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    gap = critic(real).mean() - critic(fake).mean()
    optimizer.zero_grad(set_to_none=True)
    (weight * penalty - gap).backward()
    optimizer.step()
    return float(gap.detach())
