from __future__ import annotations

import copy
from collections import Counter
from itertools import product

import pytest
import torch
from scipy.stats import binomtest, chisquare
from torch import Tensor, nn

from unmask.defenses import sap
from unmask.defenses.sap import SAP, KeepEach, SampleWithReplacement
from unmask.gradients.bpda import bpda
from unmask.models.model_wrappers import batch_invariant
from unmask.randomness import make_keys, use_keys
from unmask.types import Model

H = torch.tensor([0.5, -1.0, 0.0, 2.0, 4.0, -0.1])
P = (H.abs() / H.abs().sum()).double()
N = 20_000


def draws(prune: nn.Module, h: Tensor, n: int = N) -> Tensor:
    """What ``prune`` makes of copies of ``h`` (units,), each by draws of its own."""
    with use_keys(make_keys(0, range(n), "test")):
        return prune(h.expand(n, -1))  # type: ignore[no-any-return]


PRUNINGS = [
    (SampleWithReplacement(), 1 - (1 - P) ** 6),
    (SampleWithReplacement(0.5), 1 - (1 - P) ** 3),
    (SampleWithReplacement(0.45), 1 - (1 - P) ** 2),  # the floor of 2.7
    (SampleWithReplacement(3.0), 1 - (1 - P) ** 18),
    (KeepEach(), 1 - torch.exp(-2 * 6 * P)),
    (KeepEach(0.3), 1 - torch.exp(-0.3 * 6 * P)),
]


@pytest.mark.parametrize(("prune", "chance"), PRUNINGS)
def test_units_are_kept_with_their_probability_and_divided_by_it(prune: nn.Module, chance: Tensor) -> None:
    out = draws(prune, H)
    for j, (h, p) in enumerate(zip(H.tolist(), chance.tolist(), strict=True)):
        kept = out[:, j] != 0
        if h == 0:
            assert not kept.any()
            continue
        assert binomtest(int(kept.sum()), N, p).pvalue > 0.01
        assert torch.allclose(out[kept, j], torch.tensor(h / p, dtype=torch.float32), rtol=1e-5)


@pytest.mark.parametrize(("prune", "chance"), PRUNINGS)
def test_the_mean_over_draws_is_the_input(prune: nn.Module, chance: Tensor) -> None:
    error = draws(prune, H).double().mean(0) - H
    deviation = H.abs() * ((1 / chance.clamp_min(1e-9) - 1) / N).sqrt()
    assert (error.abs() <= 3.5 * deviation + 1e-6).all()


def test_kept_sets_are_those_of_a_sample_with_replacement() -> None:
    """All 4^3 samples of 3 draws from 4 units, one of which is never drawn."""
    p = [0.5, 0.0, 0.2, 0.3]
    expected: Counter[tuple[int, ...]] = Counter()
    for sample in product(range(4), repeat=3):
        expected[tuple(sorted({*sample}))] += p[sample[0]] * p[sample[1]] * p[sample[2]]  # type: ignore[assignment]
    out = draws(SampleWithReplacement(0.75), torch.tensor(p))
    found = Counter(tuple(row.nonzero().flatten().tolist()) for row in out)
    sets = [kept for kept, share in expected.items() if share]
    assert len(sets) == 7
    assert {*found} == {*sets}
    assert chisquare([found[s] for s in sets], [N * expected[s] for s in sets]).pvalue > 0.01


def test_units_that_are_kept_each_by_itself_are_independent() -> None:
    kept = (draws(KeepEach(0.3), H) != 0).double().T.cov(correction=0)
    chance = PRUNINGS[-1][1]
    variance = chance * (1 - chance)
    limit = 4 * (variance.outer(variance) / N).sqrt()
    assert ((kept - kept.diagonal().diag()).abs() <= limit).all()


@pytest.mark.parametrize("prune", [SampleWithReplacement(), KeepEach()])
def test_activations_of_any_shape_are_pruned_as_one_layer(prune: nn.Module) -> None:
    h = torch.randn(4, 3, 2, 5)
    for form in (h, h.contiguous(memory_format=torch.channels_last)):
        with use_keys(make_keys(0, range(4), "test")):
            image = prune(form)
        with use_keys(make_keys(0, range(4), "test")):
            assert torch.equal(image.flatten(1), prune(h.flatten(1)))


@pytest.mark.parametrize(
    "prune", [SampleWithReplacement(), SampleWithReplacement(0.2), SampleWithReplacement(0.1), KeepEach()]
)
def test_dead_layers_stay_dead(prune: nn.Module) -> None:
    """Likewise if there are less than one draw a layer."""
    h = torch.stack((torch.zeros(6), H, torch.zeros(6), torch.eye(6)[2])).requires_grad_()
    out = prune(h)
    assert (out[[0, 2]] == 0).all()
    assert out.isfinite().all()
    (gradient,) = torch.autograd.grad(out, h, 100 * torch.ones_like(h))
    assert (gradient[[0, 2]] == 0).all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("prune", [SampleWithReplacement(), KeepEach(0.3)])
