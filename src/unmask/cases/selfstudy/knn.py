"""Nearest neighbours of an embedding: a count has no gradient; broken by soft votes of all references."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.attacks.aliases import pgd
from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import CIFAR10, apgd_ce, own_gradient
from unmask.cases.selfstudy.training import CITATION, ProgressTraining, small_net
from unmask.defenses.post2018.neighbours import NearestVote, soft_vote
from unmask.defenses.selfstudy.augmentation import StrongAugmentation
from unmask.defenses.selfstudy.embedding import EmbeddingNeighbours
from unmask.gradients.bpda import bypass
from unmask.kinds import Obfuscation
from unmask.losses import margin
from unmask.training.classifier import ClassifierRecipe, Nesterov

__all__ = ["CASES", "contrastive"]

_SIZE, _REFERENCES = 128, 4000
_TEMPERATURE = 0.1
_SECOND_VIEW = StrongAugmentation()


def contrastive(model: EmbeddingNeighbours, x: Tensor, y: Tensor, progress: float) -> tuple[Tensor, Tensor]:
    """The contrastive loss of two augmented views, plus the cross entropy of a fixed random head on one of them.

    The embeddings of an image's two views shall be more similar than those of either with any other view of the batch
    (SimCLR: Chen et al., ICML 2020).
    """
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        views = torch.cat((_SECOND_VIEW(x), _SECOND_VIEW(x))).contiguous(memory_format=torch.channels_last)
    embedded = model.embed(views).float()
    with torch.autocast(x.device.type, enabled=False):
        directions = F.normalize(embedded)
        similar = directions @ directions.T / _TEMPERATURE
        similar = similar.masked_fill(torch.eye(len(similar), dtype=torch.bool, device=x.device), -1e9)
        other = torch.arange(len(similar), device=x.device).roll(len(x))
        scores = _fixed_head(embedded[: len(x)])
        return 2 * F.cross_entropy(similar, other) + F.cross_entropy(scores, y), scores


def _fixed_head(embedded: Tensor) -> Tensor:
    """Two random linear layers with a leaky ReLU between them, which are not trained: (B, n) -> (B, 10)."""
    numbers = torch.Generator().manual_seed(0)
    first, last = (torch.randn(_SIZE, n, generator=numbers).to(embedded) / _SIZE**0.5 for n in (_SIZE, 10))
    return F.leaky_relu(embedded @ first, 0.2) @ last


def _with_soft_votes(model: nn.Module) -> nn.Module:
    vote = model.get_submodule("vote")
    assert isinstance(vote, NearestVote)
    return bypass("vote", soft_vote(vote, temperature=0.1))(model)


CASES = (
    Case(
        name="selfstudy-knn-cifar10",
        defense="nearest neighbours of a contrastive embedding",
        obfuscation=(Obfuscation.SHATTERED,),
        data="cifar10",
        threat=CIFAR10,
        citation=CITATION,
        build=lambda: EmbeddingNeighbours(small_net(classes=_SIZE), _SIZE, _REFERENCES),
        attacks={
            "plain": own_gradient(),
            "soft": AttackSpec(
                "soft votes of the references in place of the nearest, alone: APGD on cross entropy, PGD on the margin",
                lambda _: Ensemble((apgd_ce(restarts=2), pgd(100, margin))),
                view=_with_soft_votes,
            ),
        },
        train=ProgressTraining(
            ClassifierRecipe(epochs=6, rate=0.12, optimizer=Nesterov()),
            contrastive,
            EmbeddingNeighbours.remember,
            _REFERENCES,
        ),
        note=f"8 neighbours among {_REFERENCES} training images, in place of all 50000; 6 epochs in place of 1000",
    ),
)
