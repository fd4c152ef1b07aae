from __future__ import annotations

import pytest
import torch
from torch import nn

from unmask.nets import conv_critic, conv_generator, conv_net, strided_net


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (28, 1), (32, 3), (30, 2)])
def test_classifiers_fit_their_images(size: int, channels: int) -> None:
    x = torch.rand(3, channels, size, size)
    for build in (conv_net, strided_net):
        torch.manual_seed(0)
        model = build(channels, size, (4, 6), 5, classes=7)
        logits = model(x)
        assert logits.shape == (3, 7)
        assert torch.allclose(model(x[1:2]), logits[1:2], atol=1e-5)  # no example knows another
        assert len(logits.unique(dim=0)) == 3


def test_parameters_counted_by_hand() -> None:
    convolutions = (9 * 1 + 1) * 32 + (9 * 32 + 1) * 32 + (9 * 32 + 1) * 64 + (9 * 64 + 1) * 64
    assert parameters(conv_net(1, 28)) == convolutions + (64 * 7 * 7 + 1) * 128 + 129 * 10
    assert parameters(strided_net(1, 28)) == ((9 * 4 + 1) * 32 + (16 * 32 + 1) * 64 + (64 * 7 * 7 + 1) * 256 + 257 * 10)
    w = 8
    assert parameters(conv_generator(10, w)) == (
        11 * 64 * w + (4 * w * 25 * 2 * w + 2 * w) + (2 * w * 25 * w + w) + (w * 25 + 1)
    )
    assert parameters(conv_critic(w)) == (
        26 * w + (25 * w * 2 * w + 2 * w) + (25 * 2 * w * 4 * w + 4 * w) + (64 * w + 1)
    )


def test_every_pixel_matters_to_every_class() -> None:
    for build in (conv_net, strided_net):
        torch.manual_seed(0)
        x = torch.rand(1, 1, 12, 12, requires_grad=True)
        for logit in build(1, 12, (8, 16), 32)(x)[0]:
            (gradient,) = torch.autograd.grad(logit, x, retain_graph=True)
            assert (gradient != 0).all()


def test_the_generator_makes_images() -> None:
    torch.manual_seed(0)
    generator = conv_generator(5, 4)
    z = torch.randn(4, 5)
    images, extreme = generator(z), generator(1000 * z)
    assert images.shape == (4, 1, 28, 28)
    assert torch.allclose(generator(z[2:3]), images[2:3], atol=1e-5)
    assert (images.std(0) > 0).all()  # no pixel is dead
    assert 0 <= extreme.min() < 0.1
    assert 0.9 < extreme.max() <= 1


def test_the_critic_scores_each_image_alone() -> None:
    """The gradient penalty is defined image by image, so no normalisation may mix them."""
    x = torch.rand(3, 1, 28, 28, requires_grad=True)
    scores = conv_critic(4)(x)
    assert scores.shape == (3, 1)
    (gradient,) = torch.autograd.grad(scores[1].sum(), x)
    assert gradient[[0, 2]].abs().max() == 0
    assert (gradient[1] != 0).all()


def test_the_last_transposed_convolution_is_computed_corner_by_corner() -> None:
    last = conv_generator(5, 4)[-2]
    x = torch.rand(3, 4, 14, 14)
    assert isinstance(last, nn.ConvTranspose2d)
    torch.testing.assert_close(last(x), nn.ConvTranspose2d.forward(last, x))
