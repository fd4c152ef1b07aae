"""Detection by local intrinsic dimensionality: adversarial images have unusual neighbourhoods in every layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.types import Output

__all__ = ["LID", "local_intrinsic_dimensionality"]


def local_intrinsic_dimensionality(h: Tensor, references: Tensor, neighbours: int) -> Tensor:
    """The maximum-likelihood estimate (B,) from the distances of ``h`` (B, n) to ``references`` (N, n).

    -1 / mean_j log(r_j / r_k) over the k nearest of the references; Amsaleg et al. (KDD 2015).

    >>> line = torch.linspace(0, 1, 100)[1:, None]
    >>> local_intrinsic_dimensionality(torch.zeros(1, 1), line, 20).round(decimals=1)
    tensor([1.1000])
    """
    square = h.square().sum(1, keepdim=True) + references.square().sum(1) - 2 * h @ references.T
    nearest = square.clamp_min(1e-12).topk(neighbours, largest=False).values
    return -2 / (nearest / nearest[:, -1:]).log().mean(1).clamp_max(-1e-6)


class LID(nn.Module):
    """A classifier and a detector of adversarial images (Ma et al., ICLR 2018). Does not mask gradients.

    Each layer's output is compared with those of clean reference images; the estimates of all layers,
    scaled to [0, 1] over the images it was fitted to, go into a logistic regression. An image is refused
    where that exceeds a threshold. Answers logits (B, K) and the margin by which an image is refused (B,).

    The authors estimate within a batch that holds the clean original of each adversarial image, and then
    drop the nearest neighbour. A detector that is deployed has no such original: the references here are
    fixed training images, and nothing is dropped.

    Args:
        classifier: (B, C, H, W) -> (B, K).
        references: clean images (N, C, H, W) in [0, 1], not stored with the weights.
        neighbours: k of the estimate.

    Raises UnmaskError for fewer references than neighbours.

    >>> LID(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.rand(30, 1, 2, 2))(torch.rand(8, 1, 2, 2)).reject.shape
    torch.Size([8])
    """

    references: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, classifier: nn.Module, references: Tensor, neighbours: int = 20) -> None:
        super().__init__()
        if len(references) < neighbours:
            raise UnmaskError(f"{neighbours} neighbours need as many references, not {len(references)}")
        self.classifier = classifier
        self.neighbours = neighbours
        self.register_buffer("references", references, persistent=False)
        layers = [m for m in classifier.modules() if not [*m.children()] and not isinstance(m, nn.Flatten)]
        self.register_buffer("weight", torch.zeros(len(layers)))  # of the estimates, the scaling to [0, 1] included
        self.register_buffer("bias", torch.zeros(()))  # less the threshold
        self._seen: list[Tensor] | None = None
        self._known: list[Tensor] = []
        self._known_of: list[Any] = []
        for layer in layers:
            layer.register_forward_hook(self._see)  # a bound method, which follows copies of the model

    def _see(self, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        if self._seen is not None:
            self._seen.append(output.flatten(1).float())

    def _layers(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, K), and each layer's output (B, n)."""
        self._seen = []
        try:
            return self.classifier(x), self._seen
        finally:
            self._seen = None

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and each layer's estimate (B, layers)."""
        state = [x.device, *(p._version for p in self.classifier.state_dict(keep_vars=True).values())]
        if self._known_of != state:  # of other weights, or of none yet
            with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
                self._known, self._known_of = self._layers(self.references)[1], state
        logits, seen = self._layers(x)
        with torch.autocast(x.device.type, enabled=False):
            found = [
                local_intrinsic_dimensionality(h, r, self.neighbours) for h, r in zip(seen, self._known, strict=True)
            ]
        return logits, torch.stack(found, 1)

    def forward(self, x: Tensor) -> Output:
        logits, features = self.features(x)
        return Output(logits, features @ self.weight + self.bias)
