"""A module for other libraries whose backward pass is useful; and models that refuse by a class of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.gradients.bpda import View, substitute
from unmask.inputs import as_images
from unmask.models.model_wrappers import query
from unmask.state.deep_copy import deep_copy
from unmask.types import Output, as_output

__all__ = ["attackable", "reject_class_as_detector"]


class _Attackable(nn.Module):
    def __init__(self, viewed: nn.Module, samples: int) -> None:
        super().__init__()
        self.viewed = viewed
        self.samples = samples

    def forward(self, x: Tensor) -> Tensor:
        x = as_images(x)
        answer = query(self.viewed, x).logits
        if self.samples == 1 or not (torch.is_grad_enabled() and x.requires_grad):
            return answer
        further = [query(self.viewed, x).logits for _ in range(self.samples - 1)]
        return substitute(answer, torch.stack([answer, *further]).mean(0))


def attackable(model: nn.Module, view: View | None = None, samples: int = 1) -> nn.Module:
    """A plain module for AutoAttack, Foolbox, ART or torchattacks: (B, C, H, W) -> logits (B, K).

    Args:
        model: the defense, in evaluation mode.
        view: what gradients pass through, such as ``bpda("encode", surrogate)`` or ``straight_through``.
        samples: draws over which the backward pass of a random defense is averaged. The forward pass
            is always one true draw. Unlike :class:`unmask.EOT`, which averages gradients of losses,
            this averages derivatives of logits: the loss is the other library's, and unknown here.

    Raises UnmaskError, when it is called, for images that :mod:`unmask.inputs` refuses, such as those out of [0, 1].

    >>> from unmask.gradients.bpda import bpda
    >>> class Round(nn.Module):
    ...     def forward(self, x): return x.round()
    >>> module = attackable(nn.Sequential(Round(), nn.Flatten()), view=bpda("0"))
    >>> x = torch.full((1, 1, 1, 2), 0.4, requires_grad=True)
    >>> module(x).sum().backward(); x.grad.flatten().tolist()
    [1.0, 1.0]
    """
    if samples < 1:
        raise UnmaskError(f"attackable needs samples >= 1, not {samples}")
    return _Attackable(model if view is None else view(model), samples).eval()


def reject_class_as_detector(model: nn.Module, place: int) -> nn.Module:
    """A copy of a model of K + 1 classes, of which ``place`` stands for "I refuse"; it gives an :class:`Output` of K.

    The margin of the refusal is that of its logit before the others. Paths of parts stay what they are.

    >>> model = reject_class_as_detector(nn.Flatten(), 2)
    >>> answer = model(torch.tensor([[[[0.1, 0.5, 0.3]]], [[[0.1, 0.5, 0.8]]]]))
    >>> answer.logits.argmax(1).tolist(), (answer.reject > 0).tolist()
    ([1, 1], [False, True])
    """
    twin = deep_copy(model)
    twin.register_forward_hook(_Refusal(place))
    return twin


class _Refusal:
    def __init__(self, place: int) -> None:
        self.place = place

    def __call__(self, model: nn.Module, args: tuple[Any, ...], answer: Output | Tensor) -> Output:
        logits, reject = as_output(answer)
        classes = torch.cat((logits[:, : self.place], logits[:, self.place + 1 :]), 1)
        margin = logits[:, self.place] - classes.amax(1)
        return Output(classes, margin if reject is None else torch.maximum(margin, reject))
