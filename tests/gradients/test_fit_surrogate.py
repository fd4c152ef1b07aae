from __future__ import annotations

import copy

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.gradients.bpda import bpda
from unmask.gradients.parts.skip_to import skip_to
from unmask.gradients.surrogates.fit_surrogate import fit_skip, fit_surrogate, lazy_surrogate
from unmask.randomness import make_keys, uniform, use_keys

X = torch.rand(64, 1, 6, 6, generator=torch.Generator().manual_seed(0))
KERNEL = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).view(1, 1, 3, 3) / 16


class BlurRound(nn.Module):
    def __init__(self, *, rounded: bool = True) -> None:
        super().__init__()
        self.rounded = rounded

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(1 - x, KERNEL, padding=1)  # inverted, so that identity would be wrong
        return (x * 8).round() / 8 if self.rounded else x


class Halves(nn.Module):
    """(B, 1, 6, 6) -> (B, 4): means of the quarters, coarsely rounded."""

    def __init__(self, *, rounded: bool = True) -> None:
        super().__init__()
        self.rounded = rounded

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 3).flatten(1)
        return (x * 16).round() / 16 if self.rounded else x


def slope(model: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    return gradient.flatten(1)


@pytest.mark.parametrize("part", [BlurRound, Halves])
def test_the_fitted_gradient_points_where_the_smooth_truth_does(part: type[nn.Module]) -> None:
    torch.manual_seed(0)
    wide = part()(X)[0].numel()
    head = nn.Sequential(nn.Flatten(), nn.Linear(wide, 1))
    model, smooth = nn.Sequential(part(), head), nn.Sequential(part(rounded=False), head)
    assert slope(model, X).abs().max() == 0
    state = torch.get_rng_state()
    surrogate = fit_surrogate(model, "0", X, steps=150)
    assert torch.equal(torch.get_rng_state(), state)
    view = bpda("0", surrogate)(model)
    test = torch.rand(20, 1, 6, 6)
    assert torch.equal(view(test), model(test))
    cosine = F.cosine_similarity(slope(view, test), slope(smooth, test))
    assert cosine.min() > 0.5
    if part is BlurRound:
        assert F.cosine_similarity(slope(bpda("0")(model), test), slope(smooth, test)).max() < 0


class Components(nn.Module):
    """Five linear features of the image, of very different scales, by numpy: (B, 1, 6, 6) -> (B, 5)."""

    def __init__(self) -> None:
        super().__init__()
        rows = torch.linalg.qr(torch.randn(36, 5, generator=torch.Generator().manual_seed(1))).Q.T
        self.rows = rows * torch.tensor([[10.0], [5.0], [1.0], [0.5], [0.1]])

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().flatten(1).numpy() @ self.rows.T.numpy() - 3)


def test_of_a_linear_part_each_output_has_its_gradient() -> None:
    part = Components()
    surrogate = fit_surrogate(nn.Sequential(part, nn.Linear(5, 3)), "0", X)
    z = X[:4].clone().requires_grad_()
    for k, row in enumerate(part.rows):
        slope = torch.autograd.grad(surrogate(z)[:, k].sum(), z)[0].flatten(1)
        assert (F.cosine_similarity(slope, row[None]) > 0.99).all()


def test_the_same_seed_fits_the_same_surrogate() -> None:
    model = nn.Sequential(BlurRound(), nn.Flatten())
    first, second, third = (fit_surrogate(model, "0", X, steps=3, seed=seed)(X) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_a_network_of_ones_own_learns_the_part() -> None:
    blur = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    blur.weight.data.copy_(KERNEL)
    network = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    surrogate = fit_surrogate(nn.Sequential(blur, nn.Flatten()), "0", X, network=network, steps=300, rate=0.02)
    assert surrogate is network
    assert not network.weight.requires_grad
    assert (network.weight - KERNEL).abs().max() < 1e-3


def test_the_model_is_not_trained() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), BlurRound(), nn.Flatten())
    before = [p.clone() for p in model.parameters()]
    fit_surrogate(model, "1", X, steps=3)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert all(p.grad is None for p in model.parameters())
    assert not model[1]._forward_hooks


def test_what_cannot_be_fitted_is_said_in_one_line() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)

    with pytest.raises(ValueError, match=r"^the model has no part 'encode'; its parts: idle$"):
        fit_surrogate(Unused(), "encode", X)
    with pytest.raises(ValueError, match=r"^part 'idle' is not called in the forward pass.*$"):
        fit_surrogate(Unused(), "idle", X)


