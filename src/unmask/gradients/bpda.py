"""Backward pass differentiable approximation: a part computes as ever, its gradient comes from a surrogate."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.gradients.rows import match_rows
from unmask.models.checkpointing import computed_once

__all__ = [
    "ModelView",
    "Surrogate",
    "View",
    "bpda",
    "bypass",
    "find_part",
    "first_tensor",
    "fit_size",
    "identity",
    "substitute",
    "with_part",
]

View = Callable[[nn.Module], nn.Module]
"""Takes a model to a module with the same forward pass and another backward pass."""

Surrogate = Callable[[Tensor], Tensor]
"""A differentiable function of what a part is given: (B, ...) -> the shape of what the part gives."""


class _Substitute(torch.autograd.Function):
    generate_vmap_rule = True  # models may call their parts under torch.func.vmap

    @staticmethod
    def forward(true: Tensor, surrogate: Tensor) -> Tensor:
        return true.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


def substitute(true: Tensor, surrogate: Tensor) -> Tensor:
    """The value of ``true``, to the bit, with the gradient of ``surrogate`` (same shape).

    >>> import torch
    >>> x = torch.tensor([1.4], requires_grad=True)
    >>> y = substitute(x.round(), 3 * x)
    >>> y.backward(); (y.item(), x.grad.item())
    (1.0, 3.0)
    """
    result: Tensor = _Substitute.apply(true.detach(), surrogate.to(true.dtype))  # type: ignore[no-untyped-call]
    return result


def identity(x: Tensor) -> Tensor:
    """The surrogate of a part whose output resembles its input."""
    return x


def find_part(model: nn.Module, part: str) -> nn.Module:
    """The submodule at a dotted path, the model's own also through views; UnmaskError names the paths there are."""
    while getattr(model, "is_view", False):
        model = model.get_submodule("model")
    named: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    if part not in named:
        known = ", ".join(name for name in list(named)[1:21]) or "none"
        raise UnmaskError(f"the model has no part {part!r}; its parts: {known}")
    return named[part]


class ModelView(nn.Module):
    """A model run otherwise: by ``run(model, x)``. Its parts have the paths that they have in the model.

    Raises UnmaskError where the model does not have ``part``, None for none.
    """

    is_view = True

    def __init__(self, model: nn.Module, run: Callable[[nn.Module, Tensor], Any], part: str | None = None) -> None:
        super().__init__()
        self.model, self._run = model, run
        if part is not None:
            find_part(model, part)

    def forward(self, x: Tensor) -> Any:
        with computed_once():  # what runs the model otherwise is over when a part would be computed again
            return self._run(self.model, x)


def bpda(part: str, surrogate: Surrogate | Sequence[Surrogate] = identity) -> View:
    """A view in which gradients pass ``part`` through ``surrogate`` (Athalye et al., ICML 2018).

    The forward pass stays the model's own, to the bit. ``part`` is a path as in
    ``model.named_modules()``; ``surrogate`` is any callable on the part's (first) input. Where it gives
    images of another size than the part does, they are resized to it, so that identity also serves
    parts that crop, pad or resize; where the part makes copies of each image, or averages them, so is it with the
    surrogate's rows. A part that is called several times is replaced each time; of a sequence of surrogates each
    serves one of the calls, in order.

    Raises UnmaskError, once the view is applied, for a path that the model does not have.

    >>> import torch
    >>> class Round(nn.Module):
    ...     def forward(self, x): return x.round()
    >>> model = nn.Sequential(Round(), nn.Flatten())
    >>> x = torch.tensor([[[[0.4]]]], requires_grad=True)
    >>> bpda("0")(model)(x).sum().backward(); x.grad.item()
    1.0
    """
    surrogates = surrogate if isinstance(surrogate, Sequence) else (surrogate,)

    def approximated(forward: Callable[..., Any], call: int, *args: Any, **kwargs: Any) -> Any:
        x = first_tensor(part, args, kwargs)
        if not x.requires_grad:
            return forward(*args, **kwargs)
        with torch.no_grad():  # detached, as a part that goes through numpy needs it
            true = forward(*map(_detached, args), **{name: _detached(value) for name, value in kwargs.items()})
        if not isinstance(true, Tensor):
            raise UnmaskError(f"part {part!r} gives a {type(true).__name__}, not a tensor", "choose a part inside it")
        with torch.enable_grad():
            return substitute(true, fit_size(part, surrogates[call % len(surrogates)](x), true))

    return with_part(part, approximated)


def bypass(part: str, surrogate: Surrogate = identity) -> View:
    """A model in which ``surrogate`` replaces ``part`` forward and backward: the defense without it.

    An attack on it transfers to the defense, or fails to: only the judge can decide.
    """
    return with_part(part, lambda forward, call, *args, **kwargs: surrogate(first_tensor(part, args, kwargs)))


def with_part(part: str, instead: Callable[..., Any]) -> View:
    """A view in which ``instead(forward, call, ...)`` takes the place of a part's ``forward(...)``.

    ``call`` counts those of the part in a pass, from 0.
    """

    def run(model: nn.Module, x: Tensor) -> Any:
        own = vars(find_part(model, part))
        before = own.get("forward")
        forward, calls = find_part(model, part).forward, itertools.count()
        own["forward"] = lambda *args, **kwargs: instead(forward, next(calls), *args, **kwargs)
        try:
            return model(x)
        finally:
            if before is None:
                del own["forward"]
            else:
                own["forward"] = before

    return lambda model: ModelView(model, run, part)


def first_tensor(part: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Of what a part is called with; UnmaskError where there is none."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            return value
    raise UnmaskError(f"part {part!r} is called without a tensor, so no surrogate can replace it")


def _detached(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value  # a part may write into its input


def fit_size(part: str, surrogate: Tensor, true: Tensor) -> Tensor:
    """The surrogate's output with the rows of ``part``, as of :func:`unmask.gradients.rows.match_rows`; images
    resized to those of ``part`` where they are of another size.
    """
    if surrogate.ndim == true.ndim:
        surrogate = match_rows(surrogate, true)
    if surrogate.shape == true.shape:
        return surrogate
    if surrogate.ndim == true.ndim == 4 and surrogate.shape[1] == true.shape[1]:
        return F.interpolate(surrogate, true.shape[-2:], mode="bilinear", align_corners=False)
    raise UnmaskError(
        f"the surrogate of part {part!r} gives shape {tuple(surrogate.shape)}, the part {tuple(true.shape)}",
        "give unmask.bpda a surrogate with the part's output shape, or let `unmask audit` fit one",
    )
