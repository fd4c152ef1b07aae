"""PixelDefend: no gradient at all through the greedy choices, which hardly move the image: BPDA with the identity."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from unmask.attacks.ensemble import Ensemble
from unmask.attacks.settings import pgd
from unmask.cases.case import Attacker, Case, Lens
from unmask.cases.recipes import DensityTraining
from unmask.cases.shared import CIFAR10, apgd_ce, own_gradient
from unmask.defenses.pixeldefend import PixelDefend, Purify
from unmask.gradients.bpda import bpda, bypass
from unmask.losses import margin
from unmask.nets import residual_net
from unmask.nets.pixel_cnn import PixelCNN
from unmask.training.density import DensityRecipe, levels

__all__ = ["CASES"]


def _bits(defense: nn.Module, x: Tensor) -> Tensor:
    density = cast(PixelCNN, defense.get_submodule("purify.density"))
    return density.bits_per_dim(levels(x))


CASES = (
    Case(
        name="pixeldefend-cifar10",
        defense="PixelDefend",
        kind="vanishing/exploding",
        data="cifar10",
        threat=CIFAR10,
        citation="Song et al., ICLR 2018",
        build=lambda: PixelDefend(residual_net(), Purify(PixelCNN())),
        attackers={
            "plain": own_gradient(20),
            "transfer": Attacker(
                "APGD on cross entropy, on the bare classifier",
                lambda _: apgd_ce(),
                view=bypass("purify"),
            ),
            "bpda": Attacker(
                "BPDA: the purification is the identity on the way back; PGD on the margin",
                lambda _: Ensemble((pgd(20, margin, size=0.125), pgd(60, margin, restarts=2))),
                view=bpda("purify"),
            ),
        },
        train=DensityTraining("cifar10", DensityRecipe(epochs=6)),
        base="plain-cifar10",
        claimed=0.70,
        published=0.09,
        few=16,
        lens=Lens("purify", "bits per dimension under the density", _bits),
    ),
)
