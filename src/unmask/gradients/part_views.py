"""Views that let gradients skip the code between two parts, written inline or outside of torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.gradients.bpda import ModelView, View, find_part, fit_size, identity, substitute

__all__ = ["skip_to", "submodule_only", "submodule_output"]


def skip_to(part: str, surrogate: Callable[[Tensor], Tensor] = identity) -> View:
    """A view in which gradients go from what ``part`` is given straight to the model's input, through ``surrogate``.

    For whatever stands in between without being a module: numpy, ``no_grad``, other libraries. The forward pass
    stays the model's own, and so do gradients that the model takes itself by what it gives to ``part``. ``surrogate``
    takes the model's input (B, C, H, W) to the part's, to which its images are resized.

    Raises UnmaskError, once the view is applied, for a path that the model does not have.

    >>> class Defense(nn.Module):
    ...     def __init__(self): super().__init__(); self.net = nn.Flatten()
    ...     def forward(self, x): return self.net(torch.from_numpy(x.detach().numpy().round()))
    >>> x = torch.full((1, 1, 1, 2), 0.4, requires_grad=True)
    >>> skip_to("net")(Defense())(x).sum().backward(); x.grad.flatten().tolist()
    [1.0, 1.0]
    """

    def run(model: nn.Module, x: Tensor) -> Any:
        def join(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            true = args[0]
            if not (torch.is_grad_enabled() and x.requires_grad and len(true) == len(x)):
                return args
            if true.requires_grad and true.is_leaf:
                return args  # the model itself differentiates by it
            return substitute(true, fit_size(part, surrogate(x), true)), *args[1:]

        with find_part(model, part).register_forward_pre_hook(join):
            return model(x)

    return lambda model: ModelView(model, run, part)


def submodule_output(part: str) -> View:
    """A model that answers what ``part`` gives, (B, K), the mean of its calls: without what is made of it later.

    Where each call is given some of the images only, the calls are joined.

    For votes, hard labels, temperatures and other functions of logits that flatten them. What it finds
    transfers to the model where the two agree in class.

    Raises UnmaskError for a path that the model does not have, or that is not called.

    >>> class Hard(nn.Module):
    ...     def __init__(self): super().__init__(); self.net = nn.Flatten()
    ...     def forward(self, x): return nn.functional.one_hot(self.net(x).argmax(1), 2).float()
    >>> submodule_output("net")(Hard())(torch.tensor([[[[0.2, 0.7]]]]))
    tensor([[0.2000, 0.7000]])
    """

    def run(model: nn.Module, x: Tensor) -> Tensor:
        seen: list[Tensor] = []
        with find_part(model, part).register_forward_hook(lambda _, args, output: seen.append(output)):
            model(x)
        if not seen:
            raise UnmaskError(f"part {part!r} is not called in the forward pass: its output cannot be read")
        if len(seen[0]) < len(x) == sum(map(len, seen)):
            return torch.cat(seen)  # a call for each image, or for a few
        return torch.stack(seen).mean(0)

    return lambda model: ModelView(model, run, part)


def submodule_only(part: str) -> View:
    """A model that is one part of the given one, applied to the images: the defense without what comes before.

    Raises UnmaskError, once the view is applied, for a path that the model does not have.

    >>> submodule_only("1")(nn.Sequential(nn.Sigmoid(), nn.Flatten()))(torch.full((1, 1, 1, 2), 0.4))
    tensor([[0.4000, 0.4000]])
    """
    return lambda model: find_part(model, part)
