"""The attacks of other libraries, set as ours are: the same gradients or scores, step sizes and random starts."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["PEERS", "Budget", "installed"]


@dataclass(frozen=True)
class Budget:
    """What an attack may spend: gradients (or scores) of an image, the length of a step, draws for a gradient."""

    eps: float
    steps: int
    size: float
    draws: int
    shape: tuple[int, ...]  # of an image
    batch: int


Attack = Callable[[Tensor, Tensor], Tensor]
Peer = Callable[[nn.Module, Budget], Attack]
"""(model, budget) -> an attack that is ready to run and gives adversarial images."""


def foolbox_pgd(model: nn.Module, budget: Budget) -> Attack:
    from foolbox import PyTorchModel
    from foolbox.attacks import LinfPGD
    from foolbox.models import ExpectationOverTransformationWrapper

    victim: Any = PyTorchModel(model, bounds=(0, 1), device="cpu")
    if budget.draws > 1:
        victim = ExpectationOverTransformationWrapper(victim, budget.draws)
    attack = LinfPGD(abs_stepsize=budget.size, steps=budget.steps, random_start=True)
    return lambda x, y: attack(victim, x, y, epsilons=budget.eps)[1]


def torchattacks_pgd(model: nn.Module, budget: Budget) -> Attack:
    from torchattacks import PGD

    return PGD(model, eps=budget.eps, alpha=budget.size, steps=budget.steps, random_start=True)


def torchattacks_eot(model: nn.Module, budget: Budget) -> Attack:
    from torchattacks import EOTPGD

    return EOTPGD(model, eps=budget.eps, alpha=budget.size, steps=budget.steps, eot_iter=budget.draws)


def torchattacks_apgd(model: nn.Module, budget: Budget) -> Attack:
    from torchattacks import APGD

    return APGD(model, eps=budget.eps, steps=budget.steps)


def torchattacks_square(model: nn.Module, budget: Budget) -> Attack:
    from torchattacks import Square

    return Square(model, eps=budget.eps, n_queries=budget.steps)


def art_pgd(model: nn.Module, budget: Budget) -> Attack:
    from art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_pytorch import (
        ProjectedGradientDescentPyTorch,
    )

    return _art(
        ProjectedGradientDescentPyTorch(
            _classifier(model, budget), np.inf, budget.eps, budget.size, max_iter=budget.steps, num_random_init=1,
            batch_size=budget.batch, verbose=False,
        )
    )  # fmt: skip


def art_apgd(model: nn.Module, budget: Budget) -> Attack:
    from art.attacks.evasion import AutoProjectedGradientDescent

    return _art(
        AutoProjectedGradientDescent(
            _classifier(model, budget), np.inf, budget.eps, 2 * budget.eps, max_iter=budget.steps, nb_random_init=1,
            batch_size=budget.batch, loss_type="cross_entropy", verbose=False,
        )
    )  # fmt: skip


def art_square(model: nn.Module, budget: Budget) -> Attack:
    from art.attacks.evasion import SquareAttack

    return _art(
        SquareAttack(
            _classifier(model, budget),
            np.inf,
            max_iter=budget.steps,
            eps=budget.eps,
            batch_size=budget.batch,
            verbose=False,
        )
    )


def _classifier(model: nn.Module, budget: Budget) -> Any:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(model, nn.CrossEntropyLoss(), budget.shape, 10, clip_values=(0.0, 1.0), device_type="cpu")


def _art(attack: Any) -> Attack:
    return lambda x, y: torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


PEERS: dict[str, dict[str, Peer]] = {
    "PGD": {"foolbox": foolbox_pgd, "torchattacks": torchattacks_pgd, "art": art_pgd},
    "APGD": {"torchattacks": torchattacks_apgd, "art": art_apgd},
    "EOT-PGD": {"foolbox": foolbox_pgd, "torchattacks": torchattacks_eot},
    "Square": {"torchattacks": torchattacks_square, "art": art_square},
}
"""Attack -> library -> that library's own. Foolbox has neither APGD nor Square, ART no EOT-PGD for torch."""


def installed(attack: str) -> dict[str, Peer]:
    """Those that are there."""
    return {name: peer for name, peer in PEERS[attack].items() if importlib.util.find_spec(name)}
