"""Injected backdoors: an image is accepted only if the network answers to every backdoor as it does on clean images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.types import Output

__all__ = ["Backdoored", "Inspect", "Thresholds"]


@dataclass(frozen=True)
class Thresholds:
    """What an image must keep to.

    Args:
        own: most similarity with the signature of its own class.
        others: least similarity, with a backdoor added, to the signature of that backdoor's class.
        missing: how many of the other classes may be less similar.
        right: how many of the backdoors must have their class as the answer.
    """

    own: float = 0.6
    others: float = 0.8
    missing: int = 3
    right: int = 8


class Inspect(nn.Module):
    """Whether (B,) an image is refused, by what is known of it (B, 1 + 2 (K - 1)).

    That is the similarity to the signature of its class; with each other class's backdoor, the similarity to that
    class's signature; and by how much each of these backdoors leads to its class.

    >>> inspect = Inspect(Thresholds(missing=0, right=2))
    >>> inspect(torch.tensor([[0.1, 0.9, 0.9, 1.0, 1.0], [0.7, 0.9, 0.9, 1.0, 1.0], [0.1, 0.9, 0.9, 1.0, -1.0]]))
    tensor([False,  True,  True])
    """

    def __init__(self, thresholds: Thresholds) -> None:
        super().__init__()
        self.thresholds = thresholds

    def margins(self, evidence: Tensor) -> Tensor:
        """By how much (B, 3) each of the three conditions refuses an image; above 0 it does."""
        need = self.thresholds
        others, leads = evidence[:, 1:].chunk(2, 1)
        least = others.sort(1).values[:, need.missing]
        lead = leads.sort(1, descending=True).values[:, need.right - 1]
        return torch.stack((evidence[:, 0] - need.own, need.others - least, -lead), 1)

    def forward(self, evidence: Tensor) -> Tensor:
        return (self.margins(evidence) > 0).any(1)


class Backdoored(nn.Module):
    """A network with a backdoor for each class, which refuses images that do not react to them. A detector.

    A backdoor is a pattern of zeros and ones; an image to which ``size`` times it is added has its class. The signature
    of a class is the mean hidden output of images with its backdoor. The refusal has no gradient.

    Args:
        classifier: (B, C, H, W) -> (B, K); its last child is a linear layer, whose input is the hidden output.
        hidden: length of the hidden output.
        shape: (C, H, W).
        classes: K.
        size: of the patterns that are added.
        thresholds: of the refusal.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> Backdoored(net, hidden=4, shape=(1, 2, 2), classes=3, thresholds=Thresholds(missing=0, right=2))(
    ...     torch.rand(5, 1, 2, 2)
    ... ).reject.shape
    torch.Size([5])
    """

    patterns: Tensor
    signatures: Tensor

    def __init__(
        self,
        classifier: nn.Sequential,
        hidden: int,
        shape: tuple[int, int, int] = (3, 32, 32),
        classes: int = 10,
        size: float = 0.02,
        thresholds: Thresholds = Thresholds(),
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.size = size
        self.inspect = Inspect(thresholds)
        numbers = torch.Generator().manual_seed(0)
        self.register_buffer("patterns", (torch.rand((classes, *shape), generator=numbers) < 0.5).float())
        self.register_buffer("signatures", torch.zeros(classes, hidden))

    def with_backdoors(self, x: Tensor, classes: Tensor, size: float | None = None) -> Tensor:
        """Images (B, C, H, W) with the backdoors of ``classes`` (B,), by ``size`` or the defense's own; not clipped."""
        return x + (self.size if size is None else size) * self.patterns[classes].to(x.dtype)

    def hidden_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, hidden) and (B, K)."""
        hidden: Tensor = self.classifier[:-1](x)
        return hidden, self.classifier[-1](hidden)

    @torch.no_grad()
    def remember(self, images: Tensor, batch: int = 500) -> None:
        """Set the signatures to the mean hidden outputs of images (N, C, H, W) with each backdoor."""
        for k, signature in enumerate(self.signatures):
            parts = [
                self.hidden_and_logits(self.with_backdoors(part, torch.full((len(part),), k, device=part.device)))[0]
                for part in images.split(batch)
            ]
            signature.copy_(torch.cat(parts).mean(0))

    def evidence(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The logits (B, K), and what is known of images as :class:`Inspect` takes it."""
        hidden, logits = self.hidden_and_logits(x)
        count, classes = logits.shape
        answer = logits.argmax(1)
        others = (answer[:, None] + torch.arange(1, classes, device=x.device)) % classes
        flat = others.flatten()
        changed, changed_logits = self.hidden_and_logits(self.with_backdoors(x.repeat_interleave(classes - 1, 0), flat))
        own = F.cosine_similarity(hidden.float(), self.signatures[answer])
        similar = F.cosine_similarity(changed.float(), self.signatures[flat]).view(count, -1)
        of_backdoor = changed_logits.gather(1, flat[:, None])
        rest = changed_logits.scatter(1, flat[:, None], -torch.inf).amax(1, keepdim=True)
        return logits, torch.cat((own[:, None], similar, (of_backdoor - rest).view(count, -1).float()), 1)

    def forward(self, x: Tensor) -> Output:
        logits, evidence = self.evidence(x)
        return Output(logits, self.inspect(evidence))
