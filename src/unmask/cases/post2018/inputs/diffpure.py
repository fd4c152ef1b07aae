"""DiffPure: noise and denoising before a plain network; broken by the mean of exact gradients through all steps."""

from __future__ import annotations

from unmask.attacks.aliases import pgd
from unmask.cases.case import AttackSpec, Case, ImageProbe
from unmask.cases.common import CIFAR10, own_gradient
from unmask.cases.post2018.training import DiffusionTraining
from unmask.defenses.post2018.inputs.diffpure import DiffPure, DiffusionPurify
from unmask.gradients.bpda import bpda
from unmask.gradients.eot import EOT
from unmask.kinds import Obfuscation
from unmask.losses import margin
from unmask.nets import UNet, residual_net
from unmask.training.diffusion import DiffusionRecipe

__all__ = ["CASES"]

_UNTIL, _STEPS = 60, 5

CASES = (
    Case(
        name="diffpure-cifar10",
        defense="DiffPure",
        obfuscation=(Obfuscation.STOCHASTIC,),
        data="cifar10",
        threat=CIFAR10,
        citation="Nie et al., ICML 2022",
        build=lambda: DiffPure(residual_net(), DiffusionPurify(UNet(), _UNTIL, _STEPS)),
        attacks={
            "plain": own_gradient(20),
            "bpda": AttackSpec(
                "BPDA: the purification is the identity in the backward pass, one draw a step; PGD on the margin",
                lambda _: pgd(40, margin),
                view=bpda("purify"),
            ),
            "exact": AttackSpec(
                "EOT over 4 draws of the exact gradient through all steps; PGD on the margin",
                lambda _: pgd(30, margin, EOT(4), early_stop=False),
            ),
        },
        train=DiffusionTraining("cifar10", DiffusionRecipe(epochs=1, batch=32), until=100),
        base_case="plain-cifar10",
        draws=4,
        image_probe=ImageProbe("purify"),
        n_controls=16,
        note=f"diffused to time {_UNTIL} of 1000 instead of the authors' 100, and denoised in {_STEPS} steps, by a "
        "small U-Net of 0.4 million parameters",
    ),
)
