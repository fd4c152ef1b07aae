"""Nearest neighbours of an embedding: the labels of the training images that it puts closest are the answer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.defenses.post2018.test_time.neighbours import NearestVote

__all__ = ["EmbeddingNeighbours"]


class EmbeddingNeighbours(nn.Module):
    """The most frequent label of the k images that a network embeds closest to the given one. Shattered gradients.

    Embeddings are scaled to length 1 and compared by their scalar product. The answer (B, K) is the number of
    neighbours of each label, which has no gradient; a tie is won by the label of the lowest number.

    Args:
        classifier: (B, C, H, W) -> (B, K); the input (B, n) of its last child is the embedding.
        size: n.
        references: how many images are compared with; :meth:`remember` sets them, and they are stored with the weights.
        neighbours: k.
        classes: K.

    >>> model = EmbeddingNeighbours(nn.Sequential(nn.Flatten(), nn.Linear(4, 10)), size=4, references=20)
    >>> model.remember(torch.rand(20, 1, 2, 2), torch.arange(20) % 10)
    >>> model(torch.rand(3, 1, 2, 2)).sum(1)
    tensor([8., 8., 8.])
    """

    features: Tensor

    def __init__(
        self, classifier: nn.Sequential, size: int, references: int, neighbours: int = 8, classes: int = 10
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.register_buffer("features", torch.zeros(references, size))
        self.vote = NearestVote(torch.zeros(references, dtype=torch.long), neighbours, classes)
        self.register_buffer("labels", torch.zeros(references, dtype=torch.uint8))  # as stored: a byte each
        self.register_load_state_dict_post_hook(lambda module, keys: module._spread_labels())  # type: ignore[no-untyped-call]

    def _spread_labels(self) -> None:
        labels: Tensor = self.get_buffer("labels")
        self.vote.labels = labels.long()

    @torch.no_grad()
    def remember(self, images: Tensor, labels: Tensor, batch: int = 500) -> None:
        """Make (N, C, H, W) the references, of classes ``labels`` (N,)."""
        self.features.copy_(torch.cat([self.directions(part) for part in images.split(batch)]))
        self.get_buffer("labels").copy_(labels)
        self._spread_labels()

    def directions(self, x: Tensor) -> Tensor:
        """The embeddings (B, n) of images, scaled to length 1."""
        return F.normalize(self.classifier[:-1](x).float())

    def similarities(self, x: Tensor) -> Tensor:
        """The cosine (B, 1, references) of each image's embedding with those of the references."""
        directions = self.directions(x)
        with torch.autocast(x.device.type, enabled=False):
            return (directions @ self.features.T)[:, None]

    def forward(self, x: Tensor) -> Tensor:
        votes: Tensor = self.vote(self.similarities(x))
        return votes
