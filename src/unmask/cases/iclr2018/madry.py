"""Adversarial training: the robust control, on which an audit must have no finding."""

from __future__ import annotations

from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.black_box.square import Square
from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import CIFAR10, DIGITS, MNIST, apgd_ce, cifar10_recipe, light_net, own_gradient
from unmask.cases.literature import autoattack, robust_ml
from unmask.cases.recipes import Against, ClassifierTraining
from unmask.kinds import Obfuscation
from unmask.losses import targeted_dlr
from unmask.nets import conv_net, strided_net
from unmask.threats import Linf
from unmask.training.classifier import ClassifierRecipe

__all__ = ["CASES"]

_CITATION = "Madry et al., ICLR 2018"


def _attackers(targets: int, queries: int) -> dict[str, AttackSpec]:
    return {
        "plain": own_gradient(),
        "ensemble": AttackSpec(
            f"APGD on cross entropy, APGD on DLR with {targets} targets, Square with {queries} queries",
            lambda _: Ensemble((apgd_ce(), APGD(100, targeted_dlr, targets=targets), Square(queries))),
        ),
    }


CASES = (
    Case(
        name="madry-digits",
        defense="adversarial training",
        obfuscation=(Obfuscation.NONE,),
        data="digits",
        threat=DIGITS,
        citation=_CITATION,
        build=lambda: conv_net(1, 8, (16, 32), 64),
        attacks=_attackers(targets=5, queries=1000),
        train=ClassifierTraining(
            "digits", ClassifierRecipe(epochs=120, batch=64, perturb=Against(DIGITS, 7), shift=1, low_precision=False)
        ),
    ),
    Case(
        name="madry-mnist",
        defense="adversarial training",
        obfuscation=(Obfuscation.NONE,),
        data="mnist",
        threat=MNIST,
        citation=_CITATION,
        build=lambda: strided_net(1, 28),
        attacks=_attackers(targets=9, queries=2000),
        train=ClassifierTraining(
            "mnist", ClassifierRecipe(epochs=20, batch=256, rate=1e-3, perturb=Against(Linf(0.32), 5))
        ),
        claimed=autoattack(0.8962, "as reported for the authors' own larger network, under PGD"),
        published=autoattack(0.885, "of the authors' own larger network"),
    ),
    Case(
        name="madry-cifar10",
        defense="adversarial training",
        obfuscation=(Obfuscation.NONE,),
        data="cifar10",
        threat=CIFAR10,
        citation=_CITATION,
        build=light_net,
        attacks=_attackers(targets=9, queries=5000),
        train=ClassifierTraining("cifar10", cifar10_recipe(10, Against(CIFAR10, 7, size=0.25))),
        claimed=robust_ml(0.46, "of the authors' wide residual network"),
        published=autoattack(0.4404, "of the authors' wide residual network"),
        note="1.1 million parameters",
    ),
)
