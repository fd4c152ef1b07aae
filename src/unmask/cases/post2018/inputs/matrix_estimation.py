"""ME-Net: images estimated from random pixels, in numpy; broken by an identity in the backward pass and EOT."""

from __future__ import annotations

from torch import nn

from unmask.attacks.aliases import pgd
from unmask.cases.case import AttackSpec, Case, ImageProbe
from unmask.cases.common import MNIST, own_gradient
from unmask.cases.recipes import ClassifierTraining
from unmask.defenses.post2018.inputs.matrix_estimation import MatrixEstimation
from unmask.gradients.bpda import bpda
from unmask.gradients.eot import EOT
from unmask.kinds import Obfuscation
from unmask.losses import margin, with_confidence
from unmask.nets import conv_net
from unmask.training.classifier import ClassifierRecipe

__all__ = ["CASES"]

_DRAWS = 8


def _build() -> nn.Module:
    return MatrixEstimation(conv_net(1, 28, (16, 32), 64), 0.4, 0.6)


CASES = (
    Case(
        name="matrix-estimation-mnist",
        defense="ME-Net, matrix estimation",
        obfuscation=(Obfuscation.SHATTERED, Obfuscation.STOCHASTIC),
        data="mnist",
        threat=MNIST,
        citation="Yang et al., ICML 2019",
        build=_build,
        attacks={
            "plain": own_gradient(40),
            "bpda": AttackSpec(
                f"BPDA, the estimation the identity in the backward pass, EOT over {_DRAWS} draws: PGD on the margin",
                lambda _: pgd(60, with_confidence(margin, 8.0), EOT(_DRAWS), rel_step_size=0.1),
                view=bpda("estimate"),
            ),
        },
        train=ClassifierTraining("mnist", ClassifierRecipe(epochs=3)),
        draws=5,
        n_controls=16,
        image_probe=ImageProbe("estimate"),
        note="singular value thresholding of 40 to 60 % of the pixels, without adversarial training",
    ),
)
