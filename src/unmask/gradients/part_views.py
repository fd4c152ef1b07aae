"""Views that let gradients skip the code between two parts, written inline or outside of torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.gradients.bpda import ModelView, Surrogate, View, find_part, first_tensor, fit_size, identity, substitute
from unmask.gradients.rows import averaged_copies, each_in_turn, rows_of_all, without_repeats
from unmask.types import InvalidModelOutput, as_output

__all__ = ["median_votes", "skip_to", "soft_votes", "submodule_only", "submodule_output"]


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
            made.append(_tensor_of(source or "", output))

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


def submodule_output(part: str | Sequence[str], head: Surrogate = identity) -> View:
    """A model that answers what ``part`` gives, (B, K), the mean of its calls: without what is made of it later.

    Where each call is given some of the images only, the calls are joined; where each gives one number for an image,
    the numbers are the columns; where the part makes rows of copies of each image, their mean is taken; where equal
    images share a row, each gets it. Of an answer with ``logits``, by attribute or by key, those are taken.

    For votes, hard labels, temperatures and other functions of logits that flatten them. What it finds
    transfers to the model where the two agree in class.

    Args:
        part: a path as in ``model.named_modules()``; or several, whose outputs are flattened and joined for ``head``.
        head: from what the part gives to logits, where it gives none; :func:`unmask.fit_head` fits one.

    Raises UnmaskError for a path that the model does not have, for a part that is not called, and for one whose answer
    holds no tensor that is clearly its output.

    >>> class Hard(nn.Module):
    ...     def __init__(self): super().__init__(); self.net = nn.Flatten()
    ...     def forward(self, x): return nn.functional.one_hot(self.net(x).argmax(1), 2).float()
    >>> submodule_output("net")(Hard())(torch.tensor([[[[0.2, 0.7]]]]))
    tensor([[0.2000, 0.7000]])
    """
    parts = (part,) if isinstance(part, str) else tuple(part)

    def run(model: nn.Module, x: Tensor) -> Tensor:
        seen: dict[str, list[Tensor]] = {path: [] for path in parts}
        with ExitStack() as hooks:
            for path, outputs in seen.items():
                hooks.enter_context(find_part(model, path).register_forward_hook(_keep_in(path, outputs)))
            model(x)
        made = [_joined(path, outputs, x) for path, outputs in seen.items()]
        return head(made[0] if len(made) == 1 else torch.cat([one.flatten(1) for one in made], 1))

    def view(model: nn.Module) -> nn.Module:
        for path in parts:
            find_part(model, path)
        return ModelView(model, run)

    return view


def _keep_in(part: str, outputs: list[Tensor]) -> Callable[[nn.Module, Any, Any], None]:
    return lambda _, args, output: outputs.append(rows_of_all(_tensor_of(part, output)))


def _tensor_of(part: str, output: Any) -> Tensor:
    """What a part gives; of an answer with logits, those."""
    try:
        return as_output(output).logits
    except InvalidModelOutput as error:
        what = f"part {part!r} gives a {type(output).__name__}, not a tensor"
        raise UnmaskError(what, "choose a part inside it") from error


def _joined(part: str, outputs: list[Tensor], x: Tensor) -> Tensor:
    """What the calls of a part give for the images ``x`` (B, C, H, W): (B, ...)."""
    if not outputs:
        raise UnmaskError(f"part {part!r} is not called in the forward pass: its output cannot be read")
    if len(outputs) > 1 and all(one.numel() == len(one) == len(x) for one in outputs):
        return torch.stack([one.flatten() for one in outputs], 1)  # a number of each call, such as one for each class
    if len(outputs[0]) >= len(x):
        return averaged_copies(torch.stack(outputs).mean(0), len(x))
    rows = torch.cat(outputs)  # of a call for each image, or for a few
    return averaged_copies(without_repeats(rows, x) if len(rows) < len(x) else rows, len(x))


def soft_votes(classes: int) -> Surrogate:
    """A head for :func:`submodule_output` of several parts: the logarithm of the mean of their probabilities.

    For votes of networks that are counted outside of torch: (B, networks * classes) logits -> (B, classes).

    >>> soft_votes(2)(torch.tensor([[0.0, 9.0, 9.0, 0.0]])).exp()
    tensor([[0.5000, 0.5000]])
    """
    return lambda logits: (
        logits.unflatten(1, (-1, classes)).log_softmax(2).logsumexp(1) - math.log(logits.shape[1] / classes)
    )


def median_votes(classes: int) -> Surrogate:
    """Another head for the same: the median over the networks of the lead of each class over the best other class.

    A majority falls if half of its networks do. Its gradient is that of the network that decides the vote, while the
    mean of the probabilities mostly changes those that are easy to change.

    >>> median_votes(2)(torch.tensor([[0.0, 9.0, 3.0, 0.0, 2.0, 0.0]]))
    tensor([[ 2., -2.]])
    """

    def head(logits: Tensor) -> Tensor:
        each = logits.unflatten(1, (-1, classes))
        first, second = each.topk(2, dim=2).values.unbind(2)
        best_other = torch.where(each == first[:, :, None], second[:, :, None], first[:, :, None])
        median: Tensor = (each - best_other).median(1).values
        return median

    return head


def submodule_only(part: str) -> View:
    """A model that is one part of the given one, applied to the images: the defense without what comes before.

    Raises UnmaskError, once the view is applied, for a path that the model does not have.

    >>> submodule_only("1")(nn.Sequential(nn.Sigmoid(), nn.Flatten()))(torch.full((1, 1, 1, 2), 0.4))
    tensor([[0.4000, 0.4000]])
    """
    return lambda model: find_part(model, part)
