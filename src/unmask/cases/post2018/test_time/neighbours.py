"""Deep k-nearest neighbours: votes have no gradient; broken by votes that are a smooth function of the similarity."""

from __future__ import annotations

from torch import nn

from unmask.attacks.aliases import pgd
from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import MNIST, apgd_ce, own_gradient
from unmask.data import load
from unmask.defenses.post2018.test_time.neighbours import DeepNeighbours, NearestVote, soft_vote
from unmask.gradients.bpda import bypass
from unmask.kinds import Obfuscation
from unmask.losses import margin
from unmask.nets import conv_net

__all__ = ["CASES", "with_soft_votes"]

_REFERENCES, _NEIGHBOURS = 2000, 75
_LAYERS = ("3", "7", "10", "11")  # behind both strided convolutions and both linear layers


def _build() -> nn.Module:
    images, labels = load("mnist", "train", n=_REFERENCES).batch()
    return DeepNeighbours(conv_net(1, 28, (16, 32), 64), _LAYERS, images, labels, _NEIGHBOURS)


def with_soft_votes(model: nn.Module) -> nn.Module:
    """The view in which soft votes of all references replace the count of the nearest."""
    vote = model.get_submodule("vote")
    assert isinstance(vote, NearestVote)
    return bypass("vote", soft_vote(vote, temperature=0.1))(model)


CASES = (
    Case(
        name="deep-neighbours-mnist",
        defense="deep k-nearest neighbours",
        obfuscation=(Obfuscation.SHATTERED,),
        data="mnist",
        threat=MNIST,
        citation="Papernot & McDaniel, 2018",
        build=_build,
        attacks={
            "plain": own_gradient(),
            "soft": AttackSpec(
                "soft votes of the references in place of the nearest, alone: APGD on cross entropy, PGD on the margin",
                lambda _: Ensemble((apgd_ce(restarts=2), pgd(100, margin))),
                view=with_soft_votes,
            ),
        },
        train=None,
        base_case="plain-mnist",
        note=f"{_NEIGHBOURS} neighbours among {_REFERENCES} training images, in four layers; nothing is refused",
    ),
)
