"""A view of a model that refuses the images on which its networks, or the calls of one, do not agree."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.gradients.bpda import ModelView, View, find_part
from unmask.gradients.parts.linear_output import linear_outputs
from unmask.gradients.parts.outputs import of_all_images, outputs_of
from unmask.gradients.parts.votes import leads
from unmask.gradients.rows import averaged_copies
from unmask.types import Output

__all__ = ["agreement", "linear_agreement"]


def agreement(part: str | Sequence[str]) -> View:
    """A model that gives a class if all calls of ``part`` do, and refuses images without such a class.

    For detectors that compare the classes of several networks, or of one network on an image and on what is made of
    the image, where no gradient reaches: feature squeezing (Xu, Evans & Qi, NDSS 2018), for one. Its logits are the
    least of the leads that a class has over the best other one, and its margin of refusal is the negative largest of
    them, so that a search for a class moves all networks to that class.

    Args:
        part: a path as in ``model.named_modules()``, or several. Each call gives logits (B, K); where it has rows of
            copies of each image, their mean is taken.

    Raises UnmaskError for a path that the model does not have, for a part that is not called, and where the calls give
    no logits of one form.

    >>> class Detector(nn.Module):
    ...     def __init__(self): super().__init__(); self.net = nn.Flatten()
    ...     def forward(self, x):
    ...         one, other = self.net(x), self.net(x.round())
    ...         return Output(one, one.argmax(1) != other.argmax(1))
    >>> agreement("net")(Detector())(torch.tensor([[[[0.6, 0.9, 0.2]]]]))
    Output(logits=tensor([[-0.3000,  0.0000, -1.0000]]), reject=tensor([-0.]))
    """
    parts = (part,) if isinstance(part, str) else tuple(part)

    def run(model: nn.Module, x: Tensor) -> Output:
        _, seen = outputs_of(model, parts, x)
        calls = [one for outputs in seen.values() for one in of_all_images(outputs, len(x))]
        each = [averaged_copies(one, len(x)) for one in calls if not len(one) % len(x)]
        if len(each) < len(calls) or each[0].ndim != 2 or any(one.shape != each[0].shape for one in each):
            raise UnmaskError(f"the calls of {', '.join(map(repr, parts))} give no logits of one form")
        return _agreed(each)

    def view(model: nn.Module) -> nn.Module:
        for path in parts:
            find_part(model, path)
        return ModelView(model, run)

    return view


def linear_agreement(columns: int) -> View:
    """As :func:`agreement`, of all linear maps to ``columns`` numbers in the forward pass.

    For networks that are no parts of the model: those in a list of Python's, or written with functions.

    Raises UnmaskError, when the view is called, if there is no such map of all images.

    >>> class Detector(nn.Module):
    ...     def __init__(self): super().__init__(); self.others = [nn.Linear(2, 2), nn.Linear(2, 2)]
    ...     def forward(self, x):
    ...         one, other = (net(x.flatten(1)) for net in self.others)
    ...         return Output(one, one.argmax(1) != other.argmax(1))
    >>> linear_agreement(2)(Detector())(torch.zeros(1, 1, 1, 2)).logits.shape
    torch.Size([1, 2])
    """
    return lambda model: ModelView(model, lambda module, x: _agreed(linear_outputs(module, x, columns)))


def _agreed(each: Sequence[Tensor]) -> Output:
    least = leads(torch.stack([*each])).amin(0)
    return Output(least, -least.amax(1))
