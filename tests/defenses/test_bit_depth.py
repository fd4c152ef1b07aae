from __future__ import annotations

import numpy as np
import pytest
import torch

from unmask.defenses.transforms.bit_depth import ReduceBitDepth

LEVELS = torch.arange(256).view(1, 1, 16, 16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bits", range(1, 9))
def test_every_level_is_shifted_as_a_byte_is(bits: int, dtype: torch.dtype) -> None:
    byte = LEVELS.numpy().astype(np.uint8)
    shifted = torch.from_numpy((byte >> (8 - bits)) << (8 - bits))
    got = ReduceBitDepth(bits)(LEVELS.to(dtype) / 255)
    assert got.dtype == dtype
    assert torch.equal((255 * got).round().byte(), shifted)
    assert torch.allclose(got, shifted.to(dtype) / 255, atol=1e-7)


def test_fractions_are_truncated_not_rounded() -> None:
    x = torch.tensor([31.9, 32.0, 63.4, 63.99, 64.01]).view(1, 1, 1, 5) / 255
    assert (255 * ReduceBitDepth(3)(x)).round().flatten().tolist() == [0, 32, 32, 32, 64]


def test_the_gradient_is_zero() -> None:
    x = torch.rand(2, 3, 4, 4, requires_grad=True)
    ReduceBitDepth(3)(x).sum().backward()
    assert x.grad is not None
    assert not x.grad.any()


def test_applying_it_twice_changes_nothing() -> None:
    x = torch.rand(2, 3, 8, 8)
    once = ReduceBitDepth(4)(x)
    assert torch.equal(ReduceBitDepth(4)(once), once)


@pytest.mark.parametrize("bits", [0, 9, -1])
def test_other_depths_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 8 bits, not {bits}"):
        ReduceBitDepth(bits)
