"""What is done inside of a network: activations that jump, neurons that are dropped, logits that are large."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.defenses.sap import SAP, KeepEach

__all__ = ["HighTemperature", "Jump", "JumpNet", "RandomNeurons", "smooth_jump"]

_SLOPE = 0.2


class Jump(nn.Module):
    """A leaky ReLU that is ``size`` higher where its input is above 0; any shape.

    Its gradient is that of the leaky ReLU, which is the same on both sides of the jump but for the slope.

    >>> Jump()(torch.tensor([-1.0, 0.0, 1.0])).tolist()
    [-0.20000000298023224, 0.0, 6.0]
    """

    def __init__(self, size: float = 5.0) -> None:
        super().__init__()
        self.size = size

    def forward(self, h: Tensor) -> Tensor:
        h = F.leaky_relu(h, _SLOPE)
        return h + self.size * (h > 0).to(h.dtype)


def smooth_jump(width: float, size: float = 5.0) -> Callable[[Tensor], Tensor]:
    """The surrogate of :class:`Jump`: a sigmoid of the input over ``width`` in place of the step.

    >>> smooth_jump(0.5)(torch.tensor([0.0])).tolist()
    [2.5]
    """
    return lambda h: F.leaky_relu(h, _SLOPE) + size * (h / width).sigmoid()


class JumpNet(nn.Module):
    """A classifier all of whose ReLUs are replaced by one :class:`Jump`. Shattered gradients.

    ``jump`` is one part of the model, called in each layer: ``bpda("jump", ...)`` approximates all of them at once.

    >>> JumpNet(nn.Sequential(nn.Flatten(), nn.ReLU()))(torch.ones(1, 1, 1, 2))
    tensor([[6., 6.]])
    """

    def __init__(self, classifier: nn.Module, size: float = 5.0) -> None:
        super().__init__()
        self.jump = Jump(size)
        self.classifier = classifier
        for module in classifier.modules():
            for name, child in module.named_children():
                if isinstance(child, nn.ReLU):
                    setattr(module, name, self.jump)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(x)
        return logits


class RandomNeurons(SAP):
    """A trained classifier that drops neurons at random, averaged over ``passes``. Stochastic gradients.

    With p_j the share of neuron j in the sum of its layer's magnitudes, it is kept with probability
    1 - exp(-n p_j / 3), n the neurons of the layer, and divided by that. The answer is the logarithm of the passes'
    mean probability.

    Args:
        classifier: (B, C, H, W) -> (B, K), trained without this.
        passes: that are averaged.
        factor: in place of 1 / 3.

    >>> RandomNeurons(nn.Sequential(nn.Flatten(), nn.ReLU()))(torch.rand(2, 1, 2, 2)).exp().sum(1).round()
    tensor([1., 1.])
    """

    def __init__(self, classifier: nn.Module, passes: int = 10, factor: float = 1 / 3) -> None:
        super().__init__(classifier, KeepEach(factor))
        self.passes = passes

    def forward(self, x: Tensor) -> Tensor:
        probabilities = torch.stack([self.classifier(x).softmax(1) for _ in range(self.passes)])
        return probabilities.mean(0).clamp_min(1e-30).log()


class HighTemperature(nn.Module):
    """A classifier as training at a high softmax temperature leaves it. Vanishing gradients.

    The minimum of a loss of logits / T has logits that are T times those of the minimum at the temperature 1. They are
    multiplied by ``temperature`` here, so that the softmax of any loss of probabilities saturates.

    Args:
        classifier: (B, C, H, W) -> logits (B, K), trained at the temperature 1.
        temperature: T.

    >>> HighTemperature(nn.Flatten(), 1000.0)(torch.tensor([[[[0.2, 0.4]]]]))
    tensor([[200., 400.]])
    """

    def __init__(self, classifier: nn.Module, temperature: float = 1.15**100) -> None:
        super().__init__()
        self.classifier = classifier
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.temperature * self.classifier(x).float()
        return logits
