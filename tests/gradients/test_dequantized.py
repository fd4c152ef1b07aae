"""Float layers in the place of quantised ones compute the same function but for rounding, and have its gradient."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn

from unmask.gradients.dequantized import dequantized, is_quantized

pytestmark = pytest.mark.filterwarnings("ignore")
X = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.Flatten()]
    return nn.Sequential(
        torch.ao.quantization.QuantStub(), *layers, nn.Linear(32, 5), torch.ao.quantization.DeQuantStub()
    )


def static(fuse: bool) -> tuple[nn.Module, nn.Module]:
    net = network().eval()
    if fuse:
        net = torch.ao.quantization.fuse_modules(net, [["1", "2"]])
    float_net = copy.deepcopy(net)
    net.qconfig = torch.ao.quantization.get_default_qconfig("x86")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = torch.ao.quantization.prepare(net)
        prepared(X)
        return torch.ao.quantization.convert(prepared), float_net


def dynamic() -> tuple[nn.Module, nn.Module]:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 5)).eval()
    return torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8), net


def cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one.flatten(1), other.flatten(1)).mean())


@pytest.mark.parametrize("kind", ["static", "fused", "dynamic"])
def test_values_and_gradients_are_those_of_the_float_network_but_for_rounding(kind: str) -> None:
    model, net = dynamic() if kind == "dynamic" else static(kind == "fused")
    assert is_quantized(model)
    assert not is_quantized(net)
    view = dequantized(model)
    with torch.no_grad():
        assert (model(X) - net(X)).abs().max() > 0  # it is quantised
        assert (view(X) - net(X)).abs().mean() < 0.05 * net(X).std()
    gradients = []
    for which in (view, net):
        z = X.clone().requires_grad_()
        which(z)[:, 1].sum().backward()
        assert z.grad is not None
        gradients.append(z.grad)
    assert cosine(*gradients) > 0.95
    assert is_quantized(model)  # the given one stays as it is
