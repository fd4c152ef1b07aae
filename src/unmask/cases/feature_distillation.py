"""Feature distillation, tried fairly: BPDA, EOT and reparameterization, at every level of access."""

from __future__ import annotations

import copy
from dataclasses import replace

from torch import Tensor, nn

from unmask.attacks.aliases import pgd
from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.black_box.hop_skip_jump import HopSkipJump
from unmask.attacks.black_box.square import Square
from unmask.attacks.combined.ensemble import Ensemble
from unmask.attacks.gradient_attack import GradientAttack
from unmask.attacks.optimizers import Adam
from unmask.attacks.penalties import Penalty
from unmask.cases.case import AttackSpec, Case, ImageProbe, StrengthSweep
from unmask.cases.code_space import Codes
from unmask.cases.common import CIFAR10, IMAGENET, IMAGENET_L2, apgd_ce, cifar10_recipe, light_net, own_gradient
from unmask.cases.recipes import StudentTraining
from unmask.defenses.distortion import RandomDistortion
from unmask.defenses.preprocessed import Preprocessed
from unmask.defenses.transforms.feature_distillation import FeatureDistillation
from unmask.gradients.autograd import autograd
from unmask.gradients.bpda import View, bpda, bypass
from unmask.gradients.eot import EOT, signal_to_noise
from unmask.kinds import Access, Obfuscation
from unmask.losses import margin, with_confidence
from unmask.nets import mobilenet_v2, residual_net
from unmask.randomness import normal
from unmask.types import Output

__all__ = ["CASES"]

_PENALTY = Penalty(10.0)


class _Jittered(nn.Module):
    """A model of images with noise, half a step of the quantiser in size."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Output | Tensor:
        answer: Output | Tensor = self.model(x + 12.5 / 255 * normal(x.shape, like=x))
        return answer


def _of_step(model: nn.Module, step: float) -> nn.Module:
    """A copy whose quantiser has that step for the upper frequencies, and all others in proportion."""
    copied = copy.deepcopy(model)
    for part in copied.modules():
        if isinstance(part, FeatureDistillation):
            part.table *= step / part.table.max()
    return copied


_STRENGTH = StrengthSweep(
    "step of the quantiser for the upper frequencies, in levels",
    30.0,
    (5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0),
    _of_step,
    "bpda",
)


def _attackers(quantiser: str, *, random: bool = False) -> dict[str, AttackSpec]:
    """Attacks at every access; ``quantiser`` is the path of the rounding, ``random`` whether the defense draws."""
    view = bpda(quantiser)
    loss = with_confidence(margin, 1.0) if random else margin
    draws = EOT(16, until=signal_to_noise(1.0))
    codes = Codes(FeatureDistillation().table)
    search = GradientAttack(
        150, loss, Adam(0.1), draws if random else autograd, codes, 2, random_start=False, penalty=_PENALTY
    )
    jittered: View = view if random else lambda model: _Jittered(view(model))
    return {
        "plain": own_gradient(40),
        "bpda": AttackSpec(
            "BPDA: the rounding is the identity in the backward pass; PGD in large steps and APGD, on the margin",
            lambda _: Ensemble(
                (pgd(20, loss, rel_step_size=0.25), APGD(100, loss=loss), pgd(200, loss, rel_step_size=0.25))
            ),
            view=view,
        ),
        "eot": AttackSpec(
            f"BPDA, EOT over {'draws' if random else 'noise on the image'}, up to 16 a step: PGD on the margin",
            lambda _: pgd(80, loss, draws, rel_step_size=0.1),
            view=jittered,
        ),
        "reparameterization": AttackSpec(
            "a search over the codes of the quantiser; only changes that it passes are penalised",
            lambda _: search,
            view=view,
        ),
        "transfer": AttackSpec(
            "APGD on cross entropy, on the bare classifier",
            lambda _: apgd_ce(),
            view=bypass("transform"),
            access=Access.GREY_BOX,
        ),
        "square": AttackSpec("Square, 2000 queries", lambda _: Square(2000), access=Access.SCORES),
        # the quantiser does not remove probes of this size; smaller ones change no label
        "hop-skip-jump": AttackSpec(
            "HopSkipJump, 2000 queries", lambda _: HopSkipJump(2000, size=0.7), access=Access.LABELS
        ),
    }


_DISTILLED = Case(
    name="feature-distillation-imagenet",
    defense="feature distillation",
    obfuscation=(Obfuscation.SHATTERED,),
    data="imagenet-sample",
    threat=IMAGENET,
    citation="Liu et al., CVPR 2019",
    build=lambda: Preprocessed(FeatureDistillation(), mobilenet_v2()),
    attacks=_attackers("transform.quantise"),
    train=None,
    pretrained="mobilenet_v2",
    n_controls=16,
    image_probe=ImageProbe("transform"),
    strength_sweep=_STRENGTH,
    note="steps of 25 for the lowest 4x4 frequencies, 30 for all others",
)

_DISTORTED = replace(
    _DISTILLED,
    name="fd-rdg-imagenet",
    defense="feature distillation and random distortion over grids",
    obfuscation=(Obfuscation.SHATTERED, Obfuscation.STOCHASTIC),
    citation="Zeng et al., 2020",
    build=lambda: Preprocessed(nn.Sequential(FeatureDistillation(), RandomDistortion()), mobilenet_v2()),
    attacks=_attackers("transform.0.quantise", random=True),
    draws=5,
    strength_sweep=None,
)

_PHOTOGRAPHS = replace(
    _DISTILLED,
    name="feature-distillation-cifar10",
    data="cifar10",
    threat=CIFAR10,
    build=lambda: Preprocessed(FeatureDistillation(), residual_net()),
    base_case="plain-cifar10",
    pretrained=None,
    n_controls=64,
)

CASES = (
    _DISTILLED,
    replace(_DISTILLED, name="feature-distillation-l2-imagenet", threat=IMAGENET_L2),
    _PHOTOGRAPHS,
    replace(
        _PHOTOGRAPHS,
        name="distilled-student-cifar10",
        defense="a student of feature-distilled images",
        citation="after Liu et al., CVPR 2019, and Hinton et al., 2015",
        build=lambda: Preprocessed(FeatureDistillation(), light_net()),
        base_case=None,
        strength_sweep=None,  # it was taught behind one step
        train=StudentTraining("cifar10", "plain-cifar10", residual_net, cifar10_recipe(10)),
        note="1.1 million parameters, taught by the network of plain-cifar10 on images behind the quantiser",
    ),
    _DISTORTED,
    replace(_DISTORTED, name="fd-rdg-l2-imagenet", threat=IMAGENET_L2),
)
