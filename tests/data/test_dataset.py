from __future__ import annotations

import pytest
import torch

from unmask.data import DataError, Dataset
from unmask.data.digits import digits


def small(labels: list[int], scale: int = 255) -> Dataset:
    images = torch.arange(len(labels), dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 3).contiguous()
    return Dataset("small", images, torch.tensor(labels), ("a", "b", "c"), "small", scale)


def test_floats_are_pixels_over_scale() -> None:
    x, y = small([2, 1, 0], scale=4).floats([2, 0])
    assert x.dtype == torch.float32
    assert x[:, 0, 0, 0].tolist() == [0.5, 0.0]
    assert y.tolist() == [0, 2]
    assert torch.equal(small([0, 1]).floats(torch.tensor([1]))[0], torch.full((1, 1, 2, 3), 1 / 255))


def test_batches_put_together_are_the_whole() -> None:
    data = small([0, 1, 2, 2, 1])
    x, y = data.batch()
    parts = [data.batch(start, start + 2) for start in (0, 2, 4)]
    assert torch.equal(torch.cat([part for part, _ in parts]), x)
    assert torch.cat([part for _, part in parts]).tolist() == y.tolist() == [0, 1, 2, 2, 1]


def test_first_keeps_order_and_everything_else() -> None:
    data = small([2, 1, 0, 1], scale=16)
    head = data.first(2)
    assert len(head) == 2
    assert head.labels.tolist() == [2, 1]
    assert torch.equal(head.images, data.images[:2])
    assert (head.name, head.classes, head.note, head.scale) == (data.name, data.classes, data.note, data.scale)


@pytest.mark.parametrize("n", [0, -1, 3])
def test_first_says_how_many_there_are(n: int) -> None:
    with pytest.raises(DataError, match=rf"^small: n must be from 1 to 2, the examples there are, not {n}$"):
        small([0, 1]).first(n)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_without_a_class_is_named(label: int) -> None:
    wanted = f"^small: row 1 has label {label}, but labels run from 0 to 2: correct it$"
    with pytest.raises(DataError, match=wanted):
        small([0, label])


def test_pixels_above_the_scale_are_refused() -> None:
    with pytest.raises(DataError, match=r"^small: a pixel is 2, outside of the scale from 0 to 1$"):
        small([0, 0, 0], scale=1)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            torch.zeros(2, 1, 1, 1).double(),
            torch.zeros(2).long(),
            r"images must be uint8 or float32 .* not torch.float64 \(2, 1, 1, 1\)",
        ),
        (torch.zeros(2, 4, dtype=torch.uint8), torch.zeros(2).long(), r"not torch.uint8 \(2, 4\)"),
        (torch.zeros(0, 1, 1, 1, dtype=torch.uint8), torch.zeros(0).long(), "with N > 0"),
        (
            torch.zeros(2, 1, 1, 1, dtype=torch.uint8),
            torch.zeros(3).long(),
            r"labels must be int64 \(2,\), not .*\(3,\)",
        ),
        (torch.zeros(2, 1, 1, 1, dtype=torch.uint8), torch.zeros(2), "not torch.float32"),
    ],
)
def test_wrong_tensors_are_refused(images: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Dataset("x", images, labels, ("a",), "x")


def test_digits_are_exact_and_the_splits_share_nothing() -> None:
    from sklearn.datasets import load_digits

    train, test = digits("train"), digits("test")
    assert (len(train), len(test)) == (1297, 500)
    pixels, labels = load_digits(return_X_y=True)
    joined = torch.cat([test.images, train.images]).flatten(1).double().numpy()
    everyone = [(*row, label) for row, label in zip(joined.tolist(), [*test.labels, *train.labels], strict=True)]
    assert sorted(everyone) == sorted((*row, label) for row, label in zip(pixels.tolist(), labels, strict=True))
    x, _ = test.batch()
    assert torch.equal(x * 16, test.images.float())
    assert set(test.labels.tolist()) == set(range(10))
    assert test.labels[:8].tolist() == [2, 8, 2, 6, 6, 7, 1, 9]  # the order must never change


def test_floating_point_images_are_kept_and_copied() -> None:
    images = torch.tensor([0.1, 1.0, 0.0, 1 / 3]).reshape(2, 1, 1, 2)
    data = Dataset("floats", images, torch.tensor([0, 1]), ("a", "b"), "floats")
    x, _ = data.batch()
    assert torch.equal(x, images)
    x.zero_()  # as a model may
    assert torch.equal(data.batch()[0], images)


@pytest.mark.parametrize("value", [1.5, -0.5, float("nan")])
def test_floating_point_images_outside_of_the_range_are_refused(value: float) -> None:
    images = torch.tensor([0.5, value]).reshape(2, 1, 1, 1)
    with pytest.raises(DataError, match=rf"^floats: a pixel is {value:g}, outside of the scale from 0 to 1$"):
        Dataset("floats", images, torch.tensor([0, 0]), ("a",), "floats")
