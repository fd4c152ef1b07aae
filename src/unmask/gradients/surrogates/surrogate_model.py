"""A copy of a whole model, or of what it makes of its features, fitted to its answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.gradients.bpda import Surrogate, identity
from unmask.gradients.parts.submodule_output import submodule_output
from unmask.models.model_wrappers import frozen_copy, query
from unmask.randomness import Keys, make_keys, normal, uniform, use_keys
from unmask.types import Model

__all__ = ["fit_head", "train_surrogate"]


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
    return _trained(model, identity, x, radius, keys, _Queries(rounds, steps, batch, moves=1))


def fit_head(
    model: nn.Module,
    part: str | Sequence[str],
    x: Tensor,
    *,
    radius: float,
    rounds: int = 4,
    steps: int = 120,
    batch: int = 64,
    seed: int = 0,
) -> Surrogate:
    """Fit a head to what ``model`` answers, given what its ``part`` makes of images: for
    :func:`unmask.submodule_output`.

    Where a model goes from features to its answer without a gradient, as by votes of nearest neighbours in numpy, the
    gradients of the features and of this head replace the missing one. As by :func:`unmask.train_surrogate`, the
    head learns from the answers to mixtures of images and to images that its own gradient has moved.

    Args:
        part: path of the last part that gradients reach, with features (B, ...); or paths of several, as of
            :func:`unmask.submodule_output`.
        x: images (N, C, H, W) in [0, 1].
        radius: of the changes of images, root mean square per pixel.
        rounds, steps, batch: as of :func:`unmask.train_surrogate`.

    Returns a function from features (B, ...) to logits (B, K). Raises UnmaskError where the model has no such part or
    does not call it.

    >>> class Signs(nn.Module):
    ...     def __init__(self): super().__init__(); self.features = nn.Flatten()
    ...     def forward(self, x):
    ...         right = self.features(x).detach().numpy().mean(1) > 0.5
    ...         return nn.functional.one_hot(torch.from_numpy(right).long(), 2).float()
    >>> images = torch.rand(64, 1, 1, 2)
    >>> head = fit_head(Signs(), "features", images, radius=0.1)
    >>> head(torch.tensor([[0.9, 0.9], [0.1, 0.1]])).argmax(1).tolist()
    [1, 0]
    """
    body = submodule_output(part)(frozen_copy(model, x))
    keys = make_keys(seed, range(len(x)), "head")
    return _trained(model, body, x, radius, keys, _Queries(rounds, steps, batch, moves=5))


@dataclass(frozen=True)
class _Queries:
    """How often a model is queried, and how a network is fitted to what it answers."""

    rounds: int
    steps: int
    batch: int
    moves: int  # steps along the fitted network's gradient, from each image


def _trained(
    model: Model, body: Callable[[Tensor], Tensor], x: Tensor, radius: float, keys: Keys, how: _Queries
) -> nn.Module:
    """A network that makes of what ``body`` gives for images what ``model`` answers to them."""
    with torch.random.fork_rng():
        torch.manual_seed(int(keys.rows[0]) & 0x7FFFFFFF)
        with torch.no_grad(), use_keys(keys, uses_torch_random=True):
            classes, features = query(model, x[:1]).logits.shape[1], body(torch.cat((x[:1], x[:1])))[:1].float()
        head = _network(features, classes).to(x.device).train()
        optimizer = torch.optim.Adam(head.parameters(), 2e-3)
        seen, answers, order = features[:0], x.new_zeros(0, classes), torch.Generator().manual_seed(0)
        for turn in range(how.rounds):
            drawn = keys.fold_in(turn)
            with use_keys(drawn.fold_in("moves"), uses_torch_random=True):
                moved = _moved(lambda z: head(body(z).float()), x, radius, how.moves) if turn else x
            for asked in (_mixed(x, radius, drawn), moved):
                with torch.no_grad(), use_keys(drawn, uses_torch_random=True):
                    seen = torch.cat((seen, body(asked).float()))
                    answers = torch.cat((answers, query(model, asked).logits.float()))
            for _ in range(how.steps):
                rows = torch.randint(len(seen), (how.batch,), generator=order)
                with torch.enable_grad():
                    loss = _difference(head(seen[rows]), answers[rows], answers)
                    optimizer.zero_grad()
                    loss.backward()
                optimizer.step()
    return head.eval().requires_grad_(False)


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


def _moved(copy: Callable[[Tensor], Tensor], x: Tensor, radius: float, steps: int) -> Tensor:
    """Images where the copy likes its own answer less."""
    z, target = x, None
    for _ in range(steps):
        z = z.clone().requires_grad_()
        with torch.enable_grad():
            answer = copy(z)
            target = answer.detach().argmax(1) if target is None else target
            loss = F.cross_entropy(answer, target)
        (slope,) = torch.autograd.grad(loss, z)
        z = z.detach() + radius * (1 if steps == 1 else 0.5) * slope.sign()
        z = torch.minimum(torch.maximum(z, x - radius), x + radius).clamp(0, 1)
    return z


def _network(features: Tensor, classes: int) -> nn.Module:
    """Convolutions for images and maps of features (B, C, H, W), a perceptron for others (B, ...)."""
    if features.ndim == 4:
        return _convolutions(features, classes)
    wide = features[0].numel()
    norm = nn.BatchNorm1d(wide, affine=False)  # features have any scale
    return nn.Sequential(nn.Flatten(), norm, nn.Linear(wide, 256), nn.ReLU(), nn.Linear(256, classes))


def _convolutions(x: Tensor, classes: int) -> nn.Module:
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
