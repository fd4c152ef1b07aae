"""A refusal that numpy computes: a fitted head shows the way to acceptance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unmask.attacking import run_attack
from unmask.attacks.auto_pgd.apgd import APGD
from unmask.errors import UnmaskError
from unmask.gradients.bpda import View
from unmask.gradients.surrogates.fit_refusal import fit_refusal, refusal_head
from unmask.judging import Judge
from unmask.losses import margin
from unmask.threats import Linf
from unmask.types import Output


class Detector(nn.Module):
    """Class 1 where the first pixel is above 1/2; of these it refuses those whose other pixels are dark on average.

    From dark images an attack must therefore move all pixels; for the class alone it moves one.
    """

    def __init__(self, threshold: float = 0.35) -> None:
        super().__init__()
        self.net, self.threshold = nn.Flatten(), threshold

    def forward(self, x: Tensor) -> Output:
        z = self.net(x)
        refused = (z.detach().numpy()[:, 1:].mean(1) < self.threshold) & (z.detach().numpy()[:, 0] > 0.5)
        return Output(torch.stack((0.5 - z[:, 0], z[:, 0] - 0.5), 1), torch.from_numpy(refused))


X = 0.3 * torch.rand(32, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_a_search_finds_images_that_are_accepted_through_the_head_and_not_without_it() -> None:
    model = Detector().eval()
    labels = torch.zeros(32, dtype=torch.int64)
    judge = Judge(model, Linf(0.5), 1, False)

    def left(view: View | None) -> float:
        found = run_attack(APGD(30, margin), model, X, labels, judge=judge, view=view, index=torch.arange(32), seed=0)
        return float(found.verdict.robust_fraction.double().mean())

    head = fit_refusal(model, "net", X, radius=0.5)
    assert left(None) > 0.9
    assert left(refusal_head("net", head)) < 0.3


def test_the_answers_stay_those_of_the_model() -> None:
    model = Detector().eval()
    seen = refusal_head("net", lambda features: features[:, 0])(model)(X)
    assert torch.equal(seen.logits, model(X).logits)
    assert torch.equal(seen.reject > 0, model(X).reject)


@pytest.mark.parametrize("threshold", [-1.0])
def test_where_nothing_is_refused_nothing_is_fitted(threshold: float) -> None:
    with pytest.raises(UnmaskError, match="refuses none of the images"):
        fit_refusal(Detector(threshold), "net", X, radius=0.1, steps=1)


def test_a_head_may_see_the_images_alone() -> None:
    """A model without parts."""

    class Bare(nn.Module):
        def forward(self, x: Tensor) -> Output:
            pixels = x.flatten(1)
            bright = x.detach().numpy().mean((1, 2, 3)) > 0.5
            return Output(torch.stack((pixels[:, 0], 1 - pixels[:, 0]), 1), torch.from_numpy(bright))

    x = torch.rand(64, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    head = fit_refusal(Bare(), (), x, radius=0.1)
    z = torch.full((1, 1, 4, 4), 0.3, requires_grad=True)
    answer = refusal_head((), head)(Bare())(z)
    assert answer.reject is not None
    assert answer.reject.item() < 0
    answer.reject.sum().backward()
    assert z.grad is not None
    assert z.grad.mean() > 0, "brighter images are refused"


def test_the_error_of_a_reconstruction_is_a_feature() -> None:
    class Reconstructs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = nn.Upsample(scale_factor=1)

        def forward(self, x: Tensor) -> Output:
            self.decoder(x.mean((2, 3), keepdim=True).expand_as(x))
            return Output(x.flatten(1)[:, :2], torch.zeros(len(x), dtype=torch.bool))

    seen: list[Tensor] = []

    def head(features: Tensor) -> Tensor:
        seen.append(features)
        return features[:, 0]

    x = torch.rand(3, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    refusal_head("decoder", head)(Reconstructs())(x)
    errors = x.flatten(1) - x.flatten(1).mean(1, keepdim=True)
    columns = seen[0].shape[1] - 1600
    assert columns < 10, "the images themselves, of more than 1024 numbers, are none"
    rest = seen[0][:, 1600:]
    for error in (errors.square().mean(1), errors.abs().mean(1)):
        assert (rest - error[:, None]).abs().amin(1).max() < 1e-6
