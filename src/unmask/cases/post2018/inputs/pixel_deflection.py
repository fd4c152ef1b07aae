"""Pixel deflection: no gradient passes the deflection and the denoising, which hardly move the image: BPDA."""

from __future__ import annotations

from torch import nn

from unmask.attacks.aliases import pgd
from unmask.attacks.combined.ensemble import Ensemble
from unmask.attacks.combined.with_view import WithView
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import CIFAR10, apgd_ce, own_gradient
from unmask.defenses.post2018.inputs.pixel_deflection import Deflect, ShrinkWavelets
from unmask.defenses.preprocessed import Preprocessed
from unmask.gradients.bpda import bpda
from unmask.gradients.eot import EOT
from unmask.gradients.straight_through import straight_through
from unmask.kinds import Obfuscation
from unmask.losses import margin, with_confidence
from unmask.nets import residual_net

__all__ = ["CASES"]

_SURE = with_confidence(margin, 4.0)  # an image that is just over the boundary is classified correctly in some draws

CASES = (
    Case(
        name="pixel-deflection-cifar10",
        defense="pixel deflection",
        obfuscation=(Obfuscation.SHATTERED, Obfuscation.STOCHASTIC),
        data="cifar10",
        threat=CIFAR10,
        citation="Prakash et al., CVPR 2018",
        build=lambda: Preprocessed(nn.Sequential(Deflect(100, 10), ShrinkWavelets()), residual_net()),
        attacks={
            "plain": own_gradient(),
            "bpda": AttackSpec(
                "BPDA, deflection and denoising the identity in the backward pass: PGD on the margin with EOT over 2 "
                "draws; then each operation differentiated as it stands: APGD on cross entropy with EOT over 8 draws",
                lambda _: Ensemble((pgd(40, _SURE, EOT(2)), WithView(straight_through, apgd_ce(100, EOT(8))))),
                view=bpda("transform"),
            ),
        },
        train=None,
        base_case="plain-cifar10",
        draws=5,
        note="100 of 3072 values are deflected, a larger share than the authors' 200 of 150528; no activation map",
    ),
)
