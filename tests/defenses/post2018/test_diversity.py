from __future__ import annotations

import pytest
import torch

from unmask.defenses.post2018.networks.diversity import diversity_loss, log_diversity

LABELS = torch.tensor([1, 0])


def test_equal_members_have_no_diversity_and_orthogonal_ones_all_of_it() -> None:
    same = torch.tensor([0.2, 0.5, 0.3]).expand(2, 2, 3)
    apart = torch.tensor([[[0.2, 0.8, 0.0], [0.0, 0.9, 0.1]], [[0.9, 0.1, 0.0], [0.6, 0.0, 0.4]]])
    assert (log_diversity(same, LABELS).exp() < 1e-5).all()
    assert log_diversity(apart, LABELS).exp().tolist() == pytest.approx([1.0, 1.0], abs=1e-4)


def test_of_two_members_the_diversity_is_the_squared_sine_of_their_angle() -> None:
    """Without the right class 1: (0.3, 0.4) and (0.4, 0.3), whose cosine is 0.24 / 0.25."""
    p = torch.tensor([[[0.3, 0.3, 0.4], [0.4, 0.3, 0.3]]])
    assert log_diversity(p, torch.tensor([1])).exp().item() == pytest.approx(1 - 0.96**2, abs=1e-4)


def test_the_order_of_members_and_the_right_class_do_not_matter() -> None:
    p = torch.rand(2, 3, 6, generator=torch.Generator().manual_seed(0)).softmax(2)
    changed = p.clone()
    changed[torch.arange(2), :, LABELS] *= 0.3
    expected = log_diversity(p, LABELS)
    assert torch.allclose(log_diversity(p.flip(1), LABELS), expected, atol=1e-4)
    assert torch.allclose(log_diversity(changed, LABELS), expected, atol=1e-4)


def test_the_loss_is_the_fit_less_entropy_and_diversity() -> None:
    logits = torch.rand(2, 3, 6, generator=torch.Generator().manual_seed(0))
    p = logits.softmax(2)
    fit = -p[torch.arange(2), :, LABELS].log().sum(1)
    mean = p.mean(1)
    expected = fit + 2 * (mean * mean.log()).sum(1) - 0.5 * log_diversity(p, LABELS)
    assert torch.allclose(diversity_loss(logits, LABELS), expected, atol=1e-5)
    assert torch.allclose(diversity_loss(logits, LABELS, 0, 0), fit, atol=1e-5)


def test_nearly_equal_members_have_a_finite_loss_also_in_low_precision() -> None:
    logits = 1e-3 * torch.randn(64, 3, 10, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert diversity_loss(logits, torch.arange(64) % 10).isfinite().all()
