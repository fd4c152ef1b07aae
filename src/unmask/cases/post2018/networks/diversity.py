"""ADP: an ensemble without a masked gradient, which enough steps of an attack break."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import apgd_ce, own_gradient
from unmask.cases.recipes import ClassifierTraining
from unmask.defenses.averaged import Averaged
from unmask.defenses.post2018.networks.diversity import diversity_loss
from unmask.kinds import Obfuscation
from unmask.losses import targeted_dlr
from unmask.nets import conv_net
from unmask.threats import Linf
from unmask.training.classifier import ClassifierRecipe

__all__ = ["CASES", "adaptive_diversity"]

_MEMBERS = 3


def adaptive_diversity(model: Averaged, x: Tensor, y: Tensor, progress: float) -> tuple[Tensor, Tensor]:
    """The mean of the authors' loss over a batch, and the members' mean logits (B, K)."""
    logits = torch.stack([member(x) for member in model.members], 1).float()
    return diversity_loss(logits, y).mean(), logits.mean(1)


def _build() -> nn.Module:
    return Averaged([conv_net(1, 28, (16, 32), 64) for _ in range(_MEMBERS)])


CASES = (
    Case(
        name="diversity-mnist",
        defense="adaptive diversity promoting",
        obfuscation=(Obfuscation.NONE,),
        data="mnist",
        threat=Linf(0.15),
        citation="Pang et al., ICML 2019",
        build=_build,
        attacks={
            "plain": own_gradient(),
            "apgd": AttackSpec(
                "APGD on cross entropy with 2 restarts, APGD on DLR with 5 targets",
                lambda _: Ensemble((apgd_ce(restarts=2), APGD(100, targeted_dlr, targets=5))),
            ),
        },
        train=ClassifierTraining("mnist", ClassifierRecipe(epochs=5, shift=2), adaptive_diversity),
        note="no control: the ensemble has no masked gradient, and the evaluation of its authors took few steps",
    ),
)
