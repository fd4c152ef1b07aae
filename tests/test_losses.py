from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unmask.losses import (
    LOSSES,
    cross_entropy,
    dlr,
    margin,
    success_threshold,
    targeted_cross_entropy,
    targeted_dlr,
    targeted_margin,
)
from unmask.types import Loss, Output

LOGITS = torch.tensor([[4.0, 1.0, 3.0, 0.0], [0.0, 2.0, 5.0, 1.0]])
LABELS = torch.tensor([0, 1])  # the first is right by 1, the second wrong by 3
AIMED = torch.tensor([[0, 1], [1, 0]])  # true class and target

some_logits = arrays(np.float32, (3, 5), elements=st.integers(-3, 3).map(float) | st.floats(-50, 50, width=32))
some_labels = arrays(np.int64, 3, elements=st.integers(0, 4))
some_rejects = arrays(np.float32, 3, elements=st.sampled_from([-1.0, 0.0, 1e-3]) | st.floats(-5, 5, width=32))


def test_known_numbers() -> None:
    output = Output(LOGITS)
    assert margin(output, LABELS).tolist() == [-1, 3]
    assert dlr(output, LABELS).tolist() == pytest.approx([-1 / 3, 3 / 4])
    weights = [[math.exp(z) for z in row] for row in LOGITS.tolist()]
    entropies = [-math.log(weights[0][0] / sum(weights[0])), -math.log(weights[1][1] / sum(weights[1]))]
    assert cross_entropy(output, LABELS).tolist() == pytest.approx(entropies)


def test_known_numbers_targeted() -> None:
    output = Output(LOGITS)
    assert targeted_margin(output, AIMED).tolist() == [-3, -5]
    assert targeted_dlr(output, AIMED).tolist() == pytest.approx([-3 / 3.5, -2 / 4.5])
    weights = [[math.exp(z) for z in row] for row in LOGITS.tolist()]
    logs = [math.log(weights[0][1] / sum(weights[0])), math.log(weights[1][0] / sum(weights[1]))]
    assert targeted_cross_entropy(output, AIMED).tolist() == pytest.approx(logs)


@pytest.mark.parametrize("loss", [targeted_cross_entropy, targeted_margin, targeted_dlr])
def test_a_targeted_loss_wants_two_columns(loss: Loss) -> None:
    with pytest.raises(ValueError, match=r"^a targeted loss needs labels of shape \(B, 2\), .* not \(2,\)$"):
        loss(Output(LOGITS), LABELS)


def test_dlr_ignores_scale_and_shift() -> None:
    logits = torch.randn(20, 6, dtype=torch.float64)
    labels = torch.arange(20) % 6
    aimed = torch.stack((labels, (labels + 1) % 6), 1)
    for loss, wanted in ((dlr, labels), (targeted_dlr, aimed)):
        plain = loss(Output(logits), wanted)
        torch.testing.assert_close(loss(Output(1e4 * logits + 7), wanted), plain)
        torch.testing.assert_close(loss(Output(1e-4 * logits - 1), wanted), plain)


def test_too_few_classes() -> None:
    with pytest.raises(ValueError, match=r"^dlr needs at least 3 classes, got 2"):
        dlr(Output(torch.zeros(1, 2)), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"^targeted_dlr needs at least 4 classes, got 3"):
        targeted_dlr(Output(torch.zeros(1, 3)), torch.tensor([[0, 1]]))


def test_huge_logits_are_stable() -> None:
    logits = (1000 * LOGITS).requires_grad_()
    value = cross_entropy(Output(logits), LABELS)
    assert value.tolist() == [0, 3000]
    (grad,) = torch.autograd.grad(value.sum(), logits)
    assert grad.tolist() == [[0, 0, 0, 0], [0, -1, 1, 0]]


def test_narrow_logits_are_computed_in_float32_and_wide_ones_kept() -> None:
    logits = torch.tensor([[256.0, 255.0, 3.0]])  # bfloat16 has steps of 2 at 256: the sum of exps would be lost
    label = torch.tensor([0])
    for loss in LOSSES.values():
        narrow = loss(Output(logits.bfloat16()), label)
        assert narrow.dtype == torch.float32
        assert torch.equal(narrow, loss(Output(logits.bfloat16().float()), label))
        assert loss(Output(logits.double()), label).dtype == torch.float64


