"""One switch for ``torch.compile``: the views that attacks optimise are compiled; the judge's model never is."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from unmask.errors import first_line
from unmask.types import Model, Output, as_output

__all__ = ["Compiler"]

_ALIKE = 0.01
"""How far logits and gradients of the compiled view may be from its own, as a share of their length."""


class Compiler:
    """Compiles each view of each model once; on CUDA with CUDA graphs.

    A compiled view is compared with the view itself on its first images. Without a compiler, or if a gradient differs,
    the view itself is used, and ``say`` gets the reason in one line. Compiled code rounds differently, also with the
    batch, so that records depend on this option. The model must not change meanwhile.

    >>> Compiler().of(nn.Flatten(), None, nn.Flatten, random=False)(torch.ones(16, 1, 1, 2)).logits.shape
    torch.Size([16, 2])
    """

    def __init__(self, say: Callable[[str], None] = warnings.warn) -> None:
        self._say = say
        self._said = set[str]()
        self._made = WeakKeyDictionary[nn.Module, dict[object, Model]]()

    def of(self, model: nn.Module, key: object, make: Callable[[], Model], *, random: bool) -> Model:
        """What ``make`` makes of ``model``, compiled; ``key`` distinguishes views. Random ones stay as they are."""
        if random:  # their draws are keyed operation by operation
            self._warn("a random model is not compiled")
            return make()
        made = self._made.setdefault(model, {})
        if key not in made:
            made[key] = self._compiled(make())
        return made[key]

    def _warn(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._say(line)

    def _compiled(self, view: Model) -> Model:
        chosen: list[Model] = []  # once images are there

        def call(x: Tensor) -> Output:
            if not chosen:
                fast = _copying(torch.compile(view, mode="reduce-overhead" if x.is_cuda else "default"))
                problem = _differs(view, fast, x)
                if problem:
                    self._warn(f"not compiled: {problem}")
                chosen.append(view if problem else fast)
            return as_output(chosen[0](x))

        return call


def _copying(compiled: Model) -> Model:
    """With CUDA graphs the next pass writes over what this one returned, and over its gradient."""

    def call(x: Tensor) -> Output:
        if not x.is_cuda:
            return as_output(compiled(x))
        torch.compiler.cudagraph_mark_step_begin()
        output = as_output(compiled(x * 1))
        return Output(output.logits.clone(), None if output.reject is None else output.reject.clone())

    return call


def _differs(view: Model, fast: Model, x: Tensor) -> str | None:
    """Why the compiled view cannot stand for the other."""
    own = _looked(view, x)  # what fails here is the model's own affair
    try:
        other = _looked(fast, x)
        with torch.no_grad():
            fast(x)
    except Exception as error:  # of dynamo, of the compiler, of the system
        return f"{type(error).__name__}: {first_line(error, '')}"
    for what, a, b in zip(("logits", "gradient"), own, other, strict=True):
        if (a - b).norm() > _ALIKE * a.norm() + 1e-12:
            return f"the compiled {what} differs"
    return None


@torch.enable_grad()
def _looked(view: Model, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of a sum of them that has all parts."""
    z = x.detach().clone().requires_grad_(True)
    output = as_output(view(z))
    value = (output.logits * output.logits.detach().cos()).sum()
    if output.reject is not None:
        value = value + output.reject.sum()
    if not value.requires_grad:
        return output.logits, torch.zeros_like(z)
    (gradient,) = torch.autograd.grad(value, z, allow_unused=True)
    return output.logits.detach(), torch.zeros_like(z) if gradient is None else gradient
