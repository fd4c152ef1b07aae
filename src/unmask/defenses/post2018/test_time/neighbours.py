"""Deep k-nearest neighbours: in each layer, the nearest training images vote for their labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.errors import UnmaskError

__all__ = ["DeepNeighbours", "NearestVote", "soft_vote"]


class NearestVote(nn.Module):
    """Similarities (B, layers, N) to N labelled references -> (B, K) how many of the nearest have each label.

    In each layer the ``neighbours`` most similar references have a vote each.

    >>> similar = torch.tensor([[[0.9, 0.1, 0.8], [0.2, 0.7, 0.6]]])
    >>> NearestVote(torch.tensor([0, 1, 1]), neighbours=2, classes=2)(similar)
    tensor([[1., 3.]])
    """

    labels: Tensor

    def __init__(self, labels: Tensor, neighbours: int, classes: int) -> None:
        super().__init__()
        if not 0 < neighbours <= len(labels):
            raise UnmaskError(f"{neighbours} neighbours need as many references, not {len(labels)}")
        self.register_buffer("labels", labels, persistent=False)
        self.neighbours, self.classes = neighbours, classes

    def forward(self, similarity: Tensor) -> Tensor:
        nearest = self.labels[similarity.topk(self.neighbours, dim=2).indices]
        return F.one_hot(nearest, self.classes).to(similarity.dtype).sum((1, 2))


def soft_vote(vote: NearestVote, temperature: float) -> Callable[[Tensor], Tensor]:
    """The surrogate of ``vote``: each reference has a share, by a softmax of the similarities over ``temperature``.

    Similarities (B, layers, N) -> (B, K) the logarithm of the share of each label, summed over the layers. After the
    attack of Sitawarin & Wagner (2019), whose votes have a soft threshold.

    >>> vote = NearestVote(torch.tensor([0, 1, 1]), neighbours=2, classes=2)
    >>> soft_vote(vote, 0.1)(torch.tensor([[[0.9, 0.1, 0.8]]])).exp().round(decimals=2)
    tensor([[0.7300, 0.2700]])
    """

    def surrogate(similarity: Tensor) -> Tensor:
        shares = (similarity / temperature).softmax(2)
        of_class = shares @ F.one_hot(vote.labels, vote.classes).to(shares.dtype)
        return of_class.clamp_min(1e-12).log().sum(1)

    return surrogate


class DeepNeighbours(nn.Module):
    """Deep k-nearest neighbours (Papernot & McDaniel, 2018). Shattered gradients.

    Each layer's output, less its mean over the references and scaled to length 1, is compared with those of the
    references; the answer (B, K) is the number of neighbours of each label in all layers together. The authors turn
    these numbers into p-values with held-out images; a p-value falls with the number of neighbours of other labels, so
    that the class is the same.

    Args:
        classifier: (B, C, H, W) -> (B, K).
        layers: names of its children whose outputs are compared.
        references: images (N, C, H, W) in [0, 1], not stored with the weights.
        labels: (N,) of the references.
        neighbours: k, in each layer.
        classes: K.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> model = DeepNeighbours(net, ("0", "1"), torch.rand(9, 1, 2, 2), torch.arange(9) % 3, neighbours=3, classes=3)
    >>> model(torch.rand(5, 1, 2, 2)).sum(1)
    tensor([6., 6., 6., 6., 6.])
    """

    references: Tensor

    def __init__(
        self,
        classifier: nn.Sequential,
        layers: tuple[str, ...],
        references: Tensor,
        labels: Tensor,
        neighbours: int = 75,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.layers = layers
        self.register_buffer("references", references, persistent=False)
        self.vote = NearestVote(labels, neighbours, classes)
        self._known: list[tuple[Tensor, Tensor]] = []
        self._known_of: list[Any] = []

    def _outputs(self, x: Tensor) -> list[Tensor]:
        """The output (B, n) of each compared layer."""
        seen = []
        for name, layer in self.classifier.named_children():
            x = layer(x)
            if name in self.layers:
                seen.append(x.flatten(1).float())
        return seen

    def _of_references(self, device: torch.device) -> list[tuple[Tensor, Tensor]]:
        """Of each layer: the mean (1, n) over the references, and their directions (N, n) from it."""
        state = [device, *(p._version for p in self.classifier.state_dict(keep_vars=True).values())]
        if self._known_of != state:  # of other weights, or of none yet
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                outputs = self._outputs(self.references)
                means = [h.mean(0, keepdim=True) for h in outputs]
                self._known = [(m, F.normalize(h - m)) for h, m in zip(outputs, means, strict=True)]
                self._known_of = state
        return self._known

    def similarities(self, x: Tensor) -> Tensor:
        """The cosine (B, layers, N) of each layer's output with those of the references."""
        known = self._of_references(x.device)
        outputs = self._outputs(x)
        with torch.autocast(x.device.type, enabled=False):
            pairs = zip(outputs, known, strict=True)
            return torch.stack([F.normalize(h - mean) @ directions.T for h, (mean, directions) in pairs], 1)

    def forward(self, x: Tensor) -> Tensor:
        votes: Tensor = self.vote(self.similarities(x))
        return votes
