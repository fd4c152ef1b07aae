from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chisquare
from torch import Tensor, nn

from unmask.defenses import randomization
from unmask.defenses.randomization import Randomization, RandomResizePad
from unmask.randomness import make_keys, use_keys

X = torch.rand(2, 3, 7, 7, generator=torch.Generator().manual_seed(0))


def force(monkeypatch: pytest.MonkeyPatch, *draws: tuple[int, int, int, int, int]) -> None:
    """Uniform numbers that give the side, top and left of each example, for these bounds."""
    rows = [
        [(side - low + 0.5) / (high - low), *((at + 0.5) / (high - side + 1) for at in (top, left))]
        for low, high, side, top, left in draws
    ]
    monkeypatch.setattr(randomization, "uniform", lambda size, like: torch.tensor(rows).expand(*size))


def padded(x: Tensor, high: int, side: int, top: int, left: int, fill: float = 0.0) -> Tensor:
    resized = F.interpolate(x, (side, side), mode="bilinear", align_corners=False)
    return F.pad(resized, (left, high - side - left, top, high - side - top), value=fill)


@pytest.mark.parametrize("fill", [0.0, 0.5])
@pytest.mark.parametrize(("low", "high"), [(7, 11), (3, 6)])
def test_every_side_and_place(low: int, high: int, fill: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for side in range(low, high):
        for top in range(high - side + 1):
            for left in range(high - side + 1):
                force(monkeypatch, (low, high, side, top, left))
                got = RandomResizePad(low, high, fill)(X)
                assert torch.allclose(got, padded(X, high, side, top, left, fill), atol=2e-6), (side, top, left)


def test_each_image_has_a_draw_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, (7, 11, 7, 3, 4), (7, 11, 10, 0, 1))
    got = RandomResizePad(7, 11)(X)
    assert torch.allclose(got[:1], padded(X[:1], 11, 7, 3, 4), atol=2e-6)
    assert torch.allclose(got[1:], padded(X[1:], 11, 10, 0, 1), atol=2e-6)
    assert torch.equal(got[0, :, 3:10, 4:11], X[0])  # of its own size an image stays as it is


def test_sides_and_places_are_uniform() -> None:
    n = 12_000
    with use_keys(make_keys(0, range(n), "test")):
        inside = RandomResizePad(5, 8)(torch.ones(n, 1, 6, 6))[:, 0] > 0.5
    rows, columns = inside.any(2), inside.any(1)
    side, top, left = rows.sum(1), rows.int().argmax(1), columns.int().argmax(1)
    assert torch.equal(side, columns.sum(1))
    assert set(side.tolist()) == {5, 6, 7}
    assert chisquare(side.bincount()[5:].numpy()).pvalue > 0.01
    for s in (5, 6, 7):
        chosen = side == s
        fits = 8 - s + 1
        both = (top * fits + left)[chosen].bincount(minlength=fits**2)
        assert len(both) == fits**2  # top and left reach from 0 to 8 - s, and no further
        assert chisquare(both.numpy()).pvalue > 0.01


def test_largest_draw_stays_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 1 - 2.0**-24
    monkeypatch.setattr(randomization, "uniform", lambda size, like: torch.full(tuple(size), most))
    for low, high in ((7, 11), (299, 331)):
        x = torch.ones(1, 1, 7, 7)
        inside = RandomResizePad(low, high)(x)[0, 0] > 0.5
        assert inside.sum() == (high - 1) ** 2
        assert inside[1:, 1:].all()


def test_gradient_agrees_with_finite_differences() -> None:
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)

    def transform(x: Tensor) -> Tensor:
        with use_keys(make_keys(0, [0, 1], "test")):
            return RandomResizePad(3, 7, 0.25)(x)  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(transform, x)
    assert transform(x).dtype == torch.float64


def test_an_example_does_not_depend_on_the_batch() -> None:
    x = torch.rand(9, 1, 6, 6)

    def transform(rows: Tensor) -> Tensor:
        with use_keys(make_keys(0, rows, "test")):
            return RandomResizePad(6, 9)(x[rows])  # type: ignore[no-any-return]

    whole = transform(torch.arange(9))
    assert torch.allclose(transform(torch.tensor([8, 3])), whole[[8, 3]], atol=1e-6)


def test_the_classifier_sees_the_transformed_image() -> None:
    defense = Randomization(nn.Flatten(), 7, 11, 0.5)
    keys = make_keys(0, [0, 1], "test")
    with use_keys(keys):
        logits = defense(X)
    with use_keys(keys):
        assert torch.equal(logits, RandomResizePad(7, 11, 0.5)(X).flatten(1))
    assert not torch.equal(defense(X), defense(X))


@pytest.mark.parametrize(("low", "high"), [(0, 4), (5, 5), (6, 5)])
def test_empty_ranges_are_refused(low: int, high: int) -> None:
    with pytest.raises(ValueError, match=f"0 < low < high, not low={low} and high={high}"):
        RandomResizePad(low, high)