@pytest.mark.parametrize("loss", [margin, dlr])
@settings(max_examples=150)
@given(logits=some_logits, labels=some_labels, rejects=st.none() | some_rejects)
def test_positive_exactly_for_success(
    loss: Loss, logits: np.ndarray, labels: np.ndarray, rejects: np.ndarray | None
) -> None:
    z, y = torch.tensor(logits), torch.tensor(labels)
    reject = None if rejects is None else torch.tensor(rejects)
    value = loss(Output(z, reject), y)
    own = z.gather(1, y[:, None])
    wrong = (z > own).any(1)  # strictly: a tie is 0
    accepted = torch.ones(3, dtype=torch.bool) if reject is None else reject <= 0
    at_threshold = torch.zeros(3, dtype=torch.bool) if reject is None else reject == 0
    assert torch.equal(value > 0, wrong & accepted & ~at_threshold)
    assert (value[wrong & at_threshold] == 0).all()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@settings(max_examples=150)
@given(logits=some_logits, labels=some_labels, rejects=st.none() | some_rejects)
def test_necessary_is_necessary(loss: Loss, logits: np.ndarray, labels: np.ndarray, rejects: np.ndarray | None) -> None:
    z, y = torch.tensor(logits), torch.tensor(labels)
    reject = None if rejects is None else torch.tensor(rejects)
    success = z.argmax(1) != y
    if reject is not None:
        success &= reject <= 0
    value = loss(Output(z, reject), y)
    assert (value[success] >= success_threshold(loss)).all()


def test_necessary_is_tight() -> None:
    tie = Output(torch.tensor([[0.0, 0.0, -90.0]]))
    for loss in LOSSES.values():
        assert loss(tie, torch.tensor([1])).item() == pytest.approx(success_threshold(loss), abs=2e-6)
    assert success_threshold(lambda output, labels: output.logits[:, 0]) == -math.inf
    assert success_threshold(targeted_margin) == -math.inf


@pytest.mark.parametrize("loss", [*LOSSES.values(), targeted_dlr])
@settings(max_examples=100)
@given(logits=some_logits, labels=some_labels)
def test_values_and_gradients_are_finite_also_for_equal_logits(
    loss: Loss, logits: np.ndarray, labels: np.ndarray
) -> None:
    z = torch.tensor(logits).requires_grad_()
    reject = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    y = torch.tensor(labels)
    value = loss(Output(z, reject), torch.stack((y, (y + 1) % 5), 1) if loss is targeted_dlr else y)
    assert value.isfinite().all()
    for grad in torch.autograd.grad(value.sum(), (z, reject)):
        assert grad.isfinite().all()


def test_equal_logits_have_no_margin() -> None:
    assert dlr(Output(torch.ones(1, 4)), torch.tensor([2])).tolist() == [0]
    assert targeted_dlr(Output(torch.ones(1, 4)), torch.tensor([[2, 1]])).tolist() == [0]


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_which_condition_pulls(loss: Loss) -> None:
    """Rows: refused and right; refused and wrong; accepted and right; accepted, and wrong by less; and by more."""
    z = torch.tensor([[4.0, 1.0, 0.0, -1.0], [5.0, 9.0, 1.0, 0.0]])[[0, 1, 0, 1, 1]].requires_grad_()
    reject = torch.tensor([2.0, 2.0, -3.0, -9.0, -0.25], requires_grad=True)
    labels = torch.zeros(5, dtype=torch.long)
    value = loss(Output(z, reject), labels)
    classifier, detector = torch.autograd.grad(value.sum(), (z, reject))
    assert detector.tolist() == [-1, -1, 0, 0, -1]
    assert (classifier != 0).any(1).tolist() == [True, False, True, True, False]
    assert value[3] > value[4] > value[:3].max()
    plain = loss(Output(z), labels)
    assert torch.equal(value[2:4], plain[2:4])
    assert value[0].item() == pytest.approx(plain[0].item() - 2)
    certain = math.log(4) if loss is cross_entropy else 0
    assert value[1].item() == pytest.approx(certain - 2)
    assert value[4].item() == pytest.approx(certain + 0.25)


def test_targeted_losses_know_the_detector() -> None:
    z = torch.tensor([[0.0, 9.0, 1.0, 2.0]])
    aimed = torch.tensor([[0, 1]])
    for loss, certain in ((targeted_cross_entropy, -math.log(2)), (targeted_margin, 0.0), (targeted_dlr, 0.0)):
        assert loss(Output(z, torch.tensor([3.0])), aimed).item() == pytest.approx(certain - 3)
        assert loss(Output(z, torch.tensor([-3.0])), aimed).item() == pytest.approx(
            min(certain + 3, loss(Output(z), aimed).item())
        )


def test_a_detector_gives_one_margin_an_example() -> None:
    with pytest.raises(ValueError, match=r"^reject must have shape \(2,\), .* not \(2, 1\)$"):
        margin(Output(LOGITS, torch.zeros(2, 1)), LABELS)
