"""Random self-ensemble: noise in every layer and a mean over its draws, broken by averaged gradients."""

from __future__ import annotations

from torch import nn

from unmask.attacks.aliases import pgd
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import CIFAR10, cifar10_recipe, own_gradient
from unmask.cases.recipes import ClassifierTraining
from unmask.defenses.post2018.networks.self_ensemble import SelfEnsemble, noisy
from unmask.gradients.eot import EOT
from unmask.kinds import Obfuscation
from unmask.losses import margin, with_confidence
from unmask.nets import residual_net
from unmask.records import Figure

__all__ = ["CASES"]


def _build() -> nn.Module:
    net = nn.Sequential(nn.PixelUnshuffle(2), residual_net(12, (64, 128), whitening=0, strided=True))
    return SelfEnsemble(noisy(net))


CASES = (
    Case(
        name="self-ensemble-cifar10",
        defense="random self-ensemble",
        obfuscation=(Obfuscation.STOCHASTIC,),
        data="cifar10",
        threat=CIFAR10,
        citation="Liu et al., ECCV 2018",
        build=_build,
        attacks={
            "plain": own_gradient(40),
            "eot": AttackSpec(
                "EOT over 2 predictions, 20 draws of the noise: PGD on the margin",
                lambda _: pgd(40, with_confidence(margin, 0.5), EOT(2)),
            ),
        },
        train=ClassifierTraining("cifar10", cifar10_recipe(5)),
        draws=5,
        published=Figure(
            0.0,
            "Li et al., NATTACK, ICML 2019, table in the README of their code",
            "https://github.com/gaussian-attack/Nattack",
            "a success rate of 100 % by queries of scores, at 0.031; of the authors' own network",
        ),
        n_controls=16,
        note="noise of 0.2 in front of the first convolution, of 0.1 in front of the others; ten draws a prediction; "
        "five epochs of training",
    ),
)
