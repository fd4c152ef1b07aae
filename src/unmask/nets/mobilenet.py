"""MobileNetV2, an ImageNet classifier that is quick on a CPU."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MobileNetV2", "SamePad", "mobilenet_v2"]

_STAGES = (  # expansion, channels, repeats, stride of the first
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class SamePad(nn.Conv2d):
    """A convolution padded by TensorFlow's rule SAME: the output has ``ceil(side / stride)`` places.

    What does not divide evenly goes right and below: with stride 2, a 3x3 kernel pads an even side by
    nothing above and one row below.

    >>> import torch
    >>> SamePad(1, 1, 3, stride=2)(torch.zeros(1, 1, 8, 7)).shape
    torch.Size([1, 1, 4, 4])
    """

    def forward(self, input: Tensor) -> Tensor:
        bottom, right = (
            max(0, (-(-side // stride) - 1) * stride + kernel - side)
            for side, stride, kernel in zip(input.shape[2:], self.stride, self.kernel_size, strict=True)
        )
        padded = F.pad(input, (right // 2, right - right // 2, bottom // 2, bottom - bottom // 2))
        return F.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)


class _Inverted(nn.Sequential):
    """Expand, filter each channel, project; added to the input where the shape stays."""

    def __init__(self, before: int, after: int, expansion: int, stride: int) -> None:
        wide = before * expansion
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if expansion > 1:
            layers["expand"] = nn.Conv2d(before, wide, 1)
            layers["relu1"] = nn.ReLU6()
        layers["depthwise"] = SamePad(wide, wide, 3, stride, groups=wide)
        layers["relu2"] = nn.ReLU6()
        layers["project"] = nn.Conv2d(wide, after, 1)
        super().__init__(layers)
        self.skip = stride == 1 and before == after

    def forward(self, input: Tensor) -> Any:
        output = super().forward(input)  # type: ignore[no-untyped-call]
        return input + output if self.skip else output


class MobileNetV2(nn.Module):
    """Inverted residual blocks, batch norm folded into the convolutions: (B, 3, H, W) in [0, 1] -> (B, classes).

    Sandler et al., *MobileNetV2: Inverted Residuals and Linear Bottlenecks* (CVPR 2018), at width 1.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [SamePad(3, 32, 3, 2)]
        before = 32
        for expansion, channels, repeats, stride in _STAGES:
            for i in range(repeats):
                layers.append(_Inverted(before, channels, expansion, stride if i == 0 else 1))
                before = channels
        layers.append(nn.Conv2d(before, 1280, 1))
        self.features = nn.ModuleList(layers)
        self.relu = nn.ReLU6()
        self.classifier = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        first, *blocks, last = self.features
        h = self.relu(first(2 * x - 1))
        for block in blocks:
            h = block(h)
        logits: Tensor = self.classifier(self.relu(last(h)).mean((2, 3)))
        return logits


def mobilenet_v2(classes: int = 1000) -> MobileNetV2:
    """MobileNetV2 for RGB images in [0, 1], trained at 224x224 where weights are loaded: 3.5 million parameters.

    >>> import torch
    >>> mobilenet_v2()(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 1000])
    """
    return MobileNetV2(classes)
