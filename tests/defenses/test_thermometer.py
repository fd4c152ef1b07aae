from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from unmask.defenses.thermometer import Encode, Thermometer, ramp
from unmask.gradients.bpda import bpda

GREYS = torch.arange(256).div(255).view(256, 1, 1, 1)


@pytest.mark.parametrize("levels", [2, 7, 16, 255])
def test_codes_of_all_grey_values(levels: int) -> None:
    """Bit l is set where the value lies in bin l or above; white belongs to the last bin."""
    codes = Encode(levels)(GREYS).flatten(1)
    for grey, code in enumerate(codes.tolist()):
        bin_ = min(int(Fraction(grey, 255) * levels * Fraction(99999, 100000)), levels - 1)
        assert code == [1.0] * (bin_ + 1) + [0.0] * (levels - bin_ - 1), grey
    assert codes[0].sum() == 1
    assert codes[255].sum() == levels


def test_values_out_of_the_box_count_as_its_edges() -> None:
    assert torch.equal(Encode(16)(torch.tensor([-3.0, 7.0]).view(2, 1, 1, 1)), Encode(16)(GREYS[[0, 255]]))


def test_the_code_of_a_channel_lies_together() -> None:
    x = torch.rand(2, 3, 4, 5)
    codes = Encode(8)(x)
    assert codes.shape == (2, 24, 4, 5)
    for channel in range(3):
        assert torch.equal(codes[:, 8 * channel : 8 * channel + 8], Encode(8)(x[:, channel : channel + 1]))
    assert torch.equal(codes[1, 8:16, 2, 3], Encode(8)(x[1:, 1:2, 2:3, 3:4]).flatten())


@pytest.mark.parametrize("width", [1.0, 3.0])
def test_ramp_rises_over_its_width_around_each_threshold(width: float) -> None:
    x = torch.tensor([0.03, 0.2, 0.5, 0.77]).double().view(-1, 1, 1, 1)
    bits = ramp(8, width)(x).flatten(1)
    for pixel, code in zip(x.flatten().tolist(), bits.tolist(), strict=True):
        expected = [min(max((8 * pixel - level) / width + 0.5, 0), 1) for level in range(8)]
        assert code == pytest.approx(expected)
    slope = torch.func.jacfwd(ramp(8, width))(x).flatten(1).view(4, 8, 4).diagonal(dim1=0, dim2=2).T
    h = 1e-5
    differences = (ramp(8, width)(x + h) - ramp(8, width)(x - h)).flatten(1) / (2 * h)
    assert torch.allclose(slope, differences, atol=1e-6)
    assert slope.sum(1).min() >= 8 * 0.99 / width  # some bit always has a slope
    if width == 1.0:
        assert ((slope > 0).sum(1) == 1).all()


def test_ramp_is_the_code_away_from_thresholds() -> None:
    x = ((torch.arange(1, 8) + 0.5) / 8).view(-1, 1, 1, 1)  # centres of the bins above the first
    assert torch.equal(ramp(8)(x), Encode(8)(x))


def test_the_plain_gradient_is_zero_and_bpda_is_not() -> None:
    class Weigh(nn.Module):
        def forward(self, codes: Tensor) -> Tensor:
            return (codes * torch.arange(1.0, 9).view(1, 8, 1, 1)).sum((1, 2, 3)).unsqueeze(1)

    defense = Thermometer(Weigh(), levels=8)
    x = torch.full((1, 1, 1, 1), 0.5, requires_grad=True)
    assert defense(x).item() == 1 + 2 + 3 + 4  # 0.5 * 0.99999 lies in bin 3
    answer = defense(x)
    assert not answer.requires_grad or torch.autograd.grad(answer.sum(), x)[0].abs().max() == 0
    (gradient,) = torch.autograd.grad(bpda("encode", ramp(8))(defense)(x).sum(), x)
    assert gradient.item() == 5 * 8  # bit 4, of weight 5, is half way up
