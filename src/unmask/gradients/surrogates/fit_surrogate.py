"""A surrogate fitted to a part: a small network that learns what the part does to its inputs."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.gradients.bpda import ModelView, View, bpda, find_part
from unmask.randomness import make_keys, use_keys
from unmask.state.digests import digest_of

__all__ = ["fit_surrogate", "lazy_surrogate"]


def lazy_surrogate(part: str, images: Callable[[], Tensor], **options: Any) -> View:
    """BPDA through a surrogate that is fitted at the first call of the model, and again only for other weights.

    ``images()`` gives those that it is fitted on; arguments and errors as of :func:`fit_surrogate`.

    >>> class Steps(nn.Module):
    ...     def forward(self, x): return (4 * x).round() / 4
    >>> view = lazy_surrogate("0", lambda: torch.rand(64, 1, 4, 4), steps=20)
    >>> x = torch.rand(2, 1, 4, 4).requires_grad_()
    >>> view(nn.Sequential(Steps(), nn.Flatten()))(x).sum().backward(); bool(x.grad.abs().sum() > 0)
    True
    """
    known: dict[str, Callable[[Tensor], Tensor]] = {}

    def fit(model: nn.Module) -> nn.Module:
        weights = digest_of(model.state_dict())
        if weights not in known:
            known[weights] = fit_surrogate(model, part, images(), **options)
        return bpda(part, known[weights])(model)

    def view(model: nn.Module) -> nn.Module:
        fitted = cache(lambda model: Context().run(fit, model))  # independent of the randomness of the first call
        return ModelView(model, lambda model, x: fitted(model)(x), part)

    return view


def fit_surrogate(
    model: nn.Module,
    part: str,
    x: Tensor,
    *,
    network: nn.Module | None = None,
    steps: int = 300,
    batch: int = 64,
    rate: float = 2e-3,
    noise: float = 0.1,
    fresh: bool = True,
    seed: int = 0,
) -> Callable[[Tensor], Tensor]:
    """Fit ``network`` to the part of ``model`` at a dotted path, for :func:`unmask.bpda`.

    Args:
        x: images (N, C, H, W) in [0, 1] to fit on; the part sees what reaches it from them.
        network: from the part's inputs to its outputs, shapes as the part's. None gives two 3x3
            convolutions with a skip from the input where the part maps images to images of its own size,
            and a two-layer perceptron otherwise.
        steps, batch, rate: of Adam on the mean squared error.
        noise: standard deviation of Gaussian noise on the images, so that the fit holds around them.
        fresh: new noise in each step. False queries the part once for each image, if it is slow.

    Raises UnmaskError where the model has no such part or the part is never called.

    >>> class Double(nn.Module):
    ...     def forward(self, x): return (2 * x).round() / 1
    >>> model = nn.Sequential(Double(), nn.Flatten())
    >>> fitted = fit_surrogate(model, "0", torch.rand(64, 1, 4, 4), steps=200)
    >>> bool((fitted(torch.full((1, 1, 4, 4), 0.5)) - 1).abs().mean() < 0.5)
    True
    """
    generator = torch.Generator().manual_seed(seed)
    module, keys = find_part(model, part), make_keys(seed, range(min(batch, len(x))), "surrogate")

    def observe(images: Tensor, step: int) -> tuple[Tensor, Tensor]:
        with use_keys(keys.fold_in(step), uses_torch_random=True):  # of the model
            return _observe(model, module, part, images)

    inputs, outputs = observe(x[:2], 0)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = _default(inputs, outputs) if network is None else network
    network = network.to(x.device).train()
    optimizer = torch.optim.Adam(network.parameters(), rate)

    def around(images: Tensor) -> Tensor:
        return (images + noise * torch.randn(images.shape, generator=generator).to(images)).clamp(0, 1)

    pairs = [] if fresh else [observe(around(images), step) for step, images in enumerate(x.split(batch))]
    seen = [torch.cat(side) for side in zip(*pairs, strict=True)]
    for step in range(steps):
        index = torch.randint(len(x), (min(batch, len(x)),), generator=generator)
        inputs, outputs = observe(around(x[index]), step) if fresh else (s[index] for s in seen)
        with torch.enable_grad():
            loss = (network(inputs) - outputs).square().mean()
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
    return network.eval().requires_grad_(False)


@torch.no_grad()
def _observe(model: nn.Module, module: nn.Module, part: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """What goes into a part and what comes out of it when the model sees ``x``."""
    seen: list[tuple[Tensor, Tensor]] = []

    def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        seen.append((args[0].float().clone(), output.float().clone()))

    with module.register_forward_hook(hook):
        model(x.clone())
    if not seen:
        raise UnmaskError(f"part {part!r} is not called in the forward pass: no surrogate can be fitted to it")
    return seen[0]


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


def _default(inputs: Tensor, outputs: Tensor) -> nn.Module:
    if inputs.ndim == outputs.ndim == 4 and inputs.shape[-2:] == outputs.shape[-2:]:
        return _Residual(inputs.shape[1], outputs.shape[1])
    wide = outputs[0].numel()
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs[0].numel(), 256),
        nn.ReLU(),
        nn.Linear(256, wide),
        nn.Unflatten(1, outputs.shape[1:]),
    )
