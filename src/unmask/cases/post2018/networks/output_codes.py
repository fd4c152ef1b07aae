"""Error-correcting output codes: saturated bits; broken by an attack on the logits of the bits."""

from __future__ import annotations

from torch import Tensor, nn

from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import MNIST, own_gradient
from unmask.cases.recipes import ClassifierTraining
from unmask.defenses.post2018.networks.output_codes import OutputCodes, hadamard_code
from unmask.gradients.bpda import bypass
from unmask.kinds import Obfuscation
from unmask.losses import margin
from unmask.nets import conv_net
from unmask.training.classifier import ClassifierRecipe

__all__ = ["CASES", "bit_hinge"]

_BITS, _MEMBERS = 16, 4


def bit_hinge(model: OutputCodes, x: Tensor, y: Tensor, progress: float) -> tuple[Tensor, Tensor]:
    """The mean over the bits of max(0, 1 - word * bit), and the log probabilities (B, K)."""
    bits = model.bits(x).float()
    return (1 - model.decode.code[y] * bits).clamp_min(0).mean(), model.decode(bits)


def _logits_of_the_bits(model: nn.Module) -> nn.Module:
    """The correlations of the words with the logits of the bits: neither tanh nor floor nor logarithm."""
    decode = model.get_submodule("decode")
    return bypass("decode", decode.correlations)(bypass("squash")(model))  # type: ignore[arg-type]


CASES = (
    Case(
        name="output-codes-mnist",
        defense="error-correcting output codes",
        obfuscation=(Obfuscation.VANISHING,),
        data="mnist",
        threat=MNIST,
        citation="Verma & Swami, NeurIPS 2019",
        build=lambda: OutputCodes(
            [conv_net(1, 28, (16, 32), 64, _BITS // _MEMBERS) for _ in range(_MEMBERS)], hadamard_code(10, _BITS)
        ),
        attacks={
            "plain": own_gradient(),
            "logits": AttackSpec(
                "APGD on the margin of the words' correlations with the logits of the bits, tanh and decoding alone",
                lambda _: Ensemble((APGD(100, margin), APGD(100, margin, restarts=2))),
                view=_logits_of_the_bits,
            ),
        },
        train=ClassifierTraining("mnist", ClassifierRecipe(epochs=5, shift=2), bit_hinge),
        note="four members of four bits each, smaller than those of the authors",
    ),
)
