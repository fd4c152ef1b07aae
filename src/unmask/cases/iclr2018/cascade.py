"""Cascade adversarial training: no gradient masking, less robust than reported."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.combined.ensemble import Ensemble
from unmask.attacks.gradient_attack import GradientAttack
from unmask.attacks.optimizers import Steepest
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import apgd_ce, cifar10_recipe, light_net, own_gradient
from unmask.cases.literature import table_of_2018
from unmask.cases.recipes import ClassifierTraining, undisturbed
from unmask.kinds import Obfuscation
from unmask.losses import targeted_dlr
from unmask.randomness import make_keys, normal
from unmask.threats import Linf
from unmask.training.classifier import ClassifierRecipe

__all__ = ["CASES"]

_EPS = 0.015
_LARGEST = 16 / 255
_CLEAN = 1 / 1.3  # the authors weigh an image that is perturbed by 0.3 against one that is not


@dataclass(frozen=True)
class LeastLikely:
    """One step towards the least likely class, of random length: |N(0, largest / 2)|, at most ``largest``.

    ``step_ll`` of Kurakin et al., *Adversarial Machine Learning at Scale* (ICLR 2017).
    """

    largest: float = _LARGEST

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float, index: Tensor) -> Tensor:
        length = (normal((len(x), 1, 1, 1), like=x) * self.largest / 2).abs().clamp_max(self.largest)
        x = x.detach().requires_grad_()
        logits = model(x)
        loss = torch.nn.functional.cross_entropy(logits.float(), logits.argmin(1), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
        return (x - length * gradient.sign()).detach().clamp(0, 1)


@dataclass(frozen=True)
class Cascade:
    """One-step images of the model that is trained; every second one is an iterated image of a defended model.

    Args:
        source: the defended model.
        steps: of the iterated attack (BIM), of half the largest length.
    """

    source: nn.Module = field(repr=False)
    steps: int = 5

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float, index: Tensor) -> Tensor:
        images = LeastLikely()(model, x, y, progress, index)
        attack = GradientAttack(self.steps, optimizer=Steepest(1.5 / self.steps), random_start=False, early_stop=False)
        keys = make_keys(int(progress * 1e9), index[::2], "cascade")
        images[::2] = attack(undisturbed(self.source, x[::2], y[::2], Linf(_LARGEST / 2), keys))
        return images


@dataclass(frozen=True)
class CascadeTraining:
    """Train a network by one-step adversarial training, then another one also against images made on the first."""

    data: str
    recipe: ClassifierRecipe

    def __call__(self, model: nn.Module, folder: Path, *, seed: int, device: str) -> Iterator[dict[str, Any]]:
        source = copy.deepcopy(model)
        first = ClassifierTraining(self.data, replace(self.recipe, perturb=LeastLikely()))
        yield from first(source, folder / "first", seed=seed, device=device)
        source.eval().requires_grad_(False)
        second = ClassifierTraining(self.data, replace(self.recipe, perturb=Cascade(source)))
        yield from second(model, folder / "second", seed=seed + 1, device=device)


CASES = (
    Case(
        name="cascade-cifar10",
        defense="cascade adversarial training",
        obfuscation=(Obfuscation.NONE,),
        data="cifar10",
        threat=Linf(_EPS),
        citation="Na et al., ICLR 2018",
        build=light_net,
        attacks={
            "plain": own_gradient(),
            "ensemble": AttackSpec(
                "APGD on cross entropy, APGD on DLR with 9 targets",
                lambda _: Ensemble((apgd_ce(restarts=2), APGD(100, targeted_dlr, targets=9))),
            ),
        },
        train=CascadeTraining("cifar10", replace(cifar10_recipe(4), clean=_CLEAN, pull=1e-4)),
        published=table_of_2018(0.15),
        note="not obfuscated: it is less robust than reported",
    ),
)