def test_mask_and_scale_are_constants_of_the_gradient(prune: nn.Module) -> None:
    h = H[H != 0].expand(50, -1).clone().requires_grad_()
    out = prune(h)
    weight = torch.randn(h.shape)
    (gradient,) = torch.autograd.grad((out * weight).sum(), h)
    assert torch.allclose(gradient, weight * (out / h).detach(), rtol=1e-5)
    assert 0.1 < (gradient == 0).double().mean() < 0.9


@pytest.mark.parametrize("fraction", [0.0, -1.0])
def test_samples_of_nothing_are_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="a sample needs a fraction above 0"):
        SampleWithReplacement(fraction)


def test_rare_units_are_divided_by_a_little_more_than_their_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sap, "uniform", lambda size, like: torch.zeros(tuple(size)))
    rare = 3e-8
    out = KeepEach(0.5)(torch.tensor([[1.0, 0.0, 0.0, rare]]))
    keep = 0.5 * 4 * rare  # of which 1 - exp(-keep) differs by its square
    assert out[0].tolist() == pytest.approx([1 / (1 - torch.e**-2), 0, 0, rare / (keep + 1e-8)], rel=1e-5)


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor, self.calls = factor, 0

    def forward(self, h: Tensor) -> Tensor:
        self.calls += 1
        return h * self.factor


def net() -> nn.Sequential:
    torch.manual_seed(0)
    shared = nn.ReLU()
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), shared, nn.Linear(12, 6), shared, nn.Linear(6, 3))


X = torch.rand(11, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_each_layer_of_the_type_is_pruned() -> None:
    a, b, c = (layer for layer in net() if isinstance(layer, nn.Linear))
    x, prune = X.flatten(1), Times(3)
    assert torch.allclose(SAP(net(), prune)(X), c(3 * b(3 * a(x).relu()).relu()), atol=1e-5)
    assert prune.calls == 2
    assert torch.allclose(SAP(net(), prune, nn.Linear)(X), 3 * c(3 * b((3 * a(x)).relu()).relu()), atol=1e-5)
    assert prune.calls == 2 + 3
    assert isinstance(SAP(net()).prune, SampleWithReplacement)


def test_a_copy_uses_its_own_pruning() -> None:
    prune = Times(3)
    model = SAP(net(), prune)
    expected = model(X)
    twin = copy.deepcopy(model)
    assert isinstance(twin.prune, Times)
    assert torch.equal(twin(X), expected)
    assert (prune.calls, twin.prune.calls) == (2, 2 + 2)
    twin.prune.factor = 0.0
    assert not torch.equal(twin(X), expected)
    assert torch.equal(model(X), expected)


@pytest.mark.parametrize("prune", [SampleWithReplacement(), KeepEach(0.5)])
def test_bpda_on_the_pruning_gives_the_gradient_of_the_classifier(prune: nn.Module) -> None:
    """Its layers are linear here, so that the gradient is the product of their matrices wherever it is taken."""
    torch.manual_seed(0)
    a, b, c = nn.Linear(16, 12), nn.Linear(12, 6), nn.Linear(6, 3)
    unpruned = c(b(a(X.flatten(1))))
    model = SAP(nn.Sequential(nn.Flatten(), a, b, c), prune, nn.Linear)
    viewed = bpda("prune")(model)

    def answer(victim: Model) -> tuple[Tensor, Tensor]:
        x = X.clone().requires_grad_()
        with use_keys(make_keys(0, range(11), "test")):
            logits = victim(x)
        assert isinstance(logits, Tensor)
        return logits, torch.autograd.grad(logits[:, 1].sum(), x)[0].flatten(1)

    logits, gradient = answer(viewed)
    own_logits, own_gradient = answer(model)
    expected = (c.weight @ b.weight @ a.weight)[1]
    assert torch.equal(logits, own_logits)
    assert not torch.allclose(logits, unpruned, atol=0.1)
    assert torch.allclose(gradient, expected.expand(11, -1), atol=1e-6)
    assert not torch.allclose(own_gradient, gradient, atol=0.1)


@pytest.mark.parametrize("prune", [SampleWithReplacement(), KeepEach(0.5)])
def test_an_answer_does_not_depend_on_the_batch(prune: nn.Module) -> None:
    torch.manual_seed(0)
    model = SAP(
        nn.Sequential(nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(80, 9), nn.ReLU()), prune
    )

    def answer(rows: list[int], seed: int = 0) -> Tensor:
        with torch.no_grad(), use_keys(make_keys(seed, rows, "test")):
            return batch_invariant(model)(X[rows]).logits

    whole = answer([*range(11)])
    for rows in ([9, 0, 4], [10], [*range(3, 11)]):
        assert torch.equal(answer(rows), whole[rows])
    assert not torch.equal(answer([*range(11)], seed=1), whole)
