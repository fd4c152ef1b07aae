"""Decoders inside a model, and what a search in their coordinates is given."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unmask.auditing.views.decoders import decoders
from unmask.diagnosis.probe import probe_gradients
from unmask.gradients.spaces import Latent
from unmask.randomness import make_keys


class Decoder(nn.Module):
    """Images of two numbers: (B, 2) -> (B, 1, 4, 4), columns that are as bright as the one, rows as the other."""

    def __init__(self, low: float) -> None:
        super().__init__()
        self.low = low

    def forward(self, z: Tensor) -> Tensor:
        image = torch.sigmoid(z[:, :1, None] + torch.linspace(-1, 1, 4)[:, None] * z[:, 1:, None]).expand(-1, 4, 4)
        return (self.low + (1 - self.low) * image).unsqueeze(1)


class Autoencoder(nn.Module):
    def __init__(self, low: float) -> None:
        super().__init__()
        self.decoder = Decoder(low)
        self.flat = nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        codes = torch.stack((2 * x.mean((1, 2, 3)) - 1, x[:, 0, 0, 0] - 1), 1)
        answer: Tensor = self.flat(self.decoder(codes))[:, :3]
        return answer


def found(model: nn.Module) -> list[Latent]:
    x = torch.rand(16, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    evidence = probe_gradients(model, x, model(x).argmax(1), 0.1, make_keys(0, range(16), "test"))
    return decoders(model, evidence, x)


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_a_decoder_is_found_and_its_images_fill_the_box(low: float) -> None:
    (space,) = found(Autoencoder(low).eval())
    z = torch.tensor([[0.3, 1.0], [-2.0, 0.5]])
    assert space.size == 2
    assert 0.1 < space.scale < 1.0  # as large as the codes are
    torch.testing.assert_close(space.decode(z), Decoder(0.0)(z))


def test_what_gives_no_images_is_no_decoder() -> None:
    assert found(nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Linear(4, 16)).eval()) == []
