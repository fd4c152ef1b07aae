from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.cases.post2018.inputs.mixup_inference import mixed_images
from unmask.defenses.post2018.inputs.mixup_inference import MixupInference, MixWithOthers, balanced_pool
from unmask.randomness import make_keys, use_keys

POOL = torch.arange(12.0).view(12, 1, 1, 1).expand(12, 1, 2, 2)  # 4 classes of 3 images


def chosen(answer: int, n: int, samples: int = 8) -> Tensor:
    """The pool's numbers of the images that n images of a class are mixed with: (n, samples)."""
    with use_keys(make_keys(0, range(n), "test")):
        mixtures = MixWithOthers(POOL, 4, samples, 0.25)(torch.full((n, 1, 2, 2), 100.0), torch.full((n,), answer))
    numbers: Tensor = (mixtures[:, 0, 0, 0].view(n, samples) - 25) / 0.75
    return numbers


@pytest.mark.parametrize("answer", range(4))
def test_other_classes_and_their_images_are_equally_frequent_and_the_own_never_comes(answer: int) -> None:
    numbers = chosen(answer, 500).round().long().flatten()
    counts = numbers.bincount(minlength=12)
    own = range(3 * answer, 3 * answer + 3)
    assert not counts[own.start : own.stop].any()
    others = counts[[i for i in range(12) if i not in own]]
    assert (others - 4000 / 9).abs().max() < 100  # five standard deviations


def test_draws_do_not_depend_on_the_batch() -> None:
    assert torch.equal(chosen(1, 5)[:2], chosen(1, 2))
    assert not torch.equal(chosen(1, 5)[0], chosen(1, 5)[1])


def test_a_pool_is_in_the_order_of_the_classes() -> None:
    labels = torch.tensor([1, 0, 1, 1, 0, 0])
    images = torch.arange(6.0).view(6, 1, 1, 1)
    assert balanced_pool(images, labels, 2, 2).flatten().tolist() == [1.0, 4.0, 0.0, 2.0]
    with pytest.raises(ValueError, match=r"needs 4 images of each class, there are \[3, 3\]"):
        balanced_pool(images, labels, 4, 2)


class Last(nn.Module):
    """Two logits of an image: 0 and its first pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack((torch.zeros(len(x)), x[:, 0, 0, 0]), 1)


def test_the_output_is_the_logarithm_of_the_mean_probability() -> None:
    """The image of class 1 is mixed with one of class 0, which is unique."""
    pool = torch.tensor([-1.0, 5.0]).view(2, 1, 1, 1)
    model = MixupInference(Last(), pool, classes=2, samples=3, share=0.5)
    assert model(torch.full((1, 1, 1, 1), 3.0)).exp()[0, 1].item() == pytest.approx(torch.tensor(1.0).sigmoid().item())


def test_the_choice_of_classes_has_no_gradient_and_the_mixtures_have_one() -> None:
    model = MixupInference(Last(), POOL[:, :, :1, :1], classes=4, samples=3)
    x = torch.full((2, 1, 1, 1), 3.0, requires_grad=True)
    model(x)[:, 0].sum().backward()
    assert x.grad is not None
    assert (x.grad < 0).all()


def test_training_mixes_images_and_labels_by_the_same_share() -> None:
    model = MixupInference(Last(), POOL[:, :, :1, :1], classes=4)
    x, y = torch.tensor([2.0, -2.0]).view(2, 1, 1, 1), torch.tensor([1, 0])
    with use_keys(make_keys(0, range(2), "train")):
        loss, logits = mixed_images(model, x, y, 0.0)
    of_the_first = (logits[:, 1] + 2) / 4  # how much each mixture has of the first image, whose class is 1
    assert ((of_the_first > 0) & (of_the_first < 1)).all()
    assert of_the_first[0] != 1 - of_the_first[1]
    one, zero = -F.logsigmoid(logits[:, 1]), -F.logsigmoid(-logits[:, 1])
    assert torch.allclose(loss, (of_the_first * one + (1 - of_the_first) * zero).mean())


def test_no_mixtures_are_refused() -> None:
    with pytest.raises(ValueError, match="samples >= 1"):
        MixWithOthers(POOL, 4, 0, 0.5)
