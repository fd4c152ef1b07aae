"""PGD as other libraries do it: the same steps, step size and random start."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["PEERS", "Peer", "installed"]

Peer = Callable[[nn.Module, Tensor, Tensor, float, int, float], Callable[[], Tensor]]
"""(model, x, y, eps, steps, size of a step) -> an attack that is ready to run and gives adversarial images."""


def foolbox(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, size: float) -> Callable[[], Tensor]:
    from foolbox import PyTorchModel
    from foolbox.attacks import LinfPGD

    victim = PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = LinfPGD(abs_stepsize=size, steps=steps, random_start=True)
    return lambda: attack(victim, x, y, epsilons=eps)[1]


def torchattacks(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, size: float) -> Callable[[], Tensor]:
    from torchattacks import PGD

    attack = PGD(model, eps=eps, alpha=size, steps=steps, random_start=True)
    return lambda: attack(x, y)


def art(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, size: float) -> Callable[[], Tensor]:
    from art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_pytorch import (
        ProjectedGradientDescentPyTorch,
    )
    from art.estimators.classification import PyTorchClassifier

    victim = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0.0, 1.0), device_type="cpu"
    )
    attack = ProjectedGradientDescentPyTorch(
        victim, np.inf, eps, size, max_iter=steps, num_random_init=1, batch_size=len(x), verbose=False
    )
    images, labels = x.numpy(), y.numpy()
    return lambda: torch.from_numpy(attack.generate(images, labels))


PEERS: dict[str, Peer] = {"foolbox": foolbox, "torchattacks": torchattacks, "art": art}


def installed() -> dict[str, Peer]:
    """Those that are there."""
    return {name: peer for name, peer in PEERS.items() if importlib.util.find_spec(name)}
