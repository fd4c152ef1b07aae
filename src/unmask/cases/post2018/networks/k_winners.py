"""k-winners-take-all: outputs that jump with every change of the image, broken by a smooth surrogate."""

from __future__ import annotations

from torch import nn

from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.black_box.square import Square
from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import MNIST, own_gradient
from unmask.cases.recipes import Against, ClassifierTraining
from unmask.defenses.post2018.networks.k_winners import KWinners, soft_winners, with_winners
from unmask.gradients.bpda import bpda
from unmask.kinds import Obfuscation
from unmask.losses import margin
from unmask.nets import strided_net
from unmask.training.classifier import ClassifierRecipe

__all__ = ["CASES"]

_FRACTION, _WIDTH = 0.1, 0.1


def _with_soft_winners(model: nn.Module) -> nn.Module:
    """BPDA in every layer; the forward pass stays the model's own."""
    view = model
    for name, part in model.named_modules():
        if isinstance(part, KWinners):
            view = bpda(name, soft_winners(part, _WIDTH))(view)
    return view


CASES = (
    Case(
        name="k-winners-mnist",
        defense="k-winners-take-all",
        obfuscation=(Obfuscation.SHATTERED,),
        data="mnist",
        threat=MNIST,
        citation="Xiao et al., ICLR 2020",
        build=lambda: with_winners(strided_net(1, 28, (16, 32), 128), _FRACTION),
        attacks={
            "plain": own_gradient(),
            "soft": AttackSpec(
                "BPDA, the choice of the winners a sigmoid in the backward pass: APGD on the margin, 3 restarts; "
                "Square with 3000 queries",
                lambda _: Ensemble((APGD(100, margin, restarts=3), Square(3000))),
                view=_with_soft_winners,
                low_precision=False,
            ),
        },
        train=ClassifierTraining("mnist", ClassifierRecipe(epochs=8, perturb=Against(MNIST, 3), low_precision=False)),
        note=f"{_FRACTION:.0%} of the units of each layer win; trained against 3 steps of PGD",
    ),
)
