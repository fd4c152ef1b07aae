from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from unmask.gradients.autograd import autograd
from unmask.gradients.eot import EOT, Tally, sign_agreement, signal_to_noise
from unmask.gradients.spsa import SPSA
from unmask.randomness import make_keys, normal, uniform, use_keys
from unmask.types import Estimator, Objective


def scaled(z: Tensor, rows: Tensor | None = None) -> Tensor:
    """(1 + noise) |z|^2 / 2: the mean gradient is z, the standard deviation of a draw's |z|."""
    return (1 + normal((len(z), 1), z)).squeeze(1) * z.square().sum(1) / 2


def keyed(estimator: Estimator, objective: Objective, z: Tensor, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
    with use_keys(make_keys(0, torch.arange(len(z)) if index is None else index, "test")):
        return estimator(objective, z)


def test_the_gradient_is_that_of_the_mean() -> None:
    z = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))
    samples = 4000
    values, gradient = keyed(EOT(samples), scaled, z)
    errors = samples**-0.5
    half = z.square().sum(1) / 2
    assert ((values - half).abs() < 4.5 * errors * half).all()
    assert ((gradient - z).abs() < 4.5 * errors * z.abs()).all()
    assert ((gradient - z).norm(dim=1) / z.norm(dim=1)).square().mean().sqrt() > 0.3 * errors  # and it is an average


def test_chunks_make_no_difference() -> None:
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    values, gradient = keyed(EOT(20), scaled, z)
    for batch in (1, 7, 10, 64):
        v, g = keyed(EOT(20, batch=batch), scaled, z)
        assert torch.equal(v, values)
        assert torch.equal(g, gradient)


def test_an_example_does_not_depend_on_the_batch() -> None:
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    estimator = EOT(64, until=signal_to_noise(3.0))
    values, gradient = keyed(estimator, scaled, z)
    for i in range(6):
        v, g = keyed(estimator, scaled, z[i : i + 1], torch.tensor([i]))
        assert torch.equal(v[0], values[i])
        assert torch.equal(g[0], gradient[i])


def test_passes_are_full_but_no_fuller() -> None:
    sizes: list[int] = []

    def watched(z: Tensor, rows: Tensor | None = None) -> Tensor:
        assert rows is not None
        assert rows.tolist() == list(range(4)) * (len(z) // 4)
        sizes.append(len(z))
        return z.sum(1)

    EOT(10, batch=12)(watched, torch.ones(4, 2))
    assert sizes == [12, 12, 12, 4]


def test_a_clear_gradient_takes_fewer_draws() -> None:
    """Noise of 0, 100 and, 32 times, 1 times the signal: 4, all, and a few of the draws."""
    drawn = torch.zeros(34)
    noise = torch.tensor([0.0, 100.0] + [1.0] * 32)

    def objective(z: Tensor, rows: Tensor | None = None) -> Tensor:
        assert rows is not None
        drawn.index_add_(0, rows, torch.ones(len(rows)))
        return (1 + noise[rows] * normal((len(z), 1), z).squeeze(1)) * z.sum(1)

    values, gradient = keyed(EOT(256, until=signal_to_noise(4.0)), objective, torch.ones(34, 2))
    assert drawn[0] == 4
    assert drawn[1] == 256
    assert 8 <= drawn[2:].mean() <= 32  # 16 are needed; one example may have luck after 4
    assert gradient[0].tolist() == [1.0, 1.0]
    assert values[0] == 2.0
    assert (gradient[2:].mean() - 1).abs() < 0.5


def test_signs_that_agree_are_enough() -> None:
    """Two coordinates, of which one has the same sign in all of four draws and the other in three."""
    z = torch.zeros(1, 2)
    tally = Tally.of(z).add(torch.tensor([0]), torch.tensor([[[1.0, 2.0]], [[3.0, 1.0]], [[1.0, 5.0]], [[2.0, -9.0]]]))
    assert sign_agreement(0.75)(tally).item()  # (4 + 2) / 2 / 4
    assert not sign_agreement(0.76)(tally).item()


def test_losses_are_averaged_not_logits() -> None:
    """A logit of +(z + 10) / 2 in 80 % of the draws, else -(z + 10) / 2, for the true class.

    The few draws that are wrong already rule the mean loss, which rises with z; the loss of the mean
    logit, 0.3 (z + 10), falls.
    """

    def loss(z: Tensor, rows: Tensor | None = None) -> Tensor:
        sign = torch.where(uniform((len(z), 1), z) < 0.8, 1.0, -1.0).squeeze(1)
        return softplus(-sign * (z[:, 0] + 10) / 2)

    def of_the_mean_logit(z: Tensor, rows: Tensor | None = None) -> Tensor:
        return softplus(-0.3 * (z[:, 0] + 10))

    z = torch.zeros(1, 1)
    _, gradient = keyed(EOT(2000), loss, z)
    right = torch.sigmoid(torch.tensor(5.0)).item()
    expected = 0.2 * right / 2 - 0.8 * (1 - right) / 2
    assert gradient.item() == pytest.approx(expected, abs=4.5 * 0.2 / 2000**0.5)
    assert gradient.item() > 0 > autograd(of_the_mean_logit, z)[1].item()


@pytest.mark.parametrize("estimators", [EOT(8, SPSA(2000)), EOT(400, SPSA(40, batch=64)), EOT(64, EOT(8))])
def test_nested_estimators_agree_with_the_closed_form(estimators: EOT) -> None:
    def objective(z: Tensor, rows: Tensor | None = None) -> Tensor:
        return (2 + 0.1 * normal((len(z), 1), z)).squeeze(1) * z[:, 0] - z[:, 1]

    _, gradient = keyed(estimators, objective, torch.zeros(3, 2))
    assert (gradient - torch.tensor([2.0, -1.0])).abs().max() < 0.1


def test_nested_draws_are_all_different() -> None:
    seen: list[Tensor] = []

    def objective(z: Tensor, rows: Tensor | None = None) -> Tensor:
        u = uniform((len(z), 1), z).squeeze(1)
        seen.append(u)
        return u * z.sum(1)

    keyed(EOT(6, EOT(5)), objective, torch.ones(3, 2))
    assert len(torch.cat(seen).unique()) == 3 * 6 * 5


def test_types_of_the_point_are_kept() -> None:
    values, gradient = keyed(EOT(3, autograd), lambda z, rows=None: z.square().sum(1), torch.ones(2, 3).double())
    assert values.dtype == gradient.dtype == torch.float64
    assert gradient.tolist() == [[2.0] * 3] * 2


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"samples": 3, "batch": 0}])
def test_no_draws_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="EOT needs samples >= 1 and batch >= 1"):
        EOT(**wrong)  # type: ignore[arg-type]


def test_large_images_are_averaged_in_passes_that_memory_holds() -> None:
    """Sixteen draws of 32 photographs in one pass once took all the memory of a machine."""
    sizes = []

    def watched(z: Tensor, rows: Tensor | None = None) -> Tensor:
        sizes.append(len(z))
        return z.flatten(1).sum(1)

    EOT(16)(watched, torch.ones(8, 3, 224, 224))
    assert sum(sizes) == 8 * 16
    assert max(sizes) <= 32
