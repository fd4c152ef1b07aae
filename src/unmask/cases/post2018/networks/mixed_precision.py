"""EMPIR: a vote has no gradient; broken by the mean of its members' logits."""

from __future__ import annotations

from torch import Tensor

from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import MNIST, apgd_ce, apgd_dlr, own_gradient
from unmask.cases.post2018.training import each_member
from unmask.cases.recipes import ClassifierTraining
from unmask.defenses.post2018.networks.mixed_precision import MixedPrecision, low_precision_net
from unmask.gradients.bpda import bypass
from unmask.kinds import Obfuscation
from unmask.nets import conv_net
from unmask.training.classifier import ClassifierRecipe

__all__ = ["CASES"]


def _mean_logits(logits: Tensor) -> Tensor:
    return logits.mean(1)


CASES = (
    Case(
        name="mixed-precision-mnist",
        defense="EMPIR, an ensemble of mixed precision",
        obfuscation=(Obfuscation.SHATTERED,),
        data="mnist",
        threat=MNIST,
        citation="Sen et al., ICLR 2020",
        build=lambda: MixedPrecision(
            [conv_net(1, 28, (16, 32), 64), low_precision_net(1, 28, 2, 4), low_precision_net(1, 28, 4, 2)]
        ),
        attacks={
            "plain": own_gradient(),
            "mean": AttackSpec(
                "the members' mean logits in place of the vote, alone: APGD on cross entropy and DLR",
                lambda _: Ensemble((apgd_ce(restarts=2), apgd_dlr(restarts=2))),
                view=bypass("vote", _mean_logits),
            ),
        },
        train=ClassifierTraining("mnist", ClassifierRecipe(epochs=5, shift=2), each_member),
        note="three members: full precision, 2-bit weights and 4-bit activations, 4-bit weights and 2-bit activations",
    ),
)
