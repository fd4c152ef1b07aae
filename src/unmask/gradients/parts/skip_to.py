"""A view that lets gradients skip the code between two parts, written inline or outside of torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from unmask.gradients.bpda import ModelView, Surrogate, View, find_part, first_tensor, fit_size, identity, substitute
from unmask.gradients.parts.outputs import tensor_of
from unmask.gradients.rows import each_in_turn

__all__ = ["skip_to"]


def skip_to(part: str | Sequence[str], surrogate: Surrogate = identity, source: str | None = None) -> View:
    """A view in which gradients go from what ``part`` is given straight to the model's input, through ``surrogate``.

    For whatever stands in between without being a module: numpy, ``no_grad``, other libraries. The forward pass
    stays the model's own, and so do gradients that the model takes itself by what it gives to ``part``. ``surrogate``
    takes the model's input (B, C, H, W) to the part's, to which its images are resized and its rows are matched, as
    by :func:`unmask.bpda`. :func:`unmask.fit_skip` fits one. A part that is called for some of the images at a time,
    or by ``torch.func.vmap``, is given these images' gradients.

    Args:
        part: a path as in ``model.named_modules()``; or several, of parts that are given the same.
        surrogate: a differentiable function.
        source: path of a part whose output the surrogate takes instead of the model's input, such as the last features
            that gradients reach.

    Raises UnmaskError, once the view is applied, for a path that the model does not have.

    >>> class Defense(nn.Module):
    ...     def __init__(self): super().__init__(); self.net = nn.Flatten()
    ...     def forward(self, x): return self.net(torch.from_numpy(x.detach().numpy().round()))
    >>> x = torch.full((1, 1, 1, 2), 0.4, requires_grad=True)
    >>> skip_to("net")(Defense())(x).sum().backward(); x.grad.flatten().tolist()
    [1.0, 1.0]
    """
    parts = (part,) if isinstance(part, str) else tuple(part)

    def run(model: nn.Module, x: Tensor) -> Any:
        made = [x]

        def keep(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            made.append(tensor_of(source or "", output))

        with ExitStack() as hooks:
            for path in parts:
                hook = _join(path, surrogate, made)
                hooks.enter_context(find_part(model, path).register_forward_pre_hook(hook, with_kwargs=True))
            if source is not None:
                hooks.enter_context(find_part(model, source).register_forward_hook(keep))
            return model(x)

    def view(model: nn.Module) -> nn.Module:
        for path in (*parts, *([] if source is None else [source])):
            find_part(model, path)
        return ModelView(model, run)

    return view


def _join(path: str, surrogate: Surrogate, made: list[Tensor]) -> Callable[..., tuple[tuple[Any, ...], dict[Any, Any]]]:
    """A hook by which what a part is given has the gradient of ``surrogate`` of the last of ``made``."""
    done = 0

    def joined(true: Tensor) -> Tensor:
        nonlocal done
        start = made[-1]
        if not (torch.is_grad_enabled() and start.requires_grad):
            return true
        if true.requires_grad and true.is_leaf:
            return true  # the model itself differentiates by it
        own = each_in_turn(start, true)
        if own is not None:
            start = own
        elif len(true) < len(start):  # the next of the images
            start = start[done : done + len(true)]
            done = (done + len(true)) % len(made[-1])
        return substitute(true, fit_size(path, surrogate(start), true))

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[Any, Any]]:
        first = first_tensor(path, args, kwargs)
        given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        where = next(place for place, value in given.items() if value is first)
        given[where] = joined(first)
        return tuple(given.pop(place) for place in range(len(args))), given

    return hook
