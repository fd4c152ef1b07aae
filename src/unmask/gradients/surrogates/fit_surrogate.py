"""A surrogate fitted to a part, or to the code before it: a small network that learns what is done to its inputs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from contextvars import Context
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.gradients.bpda import ModelView, Surrogate, View, bpda, find_part
from unmask.gradients.rows import match_rows
from unmask.gradients.surrogates.fitting import Seen, Training, fit
from unmask.state.digests import digest_of

__all__ = ["fit_skip", "fit_surrogate", "lazy_surrogate"]


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
    known: dict[str, Surrogate] = {}

    def approximated(model: nn.Module) -> nn.Module:
        weights = digest_of(model.state_dict())
        if weights not in known:
            known[weights] = fit_surrogate(model, part, images(), **options)
        return bpda(part, known[weights])(model)

    def view(model: nn.Module) -> nn.Module:
        fitted = cache(
            lambda model: Context().run(approximated, model)
        )  # independent of the randomness of the first call
        return ModelView(model, lambda model, x: fitted(model)(x), part)

    return view


def fit_surrogate(
    model: nn.Module,
    part: str,
    x: Tensor,
    *,
    call: int = 0,
    network: nn.Module | None = None,
    steps: int = 300,
    batch: int = 64,
    rate: float = 2e-3,
    noise: float = 0.1,
    rounds: int | None = None,
    seed: int = 0,
) -> Surrogate:
    """Fit ``network`` to the part of ``model`` at a dotted path, for :func:`unmask.bpda`.

    Where the part makes copies of its rows, or averages them, the network learns the mean of the copies.

    Args:
        x: images (N, C, H, W) in [0, 1] to fit on; the part sees what reaches it from them.
        call: which call of the part, from 0, where a pass calls it several times.
        network: from the part's inputs to its outputs, shapes as the part's. None gives two 3x3
            convolutions with a skip from the input where the part maps images to images of its own size,
            and a two-layer perceptron otherwise.
        steps, batch, rate: of Adam on the mean squared error.
        noise: standard deviation of Gaussian noise on the images, so that the fit holds around them.
        rounds: how often the part is queried for each image, with new noise each time, if it is slow; less often
            where what is kept would exceed 2^25 numbers. None queries it in each step.

    Raises UnmaskError where the model has no such part or does not call it, or not so often.

    >>> class Double(nn.Module):
    ...     def forward(self, x): return (2 * x).round() / 1
    >>> model = nn.Sequential(Double(), nn.Flatten())
    >>> fitted = fit_surrogate(model, "0", torch.rand(64, 1, 4, 4), steps=200)
    >>> bool((fitted(torch.full((1, 1, 4, 4), 0.5)) - 1).abs().mean() < 0.5)
    True
    """
    module, seen = find_part(model, part), Seen()

    def observe(images: Tensor) -> tuple[Tensor, Tensor]:
        with seen.whole(module):
            model(images.clone())
        if call >= len(seen.made):
            times = f"{len(seen.made)} times" if seen.made else "not"
            raise UnmaskError(f"part {part!r} is {times} called in the forward pass: no surrogate can be fitted to it")
        return seen.given[call], match_rows(seen.made[call], seen.given[call])

    return fit(observe, x, network, Training(steps, batch, rate, noise, rounds, seed))


def fit_skip(
    model: nn.Module,
    part: str,
    x: Tensor,
    *,
    source: str | None = None,
    network: nn.Module | None = None,
    steps: int = 300,
    batch: int = 64,
    rate: float = 2e-3,
    noise: float = 0.1,
    rounds: int | None = 4,
    seed: int = 0,
) -> Surrogate:
    """Fit ``network`` to whatever lies between the images, or the output of ``source``, and ``part``.

    For :func:`unmask.skip_to` with the same ``source``: an encoder or a filter that is written in numpy, say, is no
    module that a surrogate could be fitted to. Where the part is given copies of the images, the network learns
    their mean.

    Args:
        x: images (N, C, H, W) in [0, 1] to fit on.
        source: path of a part whose (last) output comes before the code; None for the images.
        network: from these to what ``part`` is given; the default as of :func:`fit_surrogate`.
        steps, batch, rate, noise, rounds: as of :func:`fit_surrogate`.

    Raises UnmaskError where the model has no such part or does not call it.

    >>> class Defense(nn.Module):
    ...     def __init__(self): super().__init__(); self.net = nn.Flatten()
    ...     def forward(self, x): return self.net(torch.from_numpy(1 - x.detach().numpy().round()))
    >>> fitted = fit_skip(Defense(), "net", torch.rand(64, 1, 4, 4), steps=200)
    >>> bool(fitted(torch.ones(1, 1, 4, 4)).mean() < fitted(torch.zeros(1, 1, 4, 4)).mean())
    True
    """
    module, before = find_part(model, part), None if source is None else find_part(model, source)
    seen, start = Seen(), Seen()

    def observe(images: Tensor) -> tuple[Tensor, Tensor]:
        with seen.whole(module), nullcontext() if before is None else start.whole(before):
            model(images.clone())
        if not seen.given or (before is not None and not start.made):
            raise UnmaskError(f"part {part!r} is not called in the forward pass: nothing can be fitted up to it")
        few = len(seen.given[0]) < len(images)  # a call for each image, or for a few
        goal = torch.cat(seen.given) if few else seen.given[0]
        given = images if before is None else start.made[-1]
        return given, match_rows(goal, given)

    return fit(observe, x, network, Training(steps, batch, rate, noise, rounds, seed))
