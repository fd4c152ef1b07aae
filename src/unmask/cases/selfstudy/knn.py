"""Nearest neighbours of an embedding: a count has no gradient; broken by soft votes of all references."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from unmask.attacks.aliases import pgd
from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import CIFAR10, apgd_ce, own_gradient
from unmask.cases.post2018.test_time.neighbours import with_soft_votes
from unmask.cases.selfstudy.training import CITATION
from unmask.data import load
from unmask.defenses.selfstudy.embedding import EmbeddingNeighbours
from unmask.kinds import Obfuscation
from unmask.losses import margin
from unmask.nets import residual_net

__all__ = ["CASES", "Remembering"]

_SIZE, _REFERENCES = 256, 3000


@dataclass(frozen=True)
class Remembering:
    """Show the defense the first training images; nothing else is trained."""

    references: int

    def __call__(self, model: nn.Module, folder: Path, *, seed: int, device: str) -> Iterator[dict[str, Any]]:
        assert isinstance(model, EmbeddingNeighbours)
        images, labels = (t.to(device) for t in load("cifar10", "train", n=self.references).batch())
        model.to(device).eval().remember(images, labels)
        yield {"references": self.references}


CASES = (
    Case(
        name="selfstudy-knn-cifar10",
        defense="nearest neighbours of an embedding",
        obfuscation=(Obfuscation.SHATTERED,),
        data="cifar10",
        threat=CIFAR10,
        citation=CITATION,
        build=lambda: EmbeddingNeighbours(residual_net(), _SIZE, _REFERENCES),
        attacks={
            "plain": own_gradient(),
            "soft": AttackSpec(
                "soft votes of the references in place of the nearest, alone: APGD on cross entropy, PGD on the margin",
                lambda _: Ensemble((apgd_ce(restarts=2), pgd(100, margin))),
                view=with_soft_votes,
            ),
        },
        train=Remembering(_REFERENCES),
        base_case="plain-cifar10",
        note=f"8 of {_REFERENCES} training images, embedded by plain-cifar10, trained with labels, not by contrast",
    ),
)
