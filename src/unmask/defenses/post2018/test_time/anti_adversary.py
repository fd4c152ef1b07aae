"""The anti-adversary layer: each image is first moved to where the classifier is more certain of its answer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AntiAdversary", "MoreCertain"]


class MoreCertain(nn.Module):
    """Images (B, C, H, W) moved by ``steps`` signed gradients against the loss of the classifier's own answer.

    With t the class that the classifier gives to x, and g = 0 at first: g <- g - rate * sign(d L(f(x + g), t) / d g).
    The output x + g is not clipped. The steps are constants in the backward pass, as in the authors' algorithm, which
    takes them under a graph of its own.

    >>> linear = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    >>> linear[1].weight.data = torch.tensor([[1.0], [-1.0]])
    >>> MoreCertain(linear, steps=2, rate=0.25)(torch.tensor([[[[0.5]]]])).item()
    1.0
    """

    def __init__(self, classifier: nn.Module, steps: int = 2, rate: float = 0.15) -> None:
        super().__init__()
        self.classifier = classifier
        self.steps, self.rate = steps, rate

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            answer = self.classifier(x).argmax(1)
        image = x.detach()
        moved = torch.zeros_like(image)
        for _ in range(self.steps):
            moved.requires_grad_()
            with torch.enable_grad():
                loss = F.cross_entropy(self.classifier(image + moved).float(), answer, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, moved)
            moved = moved.detach() - self.rate * gradient.sign()
        return x + moved


class AntiAdversary(nn.Module):
    """A classifier behind an anti-adversary layer (Alfarra et al., AAAI 2022). Vanishing gradients.

    Behind the layer the probability of the answer is almost 1, so that little is left of the gradient of a loss of
    probabilities, whichever answer it is. The layer follows the classifier's answer to the image as it came: who
    changes that answer changes the defense's.

    Args:
        classifier: (B, C, H, W) -> logits (B, K); it needs no training for the layer.
        steps: of the layer.
        rate: length of a step, for every pixel.

    >>> AntiAdversary(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))(torch.rand(5, 1, 2, 2)).shape
    torch.Size([5, 3])
    """

    def __init__(self, classifier: nn.Module, steps: int = 2, rate: float = 0.15) -> None:
        super().__init__()
        self.classifier = classifier
        self.layer = MoreCertain(classifier, steps, rate)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.layer(x))
        return logits
