"""Random resizing and padding: stochastic gradients, broken by expectation over transformation."""

from __future__ import annotations

from unmask.attacks.ensemble import Ensemble
from unmask.attacks.settings import pgd
from unmask.cases.case import Attacker, Case
from unmask.cases.recipes import ClassifierTraining
from unmask.cases.shared import DIGITS, MNIST, apgd_ce, own_gradient
from unmask.defenses.randomization import Randomization
from unmask.gradients.eot import EOT
from unmask.losses import margin
from unmask.nets import conv_net
from unmask.training.classifier import ClassifierRecipe

__all__ = ["CASES"]

_CITATION = "Xie et al., ICLR 2018"

_ATTACKERS = {
    "plain": own_gradient(),
    "eot": Attacker(
        "EOT over 16 draws; APGD on cross entropy, PGD on the margin",
        lambda _: Ensemble((apgd_ce(60, EOT(16)), pgd(60, margin, EOT(16)))),
    ),
}

CASES = (
    Case(
        name="randomization-digits",
        defense="random resizing and padding",
        kind="stochastic",
        data="digits",
        threat=DIGITS,
        citation=_CITATION,
        build=lambda: Randomization(conv_net(1, 12, (16, 32), 64), 8, 12),
        attackers=_ATTACKERS,
        train=ClassifierTraining("digits", ClassifierRecipe(epochs=120, batch=64)),
        draws=16,
    ),
    Case(
        name="randomization-mnist",
        defense="random resizing and padding",
        kind="stochastic",
        data="mnist",
        threat=MNIST,
        citation=_CITATION,
        build=lambda: Randomization(conv_net(1, 36, (16, 32), 64), 28, 36),
        attackers=_ATTACKERS,
        train=ClassifierTraining("mnist", ClassifierRecipe(epochs=5)),
        draws=16,
    ),
)
