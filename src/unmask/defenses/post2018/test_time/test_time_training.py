"""Test-time training: before an image is classified, the encoder learns which way its rotations are turned."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from unmask.errors import UnmaskError

__all__ = ["TestTimeTraining", "rotations", "with_group_norm"]


def rotations(x: Tensor) -> Tensor:
    """Square images (B, C, H, H) turned by 0, 90, 180 and 270 degrees, one turn after the other: (4 * B, C, H, H).

    >>> rotations(torch.arange(4.0).view(1, 1, 2, 2))[1].tolist()
    [[[1.0, 3.0], [0.0, 2.0]]]
    """
    return torch.cat([x.rot90(turn, (2, 3)) for turn in range(4)])


def with_group_norm(net: nn.Module, groups: int = 8) -> nn.Module:
    """Replace each batch norm of a network, in place, by a group norm: no image then depends on others.

    >>> with_group_norm(nn.Sequential(nn.BatchNorm2d(16)))[0].num_groups
    8
    """
    for name, child in net.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(net, name, nn.GroupNorm(groups, child.num_features))
        else:
            with_group_norm(child, groups)
    return net


class TestTimeTraining(nn.Module):
    """A classifier whose encoder is trained on each image first (TTT: Sun et al., ICML 2020).

    For each image by itself, the weights of ``encoder`` take ``steps`` steps of gradient descent from those that are
    stored, on the cross entropy of ``rotation`` for the four turns of the image. Then ``head`` classifies the image,
    (B, C, H, H) -> (B, K), and the weights are forgotten. They are constants in the backward pass.

    Args:
        encoder: images to features; no part of it may depend on other images of a batch.
        head: features -> logits (B, K).
        rotation: features -> logits (B, 4) of the turns.
        steps: of gradient descent.
        rate: of learning.

    >>> net = TestTimeTraining(nn.Flatten(), nn.Linear(4, 3), nn.Linear(4, 4))
    >>> net(torch.rand(5, 1, 2, 2)).shape
    torch.Size([5, 3])
    """

    __test__ = False  # for pytest it is no test

    def __init__(
        self, encoder: nn.Module, head: nn.Module, rotation: nn.Module, steps: int = 1, rate: float = 0.01
    ) -> None:
        super().__init__()
        if steps < 0:
            raise UnmaskError(f"training takes 0 steps or more, not {steps}")
        self.encoder, self.head, self.rotation = encoder, head, rotation
        self.steps, self.rate = steps, rate

    def adapted(self, image: Tensor) -> dict[str, Tensor]:
        """The encoder's weights by name, trained on one image (1, C, H, H)."""
        weights = {name: weight.detach() for name, weight in self.encoder.named_parameters()}
        turned, turns = rotations(image.detach()), torch.arange(4, device=image.device)
        for _ in range(self.steps if weights else 0):
            weights = {name: weight.requires_grad_() for name, weight in weights.items()}
            with torch.enable_grad():
                features = functional_call(self.encoder, weights, (turned,))
                loss = F.cross_entropy(self.rotation(features).float(), turns)
                gradients = torch.autograd.grad(loss, [*weights.values()])
            pairs = zip(weights.items(), gradients, strict=True)
            weights = {name: (weight - self.rate * gradient).detach() for (name, weight), gradient in pairs}
        return weights

    def static(self, x: Tensor) -> Tensor:
        """Logits (B, K) without the training."""
        logits: Tensor = self.head(self.encoder(x))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        features = [functional_call(self.encoder, self.adapted(image), (image,)) for image in x.split(1)]
        logits: Tensor = self.head(torch.cat(features))
        return logits
