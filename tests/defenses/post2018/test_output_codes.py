from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unmask.defenses.post2018.networks.output_codes import Decode, OutputCodes, hadamard_code
from unmask.gradients.bpda import bypass

CODE = hadamard_code(10, 16)


def test_two_words_are_at_right_angles_or_further_apart() -> None:
    products = CODE @ CODE.T
    assert torch.equal(products.diagonal(), torch.full((10,), 16.0))
    assert set((products - products.diag().diag()).flatten().tolist()) == {0.0, -2.0}
    assert set(CODE.flatten().tolist()) == {-1.0, 1.0}
    assert not (CODE[:1] == CODE).all(0).any()  # no bit is the same for all classes


def test_a_word_is_decoded_as_its_class_also_with_three_wrong_bits() -> None:
    """Two words differ in at least 8 of 16 bits, so that 3 wrong ones leave the right word the nearest."""
    assert torch.equal(Decode(CODE)(CODE).argmax(1), torch.arange(10))
    flipped = torch.ones(16).index_fill(0, torch.tensor([0, 5, 11]), -1)
    assert torch.equal(Decode(CODE)(CODE * flipped).argmax(1), torch.arange(10))


def test_probabilities_are_the_shares_of_the_positive_correlations() -> None:
    bits = torch.rand(6, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    positive = (bits @ CODE.T).clamp_min(0)
    assert torch.allclose(Decode(CODE)(bits).exp(), positive / positive.sum(1, keepdim=True), atol=1e-5)
    assert torch.allclose(Decode(CODE)(bits).exp().sum(1), torch.ones(6))


class Scaled(nn.Module):
    """Four logits for each image (B, 1, 1, 4): the pixels, times a large number."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - 0.5) * 200


def test_confident_bits_have_no_gradient_but_their_logits_do() -> None:
    model = OutputCodes([Scaled()], hadamard_code(3, 4))
    x = torch.tensor([[[[0.0, 1.0, 1.0, 1.0]]]], requires_grad=True)
    assert model(x).argmax(1).item() == 0
    model(x)[0, 0].backward()
    assert x.grad is not None
    assert not x.grad.any()
    view = bypass("decode", model.decode.correlations)(bypass("squash")(model))
    view(x)[0, 0].backward()
    assert torch.equal(x.grad.sign().flatten(), model.decode.code[0])


@pytest.mark.parametrize(("classes", "bits"), [(10, 8), (10, 20), (3, 0)])
def test_a_code_of_another_length_is_refused(classes: int, bits: int) -> None:
    with pytest.raises(ValueError, match="need a power of two of bits"):
        hadamard_code(classes, bits)
