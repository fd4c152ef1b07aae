"""A view that reads logits where no part gives them: the result of the last linear map in the model's own code."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unmask.errors import UnmaskError
from unmask.gradients.bpda import ModelView, View
from unmask.gradients.rows import averaged_copies

__all__ = ["LINEAR_MAPS", "linear_output", "linear_outputs"]

LINEAR_MAPS = ("linear", "matmul", "addmm", "mm", "einsum")
"""Names of torch's functions that map features to numbers linearly."""


def linear_output(columns: int) -> View:
    """A model that answers what the last linear map to ``columns`` numbers gives in its forward pass, (B, columns).

    As :func:`unmask.submodule_output`, for a network that is written with functions instead of modules. Where a pass
    has rows of copies of each image, their mean is taken.

    Raises UnmaskError, when the view is called, if there is no such map of all images.

    >>> import torch
    >>> class Hidden(nn.Module):
    ...     def __init__(self): super().__init__(); self.weight = nn.Parameter(torch.eye(2))
    ...     def forward(self, x): return (nn.functional.linear(x.flatten(1), self.weight) * 1e6).softmax(1)
    >>> linear_output(2)(Hidden())(torch.tensor([[[[0.2, 0.7]]]])).tolist()
    [[0.20000000298023224, 0.699999988079071]]
    """
    return lambda model: ModelView(model, lambda module, x: linear_outputs(module, x, columns)[-1])


def linear_outputs(model: nn.Module, x: Tensor, columns: int) -> list[Tensor]:
    """What each linear map of all images (B, C, H, W) to ``columns`` numbers gives, in order: (B, columns).

    Raises UnmaskError if there is none.

    >>> import torch
    >>> linear_outputs(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.zeros(1, 1, 2, 2), 2)[0].shape
    torch.Size([1, 2])
    """
    seen = _Maps(len(x), columns)
    with seen:
        model(x)
    if not seen.found:
        raise UnmaskError(f"no linear map gives {columns} numbers of each image", "read a part by submodule_output")
    return [averaged_copies(one, len(x)) for one in seen.found]


class _Maps(TorchFunctionMode):
    """Keeps the results of linear maps of all images."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        self.found = list[Tensor]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        value = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "").strip("_") in LINEAR_MAPS and isinstance(value, Tensor):
            of_all = value.ndim == 2 and value.shape[1] == self.columns and len(value) % max(self.rows, 1) == 0
            if of_all and len(value):
                self.found.append(value)
        return value
