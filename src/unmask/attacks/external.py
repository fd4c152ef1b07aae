"""An attack of another library, which is given a plain module and gives back candidates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unmask.adapters import attackable
from unmask.attacks.problem import Attack, Problem
from unmask.errors import UnmaskError
from unmask.gradients.bpda import View
from unmask.inputs import as_candidates
from unmask.randomness import Keys, use_keys
from unmask.types import Model, Output, as_output

__all__ = ["ExternalSearch", "external_attack"]

ExternalSearch = Callable[[nn.Module, Tensor, Tensor], Any]
"""Module, images (B, C, H, W), labels (B,) -> candidates (B, C, H, W), a tensor or an array."""


def external_attack(search: ExternalSearch, view: View | None = None, *, samples: int = 1) -> Attack:
    """The attack of another library as one for :func:`unmask.run_attack` and :class:`unmask.Ensemble`.

    Args:
        search: is called with a module, images (B, C, H, W) in [0, 1] and their labels (B,), which are its to change,
            and returns a candidate for each image. The module is that of :func:`unmask.attackable`: it maps images in
            [0, 1] to logits (B, K), with the gradient of the view. Gradients are on, and torch's global generator is
            seeded by the keys of the examples, so that what is drawn from it depends on the batch.
        view: what gradients pass through; None for the view of the run.
        samples: draws over which the gradient of a random defense is averaged.

    Nothing is projected: the judge counts a candidate out of ball or box as a failure of the attack, so that ``search``
    needs the same eps as the threat, and [0, 1] as its box. The judge sees what comes back, and no step before.
    :attr:`unmask.attacking.AttackResult.gradients` does not count these gradients; passes are counted.

    Raises UnmaskError for samples below 1 and, once it attacks, where ``search`` returns another shape than that of
    the images, or gives the module images out of [0, 1].

    >>> from unmask.attacking import run_attack
    >>> from unmask.threats import Linf
    >>> def one_step(model, x, y):
    ...     x.requires_grad_()
    ...     loss = torch.nn.functional.cross_entropy(model(x), y, reduction="sum")
    ...     return (x + 0.1 * torch.autograd.grad(loss, x)[0].sign()).clamp(0, 1)
    >>> x, y = torch.tensor([[[[0.6, 0.5]]], [[[0.9, 0.1]]]]), torch.tensor([0, 0])
    >>> run_attack(external_attack(one_step), nn.Flatten(), x, y, Linf(0.1)).verdict.robust_fraction
    tensor([0., 1.], dtype=torch.float64)
    """
    if samples < 1:
        raise UnmaskError(f"external_attack needs samples >= 1, not {samples}")

    def attack(problem: Problem) -> Tensor:
        viewed = problem.view if view is None else problem.through(view).view
        module = attackable(_Keyed(viewed, problem.keys, problem.x.device), samples=samples)
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(int(problem.keys.rows[0]) & 0x7FFFFFFF)
            found = search(module, problem.x.clone(), problem.y.clone())
        x_adv = as_candidates(found, "candidates").detach().to(problem.x.device)
        if x_adv.shape != problem.x.shape:
            raise UnmaskError(
                f"the external attack gives shape {tuple(x_adv.shape)}, the images have {tuple(problem.x.shape)}",
                "return one candidate an image, in the order of the images",
            )
        return x_adv

    return attack


class _Keyed(nn.Module):
    """A model as a module, which draws anew in every call; rows may be fewer than the examples, or more."""

    def __init__(self, model: Model, keys: Keys, device: torch.device) -> None:
        super().__init__()
        self.model, self.keys, self.calls = model, keys.fold_in("external"), 0
        self.place = nn.Parameter(torch.zeros(0, device=device), requires_grad=False)  # libraries ask for the device

    def forward(self, x: Tensor) -> Output:
        self.calls += 1
        size = len(self.keys.rows)
        keys = self.keys.fold_in(self.calls).repeat(-(-len(x) // size))
        with use_keys(keys.select(torch.arange(len(x)))):
            return as_output(self.model(x))
