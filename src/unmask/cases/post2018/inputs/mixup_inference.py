"""Mixup inference: each pass mixes with other images, whose mean gradient is that of the defense: EOT."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from unmask.attacks.aliases import pgd
from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import DIGITS, apgd_ce, own_gradient
from unmask.cases.recipes import ClassifierTraining
from unmask.data import load
from unmask.defenses.post2018.inputs.mixup_inference import MixupInference, balanced_pool
from unmask.gradients.eot import EOT
from unmask.kinds import Obfuscation
from unmask.losses import margin
from unmask.nets import conv_net
from unmask.randomness import uniform
from unmask.training.classifier import ClassifierRecipe

__all__ = ["CASES", "mixed_images"]

_POOL, _SAMPLES, _SHARE = 100, 30, 0.5


def mixed_images(model: Any, x: Tensor, y: Tensor, progress: float) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al., ICLR 2018), each image's share uniform in [0, 1): the loss, and the logits (B, K).

    Image i is mixed with image -1 - i of the batch, which is shuffled; so are the losses of the two labels.
    """
    share = uniform((len(x),), like=x)
    wide = share.view(-1, 1, 1, 1)
    logits = model.classifier(wide * x + (1 - wide) * x.flip(0)).float()
    losses = [F.cross_entropy(logits, labels, reduction="none") for labels in (y, y.flip(0))]
    return (share * losses[0] + (1 - share) * losses[1]).mean(), logits


def _build() -> nn.Module:
    images, labels = load("digits", "train").batch()
    pool = balanced_pool(images, labels, _POOL, 10)
    return MixupInference(conv_net(1, 8, (16, 32), 64), pool, samples=_SAMPLES, share=_SHARE)


CASES = (
    Case(
        name="mixup-inference-digits",
        defense="mixup inference",
        obfuscation=(Obfuscation.STOCHASTIC,),
        data="digits",
        threat=DIGITS,
        citation="Pang et al., ICLR 2020",
        build=_build,
        attacks={
            "plain": own_gradient(),
            "eot": AttackSpec(
                "EOT over 4 draws of the mixtures: APGD on cross entropy, PGD on the margin to its last step",
                lambda _: Ensemble(
                    (apgd_ce(100, EOT(4)), pgd(100, margin, EOT(4), rel_step_size=0.1, early_stop=False)), draws=8
                ),
            ),
        },
        train=ClassifierTraining("digits", ClassifierRecipe(epochs=200, batch=64), mixed_images),
        draws=5,
        note=f"MI-OL with {_SAMPLES} mixtures of share {_SHARE}, on smaller images than the authors'",
    ),
)
