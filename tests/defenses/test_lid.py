from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from unmask.defenses.lid import LID, local_intrinsic_dimensionality
from unmask.models.model_wrappers import batch_invariant
from unmask.randomness import make_keys, use_keys

REFERENCES = torch.rand(40, 1, 5, 5, generator=torch.Generator().manual_seed(1))
X = torch.rand(11, 1, 5, 5, generator=torch.Generator().manual_seed(2))


def net(seed: int = 0) -> nn.Sequential:
    """Smooth, of four layers that are compared: all but the flattening."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(27, 5)).eval()


WEIGHT = torch.tensor([0.3, -0.2, 0.5, 0.1])


def detector(seed: int = 0) -> LID:
    model = LID(net(seed), REFERENCES, neighbours=12).eval()
    model.weight.copy_(WEIGHT)
    model.bias.fill_(-1.5)
    return model


def layers(classifier: nn.Sequential, x: Tensor) -> list[Tensor]:
    """What the compared layers give, (B, n) each."""
    a = classifier[0](x)
    b = classifier[1](a)
    c = classifier[2](b)
    return [a.flatten(1), b.flatten(1), c.flatten(1), classifier[4](c.flatten(1))]


def estimate(h: Tensor, references: Tensor, k: int) -> Tensor:
    """The definition, one image at a time."""
    found = []
    for one in h.double():
        distances = sorted(math.dist(one.tolist(), other.tolist()) for other in references)[:k]
        found.append(-1 / (sum(math.log(r / distances[-1]) for r in distances) / k))
    return torch.tensor(found)


@pytest.mark.parametrize(("n", "k"), [(1, 5), (3, 20), (50, 40)])
def test_the_estimate_is_that_of_the_definition(n: int, k: int) -> None:
    generator = torch.Generator().manual_seed(n)
    h, references = torch.randn(7, n, generator=generator), torch.randn(40, n, generator=generator)
    expected = estimate(h, references, k)
    assert torch.allclose(local_intrinsic_dimensionality(h, references, k), expected, rtol=1e-3)
    assert torch.allclose(
        local_intrinsic_dimensionality(h.double(), references.double(), k), expected.double(), rtol=1e-5
    )


@pytest.mark.parametrize("d", [1, 2, 5, 10])
def test_a_uniform_ball_has_its_own_dimension(d: int) -> None:
    """Averaged over 60 balls; the farthest of the k neighbours counts as one of them, which adds a factor k / (k-1)."""
    generator = torch.Generator().manual_seed(d)
    k, found = 100, []
    for _ in range(60):
        direction = torch.randn(400, d, generator=generator, dtype=torch.float64)
        radius = torch.rand(400, 1, generator=generator, dtype=torch.float64) ** (1 / d)
        points = direction / direction.norm(dim=1, keepdim=True) * radius
        found.append(local_intrinsic_dimensionality(torch.zeros(1, d).double(), points, k))
    assert torch.cat(found).mean().item() == pytest.approx(d * k / (k - 1), rel=3.5 / math.sqrt(60 * k))


def test_neighbours_at_no_or_equal_distances_are_finite() -> None:
    corners = torch.eye(6)
    for h in (torch.full((1, 6), 1 / 6), corners[:1]):
        found = local_intrinsic_dimensionality(h.requires_grad_(), corners, 4)
        assert found.isfinite().all()
        assert found > 0
        assert torch.autograd.grad(found.sum(), h)[0].isfinite().all()


def test_the_gradient_of_the_estimate_agrees_with_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    references = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    h = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h: local_intrinsic_dimensionality(h, references, 8), h)


def test_logits_are_those_of_the_bare_classifier() -> None:
    model = detector()
    assert torch.equal(model(X).logits, net()(X))
    assert torch.equal(model.classifier(X), net()(X))


def test_features_are_the_estimates_of_each_layer() -> None:
    model = detector()
    logits, features = model.features(X)
    with torch.no_grad():
        for layer, (h, references) in enumerate(zip(layers(net(), X), layers(net(), REFERENCES), strict=True)):
            assert torch.allclose(features[:, layer], estimate(h, references, 12), rtol=5e-3)
    output = model(X)
    assert torch.equal(output.logits, logits)
    assert torch.allclose(output.reject, features @ WEIGHT - 1.5, rtol=1e-5)


def test_the_gradient_of_the_rejection_agrees_with_finite_differences() -> None:
    """Those of the same function in float64, since steps must be short: neighbours come and go."""
    model, x = detector(), X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).reject.sum(), x)
    assert (gradient.flatten(1).norm(dim=1) > 0.1).all()
    wide = net().double()

    @torch.no_grad()
    def reject(x: Tensor) -> Tensor:
        pairs = zip(layers(wide, x), layers(wide, REFERENCES.double()), strict=True)
        found = torch.stack([local_intrinsic_dimensionality(h, r, 12) for h, r in pairs], 1)
        return found @ WEIGHT.double() - 1.5

    assert torch.allclose(reject(X.double()).float(), model(X).reject, rtol=1e-3)
    step, generator = 1e-6, torch.Generator().manual_seed(3)
    for _ in range(5):
        direction = torch.randn(X.shape, generator=generator, dtype=torch.float64)
        difference = (reject(X + step * direction) - reject(X - step * direction)) / (2 * step)
        slope = (gradient * direction).flatten(1).sum(1)
        assert torch.allclose(difference, slope, rtol=1e-2, atol=1e-2)


def test_a_copy_records_its_own_activations() -> None:
    model = detector()
    twin = copy.deepcopy(model)
    twin.classifier.load_state_dict(net(1).state_dict())
    expected = detector(1)(X)
    answer = twin(X)
    assert torch.equal(answer.logits, expected.logits)
    assert torch.equal(answer.reject, expected.reject)
    assert not torch.equal(model(X).reject, expected.reject)
    assert torch.equal(copy.deepcopy(twin)(X).reject, expected.reject)  # also when it has answered before


def test_nothing_is_kept_of_images() -> None:
    model = detector()
    model.classifier(X)
    assert model._seen is None
    model(X)
    assert model._seen is None
    assert [len(h) for h in model._known] == [40] * 4
    assert not any(h.requires_grad for h in model._known)
    with pytest.raises(RuntimeError):
        model(X[:, :, :4])  # too small for the last layer
    assert model._seen is None


def test_references_are_not_stored_with_the_weights() -> None:
    names = detector().state_dict().keys()
    assert {"weight", "bias"} <= names
    assert all(name in ("weight", "bias") or name.startswith("classifier.") for name in names)


def test_too_few_references_are_refused() -> None:
    assert LID(net(), REFERENCES[:12], neighbours=12)(X).reject.isfinite().all()
    with pytest.raises(ValueError, match="12 neighbours need as many references, not 11"):
        LID(net(), REFERENCES[:11], neighbours=12)


def test_an_answer_does_not_depend_on_the_batch() -> None:
    model = detector()

    def answer(rows: list[int]) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), use_keys(make_keys(0, rows, "test")):
            output = batch_invariant(model)(X[rows])
        assert output.reject is not None
        return output.logits, output.reject

    logits, reject = answer([*range(11)])
    for rows in ([9, 0, 4], [10], [*range(3, 11)]):
        assert torch.equal(answer(rows)[0], logits[rows])
        assert torch.equal(answer(rows)[1], reject[rows])
