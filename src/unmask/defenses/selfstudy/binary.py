"""An ensemble of binary classifiers: each says whether the image shows its class, and exactly one should say yes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from unmask.types import Output

__all__ = ["BinaryEnsemble", "Merge"]


class Merge(nn.Module):
    """Logits (B, K, 2) of no and yes -> scores (B, K), and whether (B,) no class is certain enough.

    With d the logit of yes less that of no, the scores are 5 sigmoid(5 d); an image is refused where the largest of
    their softmax is below ``least``: where none says yes, or two do.

    >>> logits = torch.tensor([[[0.0, 9.0], [9.0, 0.0]], [[0.0, 9.0], [0.0, 9.0]]])
    >>> scores, refused = Merge()(logits)
    >>> scores.round(), refused
    (tensor([[5., 0.],
            [5., 5.]]), tensor([False,  True]))
    """

    def __init__(self, least: float = 0.7) -> None:
        super().__init__()
        self.sigmoid = nn.Sigmoid()
        self.least = least

    def forward(self, logits: Tensor) -> Output:
        scores = 5 * self.sigmoid(5 * (logits[..., 1] - logits[..., 0]))
        return Output(scores, scores.softmax(1).amax(1) < self.least)


class BinaryEnsemble(nn.Module):
    """A network for each class, which says yes or no. Vanishing gradients, and a detector without any.

    Args:
        members: of the classes in their order; each (B, ...) -> logits (B, 2) of no and yes.
        body: what all members see images through: (B, C, H, W) -> (B, ...); None for the images themselves.

    >>> members = [nn.Sequential(nn.Flatten(), nn.Linear(4, 2)) for _ in range(3)]
    >>> BinaryEnsemble(members)(torch.rand(5, 1, 2, 2)).logits.shape
    torch.Size([5, 3])
    """

    def __init__(self, members: Iterable[nn.Module], body: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Identity() if body is None else body
        self.members = nn.ModuleList(members)
        self.merge = Merge()

    def logits(self, x: Tensor) -> Tensor:
        """Of each member: (B, K, 2)."""
        seen = self.body(x)
        return torch.stack([member(seen) for member in self.members], 1)

    def forward(self, x: Tensor) -> Output:
        answer: Output = self.merge(self.logits(x))
        return answer
