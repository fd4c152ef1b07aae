"""What users pass in is converted where its meaning is certain, and refused in one line where it is not."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unmask.adapters import attackable
from unmask.attacking import run_attack
from unmask.attacks.aliases import pgd
from unmask.inputs import as_batch, as_images, as_labels, check_eps
from unmask.judging import Judge
from unmask.randomness import make_keys
from unmask.threats import Linf

X = torch.linspace(0, 1, 48).reshape(3, 1, 4, 4)
Y = torch.tensor([0, 2, 1])
NET = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()


def test_what_is_in_the_right_form_passes_as_it_is() -> None:
    x, y = as_batch(X, Y, classes=3)
    assert x is X
    assert y is Y


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (X.numpy(), X),
        (X.double(), X),
        ((255 * X).round().to(torch.uint8), (255 * X).round() / 255),
        ((255 * X).round().to(torch.uint8).numpy(), (255 * X).round() / 255),
        (X + 1e-7, (X + 1e-7).clamp(0, 1)),
    ],
    ids=["numpy", "float64", "uint8", "uint8 numpy", "rounding"],
)
def test_images_are_converted(given: Any, wanted: Tensor) -> None:
    x = as_images(given)
    assert x.dtype == torch.float32
    assert torch.equal(x, wanted)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (255 * X, "lie in [0, 255]: divide them by 255"),
        (16 * X, "lie in [0, 16]: divide them by the value of white"),
        (X + 0.01, "lie in [0.01, 1.01]: clip them to [0, 1]"),
        ((16 * X).byte(), "are uint8 and go up to 16, where 255 is white: give x.float() / 16, if 16 is white"),
        ((X > 0.5).byte(), "go up to 1, where 255 is white"),
        ((X - 0.5) / 0.2, "lie in [-2.5, 2.5]: give images in [0, 1], and normalise inside the model"),
        (X.masked_fill(X > 0.5, torch.nan), "hold NaN or infinite values"),
        (X[0], "have shape (1, 4, 4): give (B, C, H, W) with B > 0; add the batch dimension with x[None]"),
        (X[:0], "have shape (0, 1, 4, 4)"),
        (torch.rand(2, 16, 16, 3), "looks like (B, H, W, C): give (B, C, H, W), as x.permute(0, 3, 1, 2) does"),
        ((255 * X).long(), "are int64: give float32 in [0, 1], or uint8 from 0 to 255"),
        ("cat.png", "are a str"),
    ],
    ids=[
        "0 to 255",
        "0 to 16",
        "not clipped",
        "bytes to 16",
        "bytes to 1",
        "normalised",
        "NaN",
        "no batch",
        "empty",
        "channels last",
        "int64",
        "a path",
    ],
)
def test_images_are_refused(given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        as_images(given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [np.int32, np.uint8, np.int64])
def test_labels_of_other_integer_types_are_converted(kind: Any) -> None:
    assert torch.equal(as_labels(Y.numpy().astype(kind)), Y)
    assert torch.equal(as_labels([0, 2, 1]), Y)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (torch.tensor([0, -1, 1]), "labels go from -1 to 1, but the model has 3 classes: leave out images without"),
        (torch.tensor([0, 3, 1]), "labels go from 0 to 3, but the model has 3 classes: check that the data set"),
        (nn.functional.one_hot(Y, 3), "as one-hot rows have: give class numbers (B,), as y.argmax(1) does"),
        (Y[:, None], "have shape (3, 1): give class numbers (B,), as y.flatten() does"),
        (Y.float(), "are float32: give class numbers as int64"),
        (Y > 0, "are bool"),
    ],
    ids=["below 0", "too large", "one-hot", "a column", "floats", "bool"],
)
def test_labels_are_refused(given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        as_labels(given, 3)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="3 images and 2 labels"):
        as_batch(X, Y[:2])


WRONG = [(255 * X, Y, "divide them by 255"), (X, Y - 1, "labels go from -1"), (X, Y + 1, "the model has 3 classes")]


@pytest.mark.parametrize(("x", "y", "words"), WRONG, ids=["0 to 255", "below 0", "too large"])
def test_trials_and_the_judge_refuse_what_the_contract_refuses(x: Tensor, y: Tensor, words: str) -> None:
    judge = Judge(NET, Linf(0.1))
    for ask in (
        lambda: run_attack(pgd(2), NET, x, y, judge=judge),
        lambda: judge.verdict(x, x, y, make_keys(0, range(3), "judge")),
    ):
        with pytest.raises(ValueError, match=words):
            ask()


def test_numpy_and_bytes_give_the_figures_of_their_images() -> None:
    x, y = (255 * X).round().to(torch.uint8), NET(X).argmax(1)
    one = run_attack(pgd(5), NET, x.numpy(), y.numpy().astype(np.int32), Linf(0.1))  # type: ignore[arg-type]
    other = run_attack(pgd(5), NET, x / 255, y, Linf(0.1))
    assert torch.equal(one.x_adv, other.x_adv)
    assert one.accuracy == other.accuracy


def test_a_module_for_other_libraries_refuses_images_out_of_range() -> None:
    module = attackable(NET)
    x = X.clone().requires_grad_()
    module(x).sum().backward()
    assert x.grad is not None
    with pytest.raises(ValueError, match="divide them by 255"):
        module(255 * X)


@pytest.mark.parametrize(
    ("norm", "eps", "unit", "words"),
    [
        ("linf", 8, "raw", "did you mean 8/255?"),
        ("Linf", 4, "raw", "did you mean 4/255?"),
        ("l2", 0, "raw", "give a size above 0"),
        ("linf", 1000, "raw", "at most 1"),
    ],
)
def test_a_size_that_nobody_means(norm: str, eps: float, unit: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        check_eps(norm, eps, unit)


def test_sizes_that_are_meant() -> None:
    for norm, eps, unit in (("linf", 1.0, "raw"), ("l2", 3.0, "raw"), ("l1", 12.0, "raw"), ("linf", 0.3, "raw")):
        check_eps(norm, eps, unit)
