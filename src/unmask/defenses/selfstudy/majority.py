"""A vote of three networks: two must agree on a class, or the image is refused."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from unmask.defenses.post2018.networks.mixed_precision import Vote
from unmask.errors import UnmaskError
from unmask.types import Output

__all__ = ["Majority", "MajorityVote"]


class Majority(nn.Module):
    """Logits (B, members, K) -> votes (B, K) for each class, and whether (B,) fewer than two members agree.

    >>> Majority()(torch.tensor([[[3.0, 1, 0], [9, 0, 0], [0, 1, 2]], [[3.0, 1, 0], [0, 9, 0], [0, 1, 2]]])).reject
    tensor([False,  True])
    """

    def __init__(self) -> None:
        super().__init__()
        self.vote = Vote()

    def forward(self, logits: Tensor) -> Output:
        votes = self.vote(logits)
        return Output(votes, votes.amax(1) < 2)


class MajorityVote(nn.Module):
    """The class on which most members agree. Shattered gradients, and a detector without any.

    The answer is the number of votes (B, K) of each class, and whether (B,) the image is refused.

    Raises UnmaskError for fewer than two members.

    >>> MajorityVote([nn.Flatten(), nn.Flatten()])(torch.tensor([[[[0.2, 0.7]]]])).logits
    tensor([[0., 2.]])
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        if len(self.members) < 2:
            raise UnmaskError("a majority needs at least two members", "give MajorityVote some networks")
        self.decide = Majority()

    def logits(self, x: Tensor) -> Tensor:
        """Of each member: (B, members, K)."""
        return torch.stack([member(x) for member in self.members], 1)

    def forward(self, x: Tensor) -> Output:
        answer: Output = self.decide(self.logits(x))
        return answer
