"""Views that answer what parts of a model give, or are such a part."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unmask.gradients.bpda import ModelView, Surrogate, View, find_part, identity
from unmask.gradients.parts.outputs import outputs_of
from unmask.gradients.rows import averaged_copies, without_repeats

__all__ = ["submodule_only", "submodule_output"]


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
        _, seen = outputs_of(model, parts, x)
        made = [_joined(outputs, x) for outputs in seen.values()]
        return head(made[0] if len(made) == 1 else torch.cat([one.flatten(1) for one in made], 1))

    def view(model: nn.Module) -> nn.Module:
        for path in parts:
            find_part(model, path)
        return ModelView(model, run)

    return view


def _joined(outputs: list[Tensor], x: Tensor) -> Tensor:
    """What the calls of a part give for the images ``x`` (B, C, H, W): (B, ...)."""
    if len(outputs) > 1 and all(one.numel() == len(one) == len(x) for one in outputs):
        return torch.stack([one.flatten() for one in outputs], 1)  # a number of each call, such as one for each class
    if len(outputs[0]) >= len(x):
        return averaged_copies(torch.stack(outputs).mean(0), len(x))
    rows = torch.cat(outputs)  # of a call for each image, or for a few
    return averaged_copies(without_repeats(rows, x) if len(rows) < len(x) else rows, len(x))


def submodule_only(part: str) -> View:
    """A model that is one part of the given one, applied to the images: the defense without what comes before.

    Raises UnmaskError, once the view is applied, for a path that the model does not have.

    >>> submodule_only("1")(nn.Sequential(nn.Sigmoid(), nn.Flatten()))(torch.full((1, 1, 1, 2), 0.4))
    tensor([[0.4000, 0.4000]])
    """
    return lambda model: find_part(model, part)
