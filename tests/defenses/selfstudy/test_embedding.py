from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from unmask.defenses.selfstudy.embedding import EmbeddingNeighbours
from unmask.weights import load_weights, save_weights

IMAGES = torch.randn(40, 1, 3, 3, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(40) % 10
X = torch.randn(7, 1, 3, 3, generator=torch.Generator().manual_seed(2))


def model() -> EmbeddingNeighbours:
    torch.manual_seed(0)
    made = EmbeddingNeighbours(
        nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.Linear(4, 10)), size=4, references=40
    ).eval()
    made.remember(IMAGES, LABELS)
    return made


def test_the_nearest_by_angle_vote() -> None:
    defense = model()
    embedded, known = defense.classifier[:2](X), defense.classifier[:2](IMAGES)
    for i, votes in enumerate(defense(X)):
        cosines = torch.cosine_similarity(embedded[i : i + 1], known)
        nearest = cosines.sort(descending=True).indices[:8]
        assert votes.tolist() == [(LABELS[nearest] == k).sum().item() for k in range(10)]


def test_votes_have_no_gradient_and_similarities_have_one() -> None:
    x = X.clone().requires_grad_()
    assert not model()(x).requires_grad
    assert model().similarities(x).requires_grad


def test_what_it_remembers_is_stored_with_the_weights(tmp_path: Path) -> None:
    defense = model()
    save_weights(defense, tmp_path / "knn.safetensors")
    other = EmbeddingNeighbours(
        nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.Linear(4, 10)), size=4, references=40
    ).eval()
    load_weights(other, tmp_path / "knn.safetensors")
    assert torch.equal(other.vote.labels, LABELS)
    assert torch.allclose(other.similarities(X), defense.similarities(X), atol=1e-2)
