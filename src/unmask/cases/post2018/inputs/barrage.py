"""BaRT: random transformations in random order, broken by their mean gradient, straight through what rounds."""

from __future__ import annotations

from unmask.attacks.aliases import pgd
from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import CIFAR10, apgd_ce, own_gradient
from unmask.cases.recipes import ClassifierTraining
from unmask.cases.selfstudy.training import behind_transform, recipe, small_net
from unmask.defenses.post2018.inputs.barrage.barrage import Barrage
from unmask.defenses.preprocessed import Preprocessed
from unmask.gradients.eot import EOT
from unmask.gradients.straight_through import straight_through
from unmask.kinds import Obfuscation
from unmask.losses import margin, with_confidence

__all__ = ["CASES"]

_COUNT, _DRAWS = 3, 8
_SURE = with_confidence(margin, 2.0)  # an image that is just over the boundary is classified correctly in some draws

CASES = (
    Case(
        name="barrage-cifar10",
        defense="barrage of random transforms",
        obfuscation=(Obfuscation.STOCHASTIC, Obfuscation.SHATTERED),
        data="cifar10",
        threat=CIFAR10,
        citation="Raff et al., CVPR 2019",
        build=lambda: Preprocessed(Barrage(_COUNT), small_net()),
        attacks={
            "plain": own_gradient(20),
            "eot": AttackSpec(
                f"each operation differentiated as it stands, what rounds passed straight through, EOT over {_DRAWS} "
                "draws: APGD on cross entropy, PGD on the margin",
                lambda _: Ensemble((apgd_ce(30, EOT(_DRAWS)), pgd(40, _SURE, EOT(_DRAWS)))),
                view=straight_through,
            ),
        },
        train=ClassifierTraining("cifar10", recipe(5), behind_transform, start="selfstudy-labelsmooth-cifar10"),
        draws=10,
        n_controls=16,
        note=f"{_COUNT} of the ten groups for each image, where the authors have 5, with some of the transformations "
        "of each group",
    ),
)
