"""A copy of a whole model, fitted to its answers, for attacks that transfer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.models.model_wrappers import query
from unmask.randomness import Keys, normal, uniform, use_keys
from unmask.types import Model

__all__ = ["train_surrogate"]


def train_surrogate(
    model: Model, x: Tensor, radius: float, keys: Keys, *, rounds: int = 4, steps: int = 80, batch: int = 64
) -> nn.Module:
    """A small convolutional network that answers as ``model`` does, on and around images ``x`` (N, C, H, W).

    It uses outputs alone, 2 N in each round: of mixtures of two images with noise, and of images
    moved along the copy's own gradient, where it has most to learn (Papernot et al., *Practical Black-Box
    Attacks against Machine Learning*, AsiaCCS 2017). It learns classes, and scores up to shift and scale.

    Args:
        radius: of the changes of images, root mean square per pixel.
        keys: of all randomness (N,), the model's too.
        rounds, steps: of queries, and of Adam after each round.
        batch: images at a time.

    >>> from unmask.randomness import make_keys
    >>> images = torch.rand(128, 1, 6, 6)
    >>> model = lambda x: torch.stack((x[..., :3].mean((1, 2, 3)), x[..., 3:].mean((1, 2, 3))), 1)
    >>> copy = train_surrogate(model, images, 0.1, make_keys(0, range(128), "copy"))
    >>> bool((copy(images).argmax(1) == model(images).argmax(1)).float().mean() > 0.8)
    True
    """
    with torch.random.fork_rng():
        torch.manual_seed(int(keys.rows[0]) & 0x7FFFFFFF)
        with torch.no_grad(), use_keys(keys, uses_torch_random=True):
            classes = query(model, x[:1]).logits.shape[1]
        copy = _network(x, classes).to(x.device).train()
        optimizer = torch.optim.Adam(copy.parameters(), 2e-3)
        seen, answers, order = x[:0], x.new_zeros(0, classes), torch.Generator().manual_seed(0)
        for turn in range(rounds):
            asked = torch.cat((_mixed(x, radius, keys.fold_in(turn)), _moved(copy, x, radius) if turn else x))
            with torch.no_grad(), use_keys(keys.repeat(2).fold_in(turn), uses_torch_random=True):
                parts = [query(model, part).logits.float() for part in asked.split(len(x))]
            seen, answers = torch.cat((seen, asked)), torch.cat((answers, *parts))
            for _ in range(steps):
                rows = torch.randint(len(seen), (batch,), generator=order)
                with torch.enable_grad():
                    loss = _difference(copy(seen[rows]), answers[rows], answers)
                    optimizer.zero_grad()
                    loss.backward()
                optimizer.step()
    return copy.eval().requires_grad_(False)


def _difference(found: Tensor, wanted: Tensor, all_wanted: Tensor) -> Tensor:
    """Of classes, and of scores that are centred row by row and scaled by their common spread."""
    spread = (all_wanted - all_wanted.mean(1, keepdim=True)).std().clamp_min(1e-12)
    scaled = 3 * (wanted - wanted.mean(1, keepdim=True)) / spread
    scores = (found - found.mean(1, keepdim=True) - scaled).square().mean()
    return scores + F.cross_entropy(found, wanted.argmax(1))


def _mixed(x: Tensor, radius: float, keys: Keys) -> Tensor:
    with use_keys(keys):
        share = 0.5 + 0.5 * uniform((len(x), 1, 1, 1), x)
        noise = radius * normal(x.shape, x)
    return (share * x + (1 - share) * x.roll(1, 0) + noise).clamp(0, 1)


def _moved(copy: nn.Module, x: Tensor, radius: float) -> Tensor:
    """Images where the copy likes its own answer less."""
    z = x.clone().requires_grad_()
    with torch.enable_grad():
        answer = copy(z)
        loss = F.cross_entropy(answer, answer.detach().argmax(1))
    (slope,) = torch.autograd.grad(loss, z)
    return (x + radius * slope.sign()).clamp(0, 1)


def _network(x: Tensor, classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    width, channels, side = 32, x.shape[1], min(x.shape[-2:])
    while side > 4:
        layers += [nn.Conv2d(channels, width, 3, 2 if side > 8 else 1, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1)]
        layers += [nn.ReLU()]
        channels, width, side = width, min(2 * width, 128), -(-side // (4 if side > 8 else 2))
    body = nn.Sequential(*layers, nn.Flatten())
    with torch.no_grad():
        flat = body(torch.zeros_like(x[:1], device="cpu")).shape[1]
    return nn.Sequential(body, nn.Linear(flat, 128), nn.ReLU(), nn.Linear(128, classes))
