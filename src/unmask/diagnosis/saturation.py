"""Whether the usual loss of attacks is flat at the images, though the logits are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.losses import cross_entropy, margin
from unmask.models.model_wrappers import query
from unmask.randomness import Keys, use_keys
from unmask.types import Loss

__all__ = ["Saturation", "saturation"]

_FLAT = 1e-30

_SQUASHED = 0.1
"""As a share of the steepest likely logit; without saturation the other logits are about a third as steep."""

_LIKELIEST = 10


@dataclass(frozen=True)
class Saturation:
    """Measured on images (B, C, H, W) that the model classifies correctly.

    ``flat`` is the share of images whose gradient of the cross entropy is zero or underflows, ``zero_gradient`` the
    share whose gradient of the margin does; ``probabilities`` whether the outputs are probabilities instead of logits.
    ``saturated_logits`` is the share of images for which more than half of the ten likeliest logits hardly change
    while others do, as under tanh: the cross entropy then follows the logits that are not saturated.
    """

    flat: float
    zero_gradient: float
    probabilities: bool
    saturated_logits: float = 0.0
    measured: bool = True  # whether torch could go back at all; else no gradient counts as one that is zero


def saturation(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, keys: Keys) -> Saturation:
    """Measured on one draw of the model's randomness."""
    measured = True

    def still(loss: Loss) -> float:
        nonlocal measured
        z = x.detach().clone().requires_grad_()
        with use_keys(keys, uses_torch_random=True), torch.enable_grad():
            value = loss(query(model, z), y)
        if not value.requires_grad:
            return 1.0
        try:
            (slope,) = torch.autograd.grad(value.sum(), z, allow_unused=True)
        except RuntimeError:  # torch refuses, since a tensor that is needed has been written into
            measured = False
            return 1.0
        return 1.0 if slope is None else float((slope.flatten(1).abs().amax(1) <= _FLAT).double().mean())

    with torch.no_grad(), use_keys(keys, uses_torch_random=True):
        logits = query(model, x).logits.float()
    shares = bool((logits >= 0).all() and ((logits.sum(1) - 1).abs() < 1e-3).all())
    flat, zero = still(cross_entropy), still(margin)
    return Saturation(flat, zero, shares, _squashed(model, x, keys), measured)


def _squashed(model: Callable[[Tensor], Tensor], x: Tensor, keys: Keys) -> float:
    z = x.detach().clone().requires_grad_()
    with use_keys(keys, uses_torch_random=True), torch.enable_grad():
        logits = query(model, z).logits
        likeliest = logits.topk(min(_LIKELIEST, logits.shape[1]), 1).values.sum(0)
    if not likeliest.requires_grad:
        return 0.0
    try:
        slopes = [torch.autograd.grad(one, z, retain_graph=True, allow_unused=True)[0] for one in likeliest]
    except RuntimeError:  # torch refuses, as above
        return 0.0
    sizes = torch.stack([x.new_zeros(len(x)) if s is None else s.flatten(1).norm(dim=1) for s in slopes])
    return float((sizes.median(0).values < _SQUASHED * sizes.amax(0)).double().mean())
