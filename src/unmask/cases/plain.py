"""No defense: the base of all comparisons. Any correct attack must leave nothing of it."""

from __future__ import annotations

from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import CIFAR10, DIGITS, MNIST, apgd_ce, apgd_dlr, cifar10_recipe, own_gradient
from unmask.cases.recipes import ClassifierTraining
from unmask.kinds import Obfuscation
from unmask.nets import conv_net, residual_net
from unmask.training.classifier import ClassifierRecipe

__all__ = ["CASES"]

_ATTACKERS = {
    "plain": own_gradient(),
    "apgd": AttackSpec("APGD on cross entropy and DLR", lambda _: Ensemble((apgd_ce(restarts=2), apgd_dlr()))),
}

CASES = (
    Case(
        name="plain-digits",
        defense="none",
        obfuscation=(Obfuscation.NONE,),
        data="digits",
        threat=DIGITS,
        citation="undefended convolutional network",
        build=lambda: conv_net(1, 8, (16, 32), 64),
        attacks=_ATTACKERS,
        train=ClassifierTraining("digits", ClassifierRecipe(epochs=60, batch=64, shift=1)),
    ),
    Case(
        name="plain-mnist",
        defense="none",
        obfuscation=(Obfuscation.NONE,),
        data="mnist",
        threat=MNIST,
        citation="undefended convolutional network",
        build=lambda: conv_net(1, 28, (16, 32), 64),
        attacks=_ATTACKERS,
        train=ClassifierTraining("mnist", ClassifierRecipe(epochs=5, shift=2)),
    ),
    Case(
        name="plain-cifar10",
        defense="none",
        obfuscation=(Obfuscation.NONE,),
        data="cifar10",
        threat=CIFAR10,
        citation="undefended residual network",
        build=residual_net,
        attacks=_ATTACKERS,
        train=ClassifierTraining("cifar10", cifar10_recipe(14, smoothing=0.1)),
    ),
)