def test_the_part_is_asked_once_about_each_image_where_it_is_slow() -> None:
    asked: list[int] = []
    model = nn.Sequential(BlurRound(), nn.Flatten(), nn.Linear(36, 1))
    model[0].register_forward_pre_hook(lambda part, args: asked.append(len(args[0])))
    surrogate = fit_surrogate(model, "0", X, steps=150, batch=16, rounds=1)
    assert sum(asked) == len(X) + 2  # two images tell the shapes
    test = torch.rand(20, 1, 6, 6)
    blurred = BlurRound(rounded=False)(test)
    assert (surrogate(test) - blurred).square().mean() < 0.2 * (test - blurred).square().mean()


def test_a_view_fits_anew_for_other_weights_alone() -> None:
    asked: list[int] = []

    def images() -> Tensor:
        asked.append(1)
        return X

    view = lazy_surrogate("0", images, steps=2)
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten())
    assert torch.equal(view(model)(X), model(X))
    view(copy.deepcopy(model))(X)
    assert asked == [1]
    nn.init.ones_(model[0].weight)  # type: ignore[arg-type]
    other = view(model)
    assert asked == [1]  # nothing is fitted before it is needed
    other(X)
    assert asked == [1, 1]
    with pytest.raises(ValueError, match="no part 'encode'"):
        lazy_surrogate("encode", images)(model)


def test_fitting_leaves_the_randomness_of_the_attack_alone() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + uniform(x.shape, like=x)

    view = lazy_surrogate("0", lambda: X, steps=2)(nn.Sequential(Noisy(), nn.Flatten()))
    answers = []
    for _ in range(2):
        with use_keys(make_keys(0, range(4), "test")):
            answers.append(view(X[:4]))
    assert torch.equal(*answers)


def test_a_fit_to_a_random_part_is_the_same_each_time() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand_like(x)

    model = nn.Sequential(Noisy(), nn.Flatten())
    first = fit_surrogate(model, "0", X, steps=3)(X)
    torch.rand(7)
    assert torch.equal(first, fit_surrogate(model, "0", X, steps=3)(X))


class Twice(nn.Module):
    """One part, called for the images and for their negatives; the part's slope is another one there."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = Steps()

    def forward(self, x: Tensor) -> Tensor:
        up, down = self.steps(x), self.steps(-x)
        return torch.stack([up.flatten(1).sum(1), down.flatten(1).sum(1)], 1)


class Steps(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy((8 * torch.where(x > 0, 3 * x, x).detach().numpy()).round() / 8)


def test_each_call_of_a_part_has_a_surrogate_of_its_own() -> None:
    model = Twice()
    fitted = [fit_surrogate(model, "steps", X, call=call, steps=200, rounds=4) for call in range(2)]
    x = X[:8].clone().requires_grad_()
    answer = bpda("steps", fitted)(model)(x)
    slopes = [torch.autograd.grad(one.sum(), x, retain_graph=True)[0].mean() for one in answer.T]
    assert abs(float(slopes[0]) - 3) < 0.3
    assert abs(float(slopes[1]) + 1) < 0.3
    with pytest.raises(ValueError, match="'steps' is 2 times called"):
        fit_surrogate(model, "steps", X, call=2)


class InNumpy(nn.Module):
    """Codes (B, 1, 6, 6) -> (B, 2, 6, 6) in numpy, behind a layer, before a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(72, 2)
        self.first, self.head = nn.Conv2d(1, 1, 1), nn.Sequential(nn.Flatten(), self.linear)
        self.first.weight.data.fill_(1)
        self.first.bias.data.fill_(0)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).detach().numpy()
        code = numpy.concatenate((h > 0.3, h > 0.7), 1).astype(numpy.float32)
        answer: Tensor = self.head(torch.from_numpy(code))
        return answer


@pytest.mark.parametrize("source", [None, "first"])
def test_a_gap_that_changes_the_shape_is_passed_by_a_fitted_surrogate(source: str | None) -> None:
    torch.manual_seed(0)
    model = InNumpy()
    fitted = fit_skip(model, "head", X, source=source, steps=150)
    view = skip_to("head", fitted, source)(model)
    assert torch.equal(view(X.clone().requires_grad_()), model(X))
    rising = model.linear.weight[0].view(2, 36).sum(0)
    assert F.cosine_similarity(slope(view, X), rising[None]).mean() > 0.6
