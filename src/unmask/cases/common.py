"""What several cases have in common: threats and the standard attacks."""

from __future__ import annotations

from torch import nn

from unmask.attacks.auto_pgd.apgd import APGD
from unmask.cases.case import AttackSpec
from unmask.gradients.autograd import autograd
from unmask.losses import dlr
from unmask.nets import residual_net
from unmask.threats import L2, Linf
from unmask.training.classifier import ClassifierRecipe, Nesterov, Perturb
from unmask.types import Estimator

__all__ = [
    "CIFAR10",
    "DIGITS",
    "IMAGENET",
    "IMAGENET_L2",
    "IMAGENET_RELATIVE",
    "MNIST",
    "MNIST_L2",
    "apgd_ce",
    "apgd_dlr",
    "cifar10_recipe",
    "light_net",
    "own_gradient",
]

DIGITS = Linf(0.15)
MNIST = Linf(0.3)
CIFAR10 = Linf(8 / 255)
MNIST_L2 = L2(0.005, "per_dim")  # 3.92 raw, as Defense-GAN was evaluated by Athalye et al.
IMAGENET = Linf(8 / 255)
IMAGENET_L2 = L2(0.05, "rms_pixel")
IMAGENET_RELATIVE = L2(0.06, "relative")  # as Guo et al. state theirs


def own_gradient(steps: int = 100) -> AttackSpec:
    """The plain attack: APGD on cross entropy through the defense's own gradient."""
    return AttackSpec("APGD on cross entropy, through the model's own gradient", lambda _: APGD(steps), plain=True)


def apgd_ce(steps: int = 100, estimator: Estimator = autograd, restarts: int = 1) -> APGD:
    """APGD on cross entropy (Croce & Hein, ICML 2020)."""
    return APGD(steps, estimator=estimator, restarts=restarts)


def apgd_dlr(steps: int = 100, estimator: Estimator = autograd, restarts: int = 1) -> APGD:
    """APGD on the difference of logits ratio (Croce & Hein, ICML 2020)."""
    return APGD(steps, loss=dlr, estimator=estimator, restarts=restarts)


def light_net(channels: int = 3) -> nn.Module:
    """The network of adversarial training on CIFAR-10, where a step costs eight passes: 1.1 million parameters."""
    return residual_net(channels, (48, 96, 192), whitening=0, strided=True)


def cifar10_recipe(epochs: int, perturb: Perturb | None = None, smoothing: float = 0.0) -> ClassifierRecipe:
    """How the residual nets for CIFAR-10 are trained."""
    return ClassifierRecipe(
        epochs, rate=0.12, perturb=perturb, optimizer=Nesterov(), smoothing=smoothing, shift=2, mirror=True
    )
