"""A defense as a case: see CONTRIBUTING.md, "Add a defense"."""

from torch import Tensor, nn

from unmask.attacks.aliases import pgd
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import DIGITS, own_gradient
from unmask.defenses.preprocessed import Preprocessed
from unmask.gradients.bpda import bpda
from unmask.kinds import Obfuscation
from unmask.losses import margin
from unmask.nets import conv_net


class Levels(nn.Module):
    """Images (B, C, H, W) in [0, 1] rounded to eight grey levels."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 7).round() / 7


CASES = (
    Case(
        name="levels-digits",
        defense="eight grey levels",
        obfuscation=(Obfuscation.SHATTERED,),
        data="digits",
        threat=DIGITS,
        citation="Author et al., 2026",
        build=lambda: Preprocessed(Levels(), conv_net(1, 8, (16, 32), 64)),
        base_case="plain-digits",  # its weights are those of the part ``classifier``
        train=None,  # the defense has none of its own
        attacks={
            "plain": own_gradient(),
            "bpda": AttackSpec("BPDA by the identity: PGD", lambda _: pgd(60, margin), bpda("transform")),
        },
    ),
)
