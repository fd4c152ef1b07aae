"""What parts of a model give in a forward pass, call by call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.gradients.bpda import find_part
from unmask.gradients.rows import rows_of_all
from unmask.types import InvalidModelOutput, as_output

__all__ = ["of_all_images", "outputs_of", "tensor_of"]


def outputs_of(model: nn.Module, parts: Sequence[str], x: Tensor) -> tuple[Any, dict[str, list[Tensor]]]:
    """What ``model`` answers to images (B, C, H, W), and, by path, what each call of ``parts`` gives, (rows, ...).

    Of an answer with ``logits``, by attribute or by key, those are taken.

    Raises UnmaskError for a path that the model does not have, for a part that is not called, and for one whose answer
    holds no tensor that is clearly its output.

    >>> outputs_of(nn.Sequential(nn.Flatten()), ["0"], torch.zeros(1, 1, 1, 2))[1]
    {'0': [tensor([[0., 0.]])]}
    """
    seen: dict[str, list[Tensor]] = {path: [] for path in parts}
    with ExitStack() as hooks:
        for path, outputs in seen.items():
            hooks.enter_context(find_part(model, path).register_forward_hook(_keep_in(path, outputs)))
        answer = model(x)
    for path, outputs in seen.items():
        if not outputs:
            raise UnmaskError(f"part {path!r} is not called in the forward pass: its output cannot be read")
    return answer, seen


def of_all_images(outputs: Sequence[Tensor], count: int) -> list[Tensor]:
    """Calls joined until they have a row for each of ``count`` images: calls with fewer rows get a few images each.

    >>> [one.tolist() for one in of_all_images([torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([3.0, 4.0])], 2)]
    [[1.0, 2.0], [3.0, 4.0]]
    """
    whole, waiting = list[Tensor](), list[Tensor]()
    for one in outputs:
        waiting.append(one)
        if sum(map(len, waiting)) >= count:
            whole.append(torch.cat(waiting) if len(waiting) > 1 else one)
            waiting = []
    return [*whole, *waiting]


def _keep_in(part: str, outputs: list[Tensor]) -> Callable[[nn.Module, Any, Any], None]:
    return lambda _, args, output: outputs.append(rows_of_all(tensor_of(part, output)))


def tensor_of(part: str, output: Any) -> Tensor:
    """What a part gives; of an answer with logits, those."""
    try:
        return as_output(output).logits
    except InvalidModelOutput as error:
        what = f"part {part!r} gives a {type(output).__name__}, not a tensor"
        raise UnmaskError(what, "choose a part inside it") from error
