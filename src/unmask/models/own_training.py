"""Models that train their own weights while they answer, as adaptation at test time does."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from unmask.randomness import make_keys, use_keys
from unmask.state import State
from unmask.state.deep_copy import deep_copy

__all__ = ["differentiates_by_weights"]

_known: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def differentiates_by_weights(model: nn.Module, x: Tensor) -> bool:
    """Whether a model answers images (B, C, H, W), but raises an error where no weight of it requires a gradient.

    It is tried once for each model, on copies of it and on two of the images. What the model keeps stays as it was.

    >>> class Adapts(nn.Module):
    ...     def __init__(self): super().__init__(); self.scale = nn.Parameter(torch.ones(()))
    ...     def forward(self, x):
    ...         with torch.enable_grad():
    ...             loss = (self.scale * x.detach()).square().mean()
    ...         return (self.scale - torch.autograd.grad(loss, self.scale)[0]) * x.flatten(1)
    >>> images = torch.ones(2, 1, 1, 2)
    >>> differentiates_by_weights(Adapts(), images), differentiates_by_weights(nn.Flatten(), images)
    (True, False)
    """
    if model not in _known:
        _known[model] = any(one.requires_grad for one in model.parameters()) and _tried(model, x)
    return _known[model]


def _tried(model: nn.Module, x: Tensor) -> bool:
    state = State(model)  # what copies share, such as global variables
    try:
        return not _answers(model, x, frozen=True) and _answers(model, x, frozen=False)
    finally:
        state.restore()


def _answers(model: nn.Module, x: Tensor, *, frozen: bool) -> bool:
    with torch.no_grad():
        twin = deep_copy(model)
    if frozen:
        twin.requires_grad_(False)
    rows = torch.arange(2, device=x.device) % len(x)
    try:
        with use_keys(make_keys(0, [0, 1], "own training"), uses_torch_random=True), torch.enable_grad():
            twin(x[rows].detach().clone())
    except Exception:  # of the author's code
        return False
    return True
