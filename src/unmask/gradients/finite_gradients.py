"""Gradients that are finite where a model's own are NaN or infinite."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unmask.gradients.bpda import ModelView, substitute
from unmask.randomness import normal
from unmask.types import Output, as_output

__all__ = ["finite_gradients"]

_DISTANCE = 1e-3
"""Standard deviation of the noise on images, in the range of a pixel."""


def _run(model: nn.Module, x: Tensor) -> Any:
    if not (torch.is_grad_enabled() and x.requires_grad):
        return model(x)
    with torch.no_grad():
        true = as_output(model(x.detach().clone()))
    with _Repaired():
        moved = x + _DISTANCE * normal(x.shape, like=x)
        near = as_output(model(1 - (1 - moved.abs()).abs()))  # reflected at 0 and 1
    if true.reject is None or near.reject is None:
        return substitute(true.logits, near.logits)
    return Output(substitute(true.logits, near.logits), substitute(true.reject, near.reject))


class _Repaired(TorchFunctionMode):
    """In the backward pass, elements of gradients that are not finite count as 0 from where they come up."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        value = func(*args, **(kwargs or {}))
        if isinstance(value, Tensor) and value.requires_grad and getattr(func, "__name__", "") != "__get__":
            value.register_hook(_finite)
        return value


def _finite(gradient: Tensor) -> Tensor:
    return gradient.nan_to_num(0.0, 0.0, 0.0)


def finite_gradients(model: nn.Module) -> nn.Module:
    """A view of ``model`` with the same forward pass and gradients without NaN or infinite elements.

    Use where the own gradient is NaN at some images, as that of ``x.sqrt()`` at 0, of a norm at 0, or of
    ``where(x > 0, x.log(), 0)``. The gradient is taken at the image plus noise of 0.001, which is off the points where
    a function has no derivative; what is not finite all the same counts as 0 where it comes up, before it spreads. It
    costs a forward pass more. It does not repair a gradient that is finite and wrong.

    Args:
        model: any module; it stays as it is.

    Returns:
        A module on (B, C, H, W) images that gives what ``model`` gives.

    >>> class Root(nn.Module):
    ...     def forward(self, x): return x.sqrt().square().flatten(1)
    >>> x = torch.zeros(1, 1, 1, 2, requires_grad=True)
    >>> Root()(x).sum().backward(); own = x.grad.clone(); x.grad = None
    >>> finite_gradients(Root())(x).sum().backward()
    >>> own.flatten().tolist(), bool((x.grad.abs() - 1).abs().max() < 1e-3)
    ([nan, nan], True)
    """
    return ModelView(model, _run)
