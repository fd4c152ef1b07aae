"""A multi-resolution self-ensemble: CrossMax passes little gradient; the mean of the members' logits and EOT do."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from unmask.attacks.aliases import pgd
from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import DIGITS, apgd_ce, own_gradient
from unmask.cases.recipes import ClassifierTraining
from unmask.defenses.post2018.networks.multi_resolution import MultiResolution, ResolutionStack
from unmask.gradients.bpda import bypass
from unmask.gradients.eot import EOT
from unmask.kinds import Obfuscation
from unmask.losses import margin, with_confidence
from unmask.nets import residual_net
from unmask.training.classifier import ClassifierRecipe

__all__ = ["CASES", "network_and_heads"]

_LAYERS = ("1.0", "1.1", "2.0", "2.1")  # each stage's first convolution, and its residual block
_SIZES = (512, 512, 256, 256)
_SURE = with_confidence(margin, 1.0)


def network_and_heads(model: Any, x: Tensor, y: Tensor, progress: float) -> tuple[Tensor, Tensor]:
    """The sum of all members' cross entropies, and the logits (B, K) of the network itself."""
    logits = model.logits(x).float()
    return sum(F.cross_entropy(z, y) for z in logits.unbind(1)), logits[:, -1]  # type: ignore[return-value]


def _mean_logits(logits: Tensor) -> Tensor:
    return logits.mean(1)


def _build() -> nn.Module:
    stack = ResolutionStack((8, 4, 2), jitter=1)
    network = residual_net(len(stack.resolutions), (32, 64), whitening=0, strided=True)
    return MultiResolution(stack, network, _LAYERS, _SIZES)


CASES = (
    Case(
        name="multi-resolution-digits",
        defense="multi-resolution self-ensemble",
        obfuscation=(Obfuscation.STOCHASTIC, Obfuscation.SHATTERED),
        data="digits",
        threat=DIGITS,
        citation="Fort & Lakshminarayanan, 2024",
        build=_build,
        attacks={
            "plain": own_gradient(),
            "mean": AttackSpec(
                "the members' mean logits in place of CrossMax, alone, EOT over 8 draws: APGD on cross entropy, PGD on "
                "the margin",
                lambda _: Ensemble((apgd_ce(100, EOT(8)), pgd(100, _SURE, EOT(8)))),
                view=bypass("vote", _mean_logits),
            ),
        },
        train=ClassifierTraining("digits", ClassifierRecipe(epochs=60, batch=64), network_and_heads),
        draws=5,
        note="the authors' self-ensemble over layers, on small images, without pretraining",
    ),
)
