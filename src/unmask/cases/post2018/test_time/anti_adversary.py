"""The anti-adversary layer: it repeats the classifier's answer; broken by an attack on the classifier alone."""

from __future__ import annotations

from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import CIFAR10, apgd_ce, apgd_dlr, light_net, own_gradient
from unmask.defenses.post2018.test_time.anti_adversary import AntiAdversary
from unmask.gradients.bpda import bypass
from unmask.kinds import Obfuscation
from unmask.losses import targeted_dlr
from unmask.nets import residual_net

__all__ = ["CASES"]

_CITATION = "Alfarra et al., AAAI 2022"

CASES = (
    Case(
        name="anti-adversary-cifar10",
        defense="anti-adversary layer",
        obfuscation=(Obfuscation.VANISHING,),
        data="cifar10",
        threat=CIFAR10,
        citation=_CITATION,
        build=lambda: AntiAdversary(residual_net(), rate=0.015),
        attacks={
            "plain": own_gradient(),
            "classifier": AttackSpec(
                "the classifier alone, without the layer: APGD on cross entropy and DLR",
                lambda _: Ensemble((apgd_ce(restarts=2), apgd_dlr(restarts=2))),
                view=bypass("layer"),
            ),
        },
        train=None,
        base_case="plain-cifar10",
        note="an undefended network, with steps of 0.015: those of the authors, 0.15, misclassify many clean images",
    ),
    Case(
        name="anti-adversary-robust-cifar10",
        defense="anti-adversary layer on adversarial training",
        obfuscation=(Obfuscation.VANISHING,),
        data="cifar10",
        threat=CIFAR10,
        citation=_CITATION,
        build=lambda: AntiAdversary(light_net()),
        attacks={
            "plain": own_gradient(),
            "classifier": AttackSpec(
                "the classifier alone, without the layer: APGD on cross entropy, APGD on DLR with 3 targets",
                lambda _: Ensemble((apgd_ce(), APGD(100, targeted_dlr, targets=3))),
                view=bypass("layer"),
            ),
        },
        train=None,
        base_case="madry-cifar10",
        note="the authors' 2 steps of 0.15, on a smaller network than theirs",
    ),
)
