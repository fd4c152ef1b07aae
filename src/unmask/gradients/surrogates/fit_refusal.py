"""A network that learns which images a model refuses, for a refusal that is computed where no gradient reaches it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.gradients.bpda import ModelView, Surrogate, View, find_part, substitute
from unmask.gradients.parts.outputs import of_all_images, outputs_of
from unmask.gradients.rows import averaged_copies
from unmask.losses import margin
from unmask.models.model_wrappers import frozen_copy
from unmask.randomness import Keys, make_keys, normal, uniform, use_keys
from unmask.types import Output, as_output

__all__ = ["fit_refusal", "refusal_head"]

_STEP = 0.4
"""Of a move, as a share of the radius."""

_MOMENTUM = 0.75

_COMPARED = 16
"""Classifiers, or calls of one, that are compared with one another."""

_SMALL = 1024
"""Numbers of an image, up to which they are features themselves."""


def refusal_head(part: str | Sequence[str], head: Surrogate) -> View:
    """A view whose margin of refusal has the gradient of ``head``, of what parts of the model give.

    For detectors whose refusal comes from numpy, or is a comparison of which little is known. Logits and values stay
    those of the model. :func:`unmask.fit_refusal` fits a head.

    Args:
        part: a path as in ``model.named_modules()``; or several. ``head`` takes features of each image: the outputs of
            all their calls, the model's logits where none of these has their form, the softmax of what has, the pixels
            of images of up to 1024 numbers, and how far outputs are from the image and from one another.
        head: from these (B, N) to a margin (B,).

    Raises UnmaskError for a path that the model does not have, for a part that is not called, and for a model that
    refuses nothing.

    >>> class Detector(nn.Module):
    ...     def __init__(self): super().__init__(); self.net = nn.Flatten()
    ...     def forward(self, x): z = self.net(x); return Output(z, torch.from_numpy(z.detach().numpy()[:, 0] > 0.5))
    >>> x = torch.tensor([[[[0.7, 0.2]]]], requires_grad=True)
    >>> view = refusal_head("net", lambda features: 3 * features[:, 0])(Detector())
    >>> view(x).reject.sum().backward(); x.grad.flatten().tolist()
    [3.0, 0.0]
    """
    parts = (part,) if isinstance(part, str) else tuple(part)

    def run(model: nn.Module, x: Tensor) -> Output:
        answer, features = _observed(model, parts, x)
        assert answer.reject is not None
        return answer._replace(reject=substitute(answer.reject.to(features.dtype), head(features)))

    def view(model: nn.Module) -> nn.Module:
        for path in parts:
            find_part(model, path)
        return ModelView(model, run)

    return view


def fit_refusal(
    model: nn.Module,
    part: str | Sequence[str],
    x: Tensor,
    *,
    radius: float,
    rounds: int = 4,
    steps: int = 150,
    moves: int = 5,
    batch: int = 64,
    seed: int = 0,
) -> Surrogate:
    """Fit a head for :func:`unmask.refusal_head` to the refusals of ``model``.

    It learns from mixtures of images, and from images that are moved towards a wrong class and, from the second round
    on, towards what it takes for acceptance itself: thus it learns where an attack goes.

    Args:
        part: path of a part, or of several, as of :func:`unmask.refusal_head`; ``()`` for none.
        x: images (N, C, H, W) in [0, 1].
        radius: of the changes of images, root mean square per pixel.
        rounds, steps: of queries, and of Adam after each round.
        moves: of each image, in each round.
        batch: images at a time.

    Raises UnmaskError as :func:`unmask.refusal_head` does, and where the model refuses all of the images or none.

    >>> class Detector(nn.Module):
    ...     def __init__(self): super().__init__(); self.net = nn.Flatten()
    ...     def forward(self, x): z = self.net(x); return Output(z, torch.from_numpy(z.detach().numpy()[:, 0] > 0.5))
    >>> head = fit_refusal(Detector(), "net", torch.rand(64, 1, 1, 2), radius=0.1)
    >>> x = torch.tensor([[[[0.45, 0.5]]]], requires_grad=True)
    >>> refusal_head("net", head)(Detector())(x).reject.sum().backward()
    >>> (x.grad > 0).flatten().tolist()[0]
    True
    """
    parts, keys = (part,) if isinstance(part, str) else tuple(part), make_keys(seed, range(len(x)), "refusal")
    twin = frozen_copy(model, x)

    def observe(images: Tensor, keys: Keys) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), use_keys(keys, uses_torch_random=True):
            answer, features = _observed(twin, parts, images)
        assert answer.reject is not None
        return features, (answer.reject > 0).to(features.dtype)

    def loss_of(head: nn.Module | None, y: Tensor) -> Callable[[Tensor], Tensor]:
        def loss(z: Tensor) -> Tensor:
            answer, features = _observed(twin, parts, z)
            return margin(Output(answer.logits, None if head is None else head(features)), y)

        return loss

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        seen, refused = observe(x, keys)
        with torch.no_grad(), use_keys(keys, uses_torch_random=True):
            y = as_output(twin(x.clone())).logits.argmax(1)
        head = _head(seen.shape[1]).to(x.device)
        optimizer, order = torch.optim.Adam(head.parameters(), 2e-3), torch.Generator().manual_seed(seed)
        for turn in range(rounds):
            drawn = keys.fold_in(turn)
            with use_keys(drawn, uses_torch_random=True):
                asked = [_mixed(x, radius), *_moved(loss_of(head if turn else None, y), x, radius, moves)]
            pairs = [(seen, refused), *(observe(images, drawn) for images in asked)]
            seen, refused = (torch.cat(side) for side in zip(*pairs, strict=True))
            if refused.all() or not refused.any():
                continue
            _train(head, optimizer, seen, refused, steps, batch, order)
    if refused.all() or not refused.any():
        share = "all" if refused.any() else "none"
        raise UnmaskError(f"the model refuses {share} of the images: nothing can be fitted")
    return head.eval().requires_grad_(False)


def _head(wide: int) -> nn.Module:
    norm = nn.BatchNorm1d(wide, affine=False)  # features have any scale
    return nn.Sequential(norm, nn.Linear(wide, 256), nn.ReLU(), nn.Linear(256, 1), nn.Flatten(0)).eval()


def _train(
    head: nn.Module,
    optimizer: torch.optim.Optimizer,
    seen: Tensor,
    refused: Tensor,
    steps: int,
    batch: int,
    order: torch.Generator,
) -> None:
    head.train()
    for _ in range(steps):
        rows = torch.randint(len(seen), (batch,), generator=order).to(seen.device)
        with torch.enable_grad():
            loss = F.binary_cross_entropy_with_logits(head(seen[rows]), refused[rows])
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
    head.eval()


def _mixed(x: Tensor, radius: float) -> Tensor:
    share = 0.5 + 0.5 * uniform((len(x), 1, 1, 1), x)
    return (share * x + (1 - share) * x.roll(1, 0) + radius * normal(x.shape, x)).clamp(0, 1)


def _moved(loss: Callable[[Tensor], Tensor], x: Tensor, radius: float, moves: int) -> list[Tensor]:
    """Images on the way of a search around ``x``."""
    z, mean, found = (x + radius * (2 * uniform(x.shape, x) - 1)).clamp(0, 1), torch.zeros_like(x), list[Tensor]()
    for _ in range(moves):
        z = z.clone().requires_grad_()
        with torch.enable_grad():
            values = loss(z)
        slope = torch.zeros_like(z)
        if values.requires_grad:
            slope = torch.autograd.grad(values.sum(), z, allow_unused=True)[0]
            slope = torch.zeros_like(z) if slope is None else slope.nan_to_num(0.0, 0.0, 0.0)
        mean = _MOMENTUM * mean + slope / slope.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)
        z = z.detach() + _STEP * radius * mean.sign()
        z = torch.minimum(torch.maximum(z, x - radius), x + radius).clamp(0, 1)
        found.append(z)
    return found


def _observed(model: nn.Module, parts: Sequence[str], x: Tensor) -> tuple[Output, Tensor]:
    """What the model answers to images (B, C, H, W), and what parts of it make of them: (B, N)."""
    made, seen = outputs_of(model, parts, x.clone())
    answer = as_output(made)
    if answer.reject is None:
        raise UnmaskError("the model refuses nothing: no refusal can be learned")
    logits = answer.logits.float()
    outputs = [averaged_copies(one, len(x)).float() for calls in seen.values() for one in of_all_images(calls, len(x))]
    classified = [one for one in outputs if one.shape == logits.shape]
    features = [one.flatten(1) for one in outputs] + ([] if classified else [logits])
    features += [one.softmax(1) for one in classified or [logits]]  # a detector mostly compares probabilities
    features += [x.flatten(1)] if x[0].numel() <= _SMALL else []
    shown = [one.flatten(1) - x.flatten(1) for one in outputs if one[0].numel() == x[0].numel()]
    for apart in shown:  # of an autoencoder, the error of reconstruction
        features += [apart.square().mean(1, keepdim=True), apart.abs().mean(1, keepdim=True)]
    for one, other in combinations([*classified[:_COMPARED], logits], 2):
        features += [_agreement(one, other), (one.softmax(1) - other.softmax(1)).abs().sum(1, keepdim=True)]
    return answer, torch.cat(features, 1)


def _agreement(one: Tensor, other: Tensor) -> Tensor:
    """Logarithm of the probability that two classifiers, by their logits (B, K), draw the same class: (B, 1)."""
    return (one.log_softmax(1) + other.log_softmax(1)).logsumexp(1, keepdim=True)
