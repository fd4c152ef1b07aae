from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chisquare
from torch import Tensor, nn

from unmask.defenses.transforms import crop
from unmask.defenses.transforms.crop import CropEnsemble
from unmask.randomness import make_keys, use_keys


class Recorder(nn.Module):
    """Linear logits, and what they were asked for."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(inputs, 3).double()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach())
        logits: Tensor = self.linear(x.flatten(1))
        return logits


def keyed(defense: nn.Module, rows: Tensor) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        with use_keys(make_keys(0, rows, "test")):
            return defense(x)  # type: ignore[no-any-return]

    return run


def test_is_the_log_of_the_mean_probability_over_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(2, 2, 7, 9, dtype=torch.float64)
    places = torch.tensor([[[0, 0], [4, 6], [1, 5]], [[3, 2], [3, 2], [0, 6]]])
    u = (places + 0.5) / torch.tensor([5, 7])
    monkeypatch.setattr(crop, "uniform", lambda size, like: u.expand(size))
    classifier = Recorder(2 * 9)
    found = CropEnsemble(classifier, size=3, crops=3)(x)
    for i in range(2):
        windows = torch.stack([x[i, :, top : top + 3, left : left + 3] for top, left in places[i].tolist()])
        assert torch.equal(classifier.seen[0][3 * i : 3 * i + 3], windows)
        assert torch.allclose(found[i].exp(), classifier(windows).softmax(1).mean(0))
    assert torch.allclose(found.exp().sum(1), torch.ones(2, dtype=torch.float64))
    assert torch.allclose(found.softmax(1), found.exp())


def test_certain_classifiers_have_no_infinite_loss() -> None:
    class Certain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 1e4 * x.flatten(1)

    x = torch.eye(3).view(1, 1, 3, 3).requires_grad_()
    loss = F.cross_entropy(CropEnsemble(Certain(), size=2, crops=4)(x), torch.tensor([1]))
    (gradient,) = torch.autograd.grad(loss, x)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_gradient_is_exact_however_many_crops_at_once(at_once: int) -> None:
    x = torch.rand(2, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    run = keyed(CropEnsemble(Recorder(9), 3, 5, at_once), torch.arange(2))
    assert torch.autograd.gradcheck(run, x)
    whole = keyed(CropEnsemble(Recorder(9), 3, 5), torch.arange(2))
    assert torch.allclose(run(x), whole(x), rtol=0, atol=1e-12)


def test_crops_at_once_bound_the_batch() -> None:
    classifier = Recorder(4)
    CropEnsemble(classifier, size=2, crops=10, at_once=8)(torch.rand(3, 1, 4, 4, dtype=torch.float64))
    assert [len(windows) for windows in classifier.seen] == [8, 8, 8, 6]


def test_places_are_uniform_and_each_image_has_its_own() -> None:
    x = torch.arange(30.0, dtype=torch.float64).view(1, 1, 5, 6).expand(400, -1, -1, -1)
    classifier = Recorder(9)
    CropEnsemble(classifier, size=3, crops=10, at_once=10**6)(x)
    first = classifier.seen[0][:, 0, 0, 0].long()
    counts = first.bincount(minlength=30).view(5, 6)
    assert counts[:3, :4].sum() == 4000
    assert chisquare(counts[:3, :4].flatten().numpy()).pvalue > 1e-3
    assert len(first.view(400, 10).unique(dim=0)) == 400


def test_an_example_does_not_depend_on_the_batch() -> None:
    x = torch.rand(6, 1, 5, 5, dtype=torch.float64)
    rows = torch.tensor([5, 2])
    defense = CropEnsemble(Recorder(4), 2, 7, at_once=3)
    whole = keyed(defense, torch.arange(6))(x)
    assert torch.allclose(keyed(defense, rows)(x[rows]), whole[rows], rtol=0, atol=1e-12)
    assert not torch.allclose(defense(x), whole)


def test_crops_of_full_size_are_the_image() -> None:
    classifier = Recorder(16)
    x = torch.rand(3, 1, 4, 4, dtype=torch.float64)
    assert torch.allclose(CropEnsemble(classifier, size=4, crops=3)(x), classifier(x).log_softmax(1))


def test_the_largest_draw_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crop, "uniform", lambda size, like: torch.full(size, 1 - 2.0**-24))
    classifier = Recorder(90 * 90)
    x = torch.rand(1, 1, 299, 224, dtype=torch.float64)
    CropEnsemble(classifier, crops=1)(x)
    assert torch.equal(classifier.seen[0], x[:, :, -90:, -90:])


def test_wrong_arguments_are_refused() -> None:
    for wrong in ({"size": 0}, {"crops": 0}, {"at_once": 0}):
        with pytest.raises(ValueError, match="of 1 at least"):
            CropEnsemble(nn.Flatten(), **wrong)
    with pytest.raises(ValueError, match="crops of 5x5 do not fit into images of 4x6"):
        CropEnsemble(nn.Flatten(), 5)(torch.rand(1, 1, 4, 6))
