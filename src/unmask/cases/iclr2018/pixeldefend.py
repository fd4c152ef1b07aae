"""PixelDefend: no gradient at all through the greedy choices, which hardly move the image: BPDA."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from unmask.attacks.aliases import pgd
from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case, ImageProbe
from unmask.cases.common import CIFAR10, DIGITS, apgd_ce, own_gradient
from unmask.cases.literature import ALONE, earlier_run, table_of_2018
from unmask.cases.recipes import DensityTraining
from unmask.data import load
from unmask.defenses.pixeldefend import PixelDefend, Purify
from unmask.gradients.bpda import bpda, bypass
from unmask.gradients.surrogates.fit_surrogate import lazy_surrogate
from unmask.kinds import Obfuscation
from unmask.losses import margin
from unmask.nets import conv_net, residual_net
from unmask.nets.pixel_cnn import PixelCNN
from unmask.records import Figure
from unmask.training.density import DensityRecipe, levels

__all__ = ["CASES"]


def _bits(defense: nn.Module, x: Tensor) -> Tensor:
    density = cast(PixelCNN, defense.get_submodule("purify.density"))
    return density.bits_per_dim(levels(x))


def _training_images() -> Tensor:
    return load("cifar10", "train", n=512).batch()[0]


_CITATION = "Song et al., ICLR 2018"
_LENS = ImageProbe("purify", "bits per dimension under the density", _bits)
_TRANSFER = AttackSpec(
    "APGD on cross entropy, on the bare classifier",
    lambda _: apgd_ce(),
    view=bypass("purify"),
)
_BPDA = AttackSpec(
    "BPDA: the purification is the identity in the backward pass; PGD on the margin",
    lambda _: Ensemble((pgd(20, margin, rel_step_size=0.125), pgd(60, margin, restarts=2))),
    view=bpda("purify"),
)

CASES = (
    Case(
        name="pixeldefend-digits",
        defense="PixelDefend",
        obfuscation=(Obfuscation.VANISHING,),
        data="digits",
        threat=DIGITS,
        citation=_CITATION,
        build=lambda: PixelDefend(conv_net(1, 8, (16, 32), 64), Purify(PixelCNN(1, width=16, layers=3))),
        attacks={"plain": own_gradient(20), "transfer": _TRANSFER, "bpda": _BPDA},
        train=DensityTraining(
            "digits", DensityRecipe(epochs=20, shift=1, mirror=False, low_precision=False), held_out=500
        ),
        base_case="plain-digits",
        n_controls=32,
        image_probe=_LENS,
        note="16 levels of 255, as the authors' on CIFAR-10: one of the 16 steps of grey that these images have",
    ),
    Case(
        name="pixeldefend-cifar10",
        defense="PixelDefend",
        obfuscation=(Obfuscation.VANISHING,),
        data="cifar10",
        threat=CIFAR10,
        citation=_CITATION,
        build=lambda: PixelDefend(residual_net(), Purify(PixelCNN())),
        attacks={
            "plain": own_gradient(20),
            "transfer": _TRANSFER,
            "bpda": _BPDA,
            "surrogate": AttackSpec(
                "BPDA: in the backward pass the purification is a small surrogate network; PGD on the margin",
                lambda _: pgd(60, margin, restarts=2),
                view=lazy_surrogate("purify", _training_images, noise=0.02, rounds=1, steps=500),
            ),
        },
        train=DensityTraining("cifar10", DensityRecipe(epochs=2)),
        base_case="plain-cifar10",
        claimed=Figure(
            0.46,
            "Song et al., ICLR 2018",
            "https://arxiv.org/abs/1710.10766",
            "unverified, quoted from memory: PixelDefend on a ResNet trained on natural images, under the strongest "
            "attack at 8/255; the abstract's 70 % are for its adaptive variant on a network trained against FGSM",
        ),
        published=table_of_2018(0.09, ALONE),
        replicated=earlier_run(0.12),
        n_controls=16,
        image_probe=_LENS,
    ),
)
