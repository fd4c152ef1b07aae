"""Queries of a model before any attack: keyed, recorded by module, and without a lasting effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unmask.diagnosis.snapshots import tensors
from unmask.models.model_wrappers import query
from unmask.randomness import Keys, use_keys
from unmask.state import State
from unmask.types import Output

__all__ = ["ModuleIO", "keyed_query", "preserve_buffers", "record_io", "share"]

ModuleIO = dict[str, tuple[Tensor, Tensor]]
"""Path of a part -> what its first call was given, and what came out; the innermost first."""


def keyed_query(model: nn.Module, x: Tensor, keys: Keys) -> Output:
    """The answers to images (B, C, H, W), torch's own randomness keyed too."""
    with use_keys(keys, uses_torch_random=True):
        return query(model, x)


@contextmanager
def record_io(model: nn.Module) -> Iterator[ModuleIO]:
    """What each part is given and gives while the model runs, in the order in which they end.

    Copies of parts that the model makes while it runs count as those parts, since a copy has its original's hooks.
    """
    spots: ModuleIO = {}

    def noting(path: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def see(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            made = next(tensors(output), None)
            if args and isinstance(args[0], Tensor) and made is not None:
                spots.setdefault(path, (args[0].detach().clone(), made.detach().clone()))

        return see

    with ExitStack() as hooks:
        for path, part in model.named_modules():
            if not isinstance(part, torch.jit.ScriptModule):  # which has none
                hooks.enter_context(part.register_forward_hook(noting(path)))
        yield spots


@contextmanager
def preserve_buffers(model: nn.Module) -> Iterator[None]:
    """What the model keeps from call to call comes out as it went in."""
    state = State(model)
    try:
        yield
    finally:
        state.restore()


def share(which: Tensor) -> float:
    """Of true values."""
    return round(float(which.double().mean()), 3)
