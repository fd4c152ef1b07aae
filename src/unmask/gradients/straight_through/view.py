"""The view: the model runs under the mode, and what it answers carries the gradients of the surrogates."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from unmask.gradients.bpda import ModelView
from unmask.gradients.straight_through.constructors import followed_constructors
from unmask.gradients.straight_through.hooks import suspended_hooks
from unmask.gradients.straight_through.mode import Surrogates
from unmask.gradients.straight_through.writes import Saved
from unmask.models.graph_memory import counted
from unmask.types import as_output

__all__ = ["narrow_straight_through", "straight_through", "unrolled"]

_NARROW = 0.1


def _run(model: nn.Module, x: Tensor, *, unroll: bool = False, width: float = 1.0) -> Any:
    if not (torch.is_grad_enabled() and x.requires_grad):
        return model(x)
    saved = Saved()
    mode = Surrogates(model, saved, unroll=unroll, width=width)
    try:
        hooks = (
            saved_tensors_hooks(lambda tensor: saved.pack(counted(tensor)), saved.unpack),
            suspended_hooks(model, mode.context),
        )
        with hooks[0], hooks[1], followed_constructors(mode.context), mode:
            answer = model(mode.context.gate(x.detach().clone(), x))
            refusal = as_output(answer)  # a mask of refused images becomes a margin while it still has a gradient
            return answer if refusal.reject is None else refusal
    finally:
        mode.context.close()
        _release_buffers(model)


def _release_buffers(model: nn.Module) -> None:
    """State that is kept for the next forward pass must not keep the graph of this one."""
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.grad_fn is not None:
                module._buffers[name] = buffer.detach()


def straight_through(model: nn.Module) -> nn.Module:
    """A view of ``model`` with the same forward pass, to the bit, and useful gradients with respect to the input.

    Every torch operation of the forward pass, in whatever module, runs as ever; where it cuts the
    gradient, the gradient of a surrogate takes its place:

    ==============================================  ==========================================================
    round, floor, ceil, trunc; clamp, hardtanh      identity, also out of range (``clamp(min=0)`` stays a ReLU)
    casts to integer types; ``>> << // & |``        those of the numbers: ``>> k`` divides by 2**k, ``&`` passes
    ``detach``, ``.data``, ``no_grad``; hooks on    as if they were not there
    gradients, of tensors and of modules
    sign, heaviside; ``> >= < <= == !=``            a smooth step, as wide as its operands spread in an example
    sigmoid, tanh, softmax where they are flat      a step as wide as that; softmax at a higher temperature
    ``%``, fmod, frac                               one half: between ``x - x % s`` and ``x % s``
    argmax, ``x == x.max()``; topk; argsort, sort   softmax; mean of the k; by nearness to the k-th
    table[label], embedding, take, gather           the mean of the entries, by how much each class is meant
    t[label] += v, scatter, index_put, bincount     v goes to every class, by how much that is meant
    mode, ==, ``+ * // % ^``, casts of labels       how much each class is meant
    bucketize, one_hot, scatter of other integers   position between the boundaries; heavy-tailed hats
    table[i], gather, ... of other integers         linear interpolation between neighbouring entries
    cdist with p=0                                  the number of elements that differ, by those of ``!=``
    where, masked_fill, ``x[mask] = v``             besides the chosen branch, (a - b) times that of the condition
    ==============================================  ==========================================================

    Integers and booleans carry the gradient through arithmetic and changes of shape until they are floats
    again. Custom autograd functions keep their own backward pass. Gradients that the model itself takes
    inside its forward pass are its true ones, and their graphs end there: see :func:`unrolled`.

    Out of reach: numpy, ``torch.inference_mode``, scripted code, and what happens inside composite functions of
    ``torch.nn.functional``. A leaf that ``Variable`` or ``nn.Parameter`` makes of a tensor keeps the gradient of that
    tensor, and so does a tensor in memory that numpy was given, whatever numpy wrote there. A model that calls
    ``torch.func.grad`` fails. Gradients do not pass through the model's buffers. Where x does not require a gradient,
    or gradients are disabled, the model runs by itself.

    Args:
        model: any module; its parameters, modules and hooks are left as they are.

    Returns:
        A module on (B, ...) inputs that gives what ``model`` gives; an :class:`unmask.Output` where that refuses.

    >>> import torch
    >>> class Quantize(nn.Module):
    ...     def forward(self, x): return ((x * 255).to(torch.uint8) >> 5).float()
    >>> x = torch.tensor([0.5], requires_grad=True)
    >>> y = straight_through(Quantize())(x); y.backward()
    >>> y.item(), x.grad.item() == 255 / 32
    (3.0, True)
    """
    return ModelView(model, _run)


def narrow_straight_through(model: nn.Module) -> nn.Module:
    """:func:`straight_through` with smooth steps a tenth as wide for comparisons and signs.

    For thresholds that few elements are near, such as that of the k largest activations: a wide step has a gradient for
    all others too, which outweighs them.

    Args:
        model: any module; its parameters, modules and hooks are left as they are.

    Returns:
        A module on (B, ...) inputs that gives what ``model`` gives.

    >>> import torch
    >>> x = torch.tensor([[0.5, 0.9]], requires_grad=True)
    >>> class Above(nn.Module):
    ...     def forward(self, x): return (x > 0.5).float()
    >>> slopes = [torch.autograd.grad(v(Above())(x)[0, 0], x)[0] for v in (straight_through, narrow_straight_through)]
    >>> round((slopes[1] / slopes[0])[0, 0].item())
    10
    """
    return ModelView(model, partial(_run, width=_NARROW))


def unrolled(model: nn.Module) -> nn.Module:
    """:func:`straight_through`, and also through the gradients that the model takes inside its forward pass.

    For defenses that solve a problem for each image, by steps that they cut off: Defense-GAN, purification by
    descent on an energy or on a denoising score. The steps become a part of the graph, which takes memory
    for each; those of ``torch.optim`` too, as long as it works on one tensor at a time. Values may differ in
    the last bits.

    Args:
        model: any module; its parameters, modules and hooks are left as they are.

    Returns:
        A module on (B, ...) inputs that gives what ``model`` gives.

    >>> import torch
    >>> class Descent(nn.Module):
    ...     def forward(self, x):
    ...         z = torch.zeros_like(x)
    ...         with torch.enable_grad():
    ...             for _ in range(2):
    ...                 z = z.detach().requires_grad_()
    ...                 z = z - 0.25 * torch.autograd.grad((z - x.detach()).square().sum(), z)[0]
    ...         return z.detach()
    >>> x = torch.tensor([1.0], requires_grad=True)
    >>> torch.autograd.grad(unrolled(Descent())(x), x)
    (tensor([0.7500]),)
    """
    return ModelView(model, partial(_run, unroll=True))
