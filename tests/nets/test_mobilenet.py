from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import correlate2d
from torch import nn

from tests.needs import need
from unmask.data import default_home, load
from unmask.nets import mobilenet_v2
from unmask.nets.mobilenet import SamePad
from unmask.weights import load_weights


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 3, 4])
def test_same_padding_as_tensorflow_defines_it(side: int, stride: int, kernel: int) -> None:
    """Place o sees o * stride - before ..., where ``before`` is half of the padding that is needed, rounded down."""
    x, layer = torch.rand(1, 1, side, side), SamePad(1, 1, kernel, stride, bias=False)
    places = -(-side // stride)
    before = max((places - 1) * stride + kernel - side, 0) // 2
    wide = np.pad(x[0, 0].numpy(), ((before, 9), (before, 9)))
    expected = correlate2d(wide, layer.weight.detach()[0, 0].numpy(), "valid")[::stride, ::stride][:places, :places]
    assert np.allclose(layer(x)[0, 0].detach().numpy(), expected, atol=1e-6)


def test_shapes_of_the_published_table() -> None:
    net = mobilenet_v2().eval()
    assert sum(p.numel() for p in net.parameters()) == 3_487_816  # 3.5 million
    shapes = []
    for block in net.features:
        block.register_forward_hook(lambda *call: shapes.append(tuple(call[2].shape[1:])))
    with torch.no_grad():
        net(torch.rand(1, 3, 224, 224))
    table = [(32, 112), (16, 112), *[(24, 56)] * 2, *[(32, 28)] * 3, *[(64, 14)] * 4, *[(96, 14)] * 3]
    table += [*[(160, 7)] * 3, (320, 7), (1280, 7)]
    assert shapes == [(channels, side, side) for channels, side in table]


def test_blocks_add_their_input_where_the_shape_stays() -> None:
    net = mobilenet_v2()
    skips = [i for i, block in enumerate(net.features) if getattr(block, "skip", False)]
    assert skips == [3, 5, 6, 8, 9, 10, 12, 13, 15, 16]
    block = net.features[3]
    x = torch.randn(2, 24, 5, 5)
    hidden = F.relu6(block.depthwise(F.relu6(block.expand(x))))  # type: ignore[operator]
    assert torch.allclose(block(x), x + block.project(hidden), atol=1e-6)  # type: ignore[operator]


def test_no_example_knows_another_and_gradients_arrive() -> None:
    torch.manual_seed(0)
    net = mobilenet_v2(classes=7)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    x = torch.rand(2, 3, 40, 33, requires_grad=True)
    logits = net(x)
    assert logits.shape == (2, 7)
    assert torch.allclose(net(x[1:]), logits[1:], atol=1e-4)
    (gradient,) = torch.autograd.grad(logits[1].sum(), x)
    assert gradient[0].abs().max() == 0
    assert (gradient[1] != 0).any()


def test_classifies_photographs() -> None:
    need("imagenet-sample")
    weights = default_home() / "weights" / "mobilenet_v2.safetensors"
    if not weights.is_file():
        pytest.skip(f"no weights at {weights}")
    net = mobilenet_v2().eval()
    load_weights(net, weights)
    x, y = load("imagenet-sample", n=12).batch()
    with torch.no_grad():
        right = (net(x).argmax(1) == y).float().mean()
    assert right > 0.7
