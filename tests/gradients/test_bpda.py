from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.gradients.bpda import bpda, bypass, find_part, substitute
from unmask.types import Output

WEIGHT = torch.tensor([2.0, -3.0, 5.0, 7.0])


class Apply(nn.Module):
    """Any function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


class Weighted(nn.Module):
    """(B, 1, 2, 2) -> (B, 1): the sum of the pixels times ``WEIGHT``."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) * WEIGHT).sum(1, keepdim=True)


def image(size: int = 2) -> Tensor:
    return torch.rand(3, 1, size, size, generator=torch.Generator().manual_seed(0)).requires_grad_(True)


def slope(model: nn.Module, x: Tensor) -> Tensor:
    answer = model(x)
    logits = answer.logits if isinstance(answer, Output) else answer
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    return gradient


def through_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy((x.detach().numpy() * 4).round() / 4)


def careless_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy((x.numpy() * 4).round() / 4)


@torch.no_grad()
def without_gradient(x: Tensor) -> Tensor:
    return (x * 4).round() / 4


@pytest.mark.parametrize(
    "part", [torch.round, torch.sign, torch.sigmoid, through_numpy, careless_numpy, without_gradient]
)
def test_forward_is_the_models_and_backward_the_surrogates(part: Callable[[Tensor], Tensor]) -> None:
    model, x = nn.Sequential(Apply(part), Weighted()), image()
    view = bpda("0", lambda x: x.square() + 4)(model)
    with torch.no_grad():
        expected = model(x.detach())
        assert torch.equal(view(x.detach()), expected)
    assert torch.equal(view(x), expected)
    assert torch.allclose(slope(view, x), 2 * x * WEIGHT.view(2, 2))
    assert torch.allclose(slope(bpda("0")(model), x), WEIGHT.view(2, 2).expand_as(x))


@pytest.mark.parametrize("path", ["a", "a.1", "a.1.inner", "a.1.inner.2", "b.0", "c.key"])
def test_parts_at_any_depth(path: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Sequential(nn.Identity(), nn.Sequential())
            self.a[1].inner = nn.Sequential(nn.Identity(), nn.Identity(), nn.Identity())
            self.b = nn.ModuleList([nn.Identity()])
            self.c = nn.ModuleDict({"key": nn.Identity()})
            self.head = Weighted()

        def forward(self, x: Tensor) -> Tensor:
            x = self.c["key"](self.b[0](self.a(x)))
            logits: Tensor = self.head(x)
            return logits

    model, x = Model(), image()
    find_part(model, path).register_forward_hook(lambda module, args, output: None)  # hooks stay in use
    assert torch.allclose(slope(bpda(path, lambda x: 10 * x)(model), x), 10 * WEIGHT.view(2, 2).expand_as(x))


def test_a_part_under_two_names_is_found_under_both() -> None:
    shared = Apply(torch.round)
    model, x = nn.Sequential(shared, shared, Weighted()), image()
    for path in ("0", "1"):
        assert torch.allclose(slope(bpda(path, lambda x: 3 * x)(model), x), 9 * WEIGHT.view(2, 2).expand_as(x))


def test_the_whole_model_may_be_the_part() -> None:
    model, x = nn.Sequential(Apply(torch.round), Weighted()), image()
    view = bpda("", lambda x: x.sum((1, 2, 3)).unsqueeze(1))(model)
    assert torch.equal(view(x), model(x))
    assert torch.equal(slope(view, x), torch.ones_like(x))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[..., 1:5, 2:6],
        lambda x: F.interpolate(x, (9, 5)),
        lambda x: F.pad(x, (1, 2, 3, 4)),
        lambda x: F.avg_pool2d(x, 2),
    ],
    ids=["crop", "resize", "pad", "pool"],
)
def test_identity_is_resized_to_parts_that_change_the_size(change: Callable[[Tensor], Tensor]) -> None:
    x = image(8)
    shape = change(x).shape[-2:]
    weight = torch.rand(1, *shape)
    model = nn.Sequential(Apply(lambda x: change(x).round()), Apply(lambda x: (x * weight).sum((1, 2, 3)).view(-1, 1)))
    resized = F.interpolate(x, shape, mode="bilinear", align_corners=False)
    (expected,) = torch.autograd.grad((resized * weight).sum(), x)
    view = bpda("0")(model)
    assert torch.equal(view(x), model(x))
    assert torch.allclose(slope(view, x), expected)
    assert expected.abs().max() > 0


def test_a_part_called_several_times_is_replaced_each_time() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step = Apply(torch.round)

        def forward(self, x: Tensor) -> Tensor:
            once = self.step(x)
            answer: Tensor = self.step(2 * once + x) + once
            return answer.flatten(1)

    x = image()
    gradient = slope(bpda("step", lambda x: 3 * x)(Twice()), x)
    assert torch.equal(gradient, torch.full_like(x, 3 * (2 * 3 + 1) + 3))


def test_a_part_called_under_no_grad_passes_the_gradient() -> None:
    class Guarded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = Apply(torch.round)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                rounded: Tensor = self.part(x)
            return (rounded * WEIGHT.view(2, 2)).flatten(1)

    x = image()
    assert torch.equal(slope(bpda("part")(Guarded()), x), WEIGHT.view(2, 2).expand_as(x))


def test_keyword_arguments_reach_the_part() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = Apply(lambda *, x, power: x.round() ** power)

        def forward(self, x: Tensor) -> Tensor:
            return self.part(x=x + 1, power=2).flatten(1)  # type: ignore[no-any-return]

    x = image()
    view = bpda("part", lambda x: 5 * x)(Model())
    assert torch.equal(view(x), (x + 1).round().square().flatten(1))
    assert torch.equal(slope(view, x), torch.full_like(x, 5.0))


def test_two_views_compose() -> None:
    model, x = nn.Sequential(Apply(torch.round), Apply(torch.sign), Weighted()), image()
    view = bpda("1", lambda x: 3 * x)(bpda("0", lambda x: 7 * x)(model))
    assert torch.equal(view(x), model(x))
    assert torch.allclose(slope(view, x), 21 * WEIGHT.view(2, 2).expand_as(x))


def test_bypass_replaces_the_part_forward_and_backward() -> None:
    model, x = nn.Sequential(Apply(torch.round), Weighted()), image()
    assert torch.equal(bypass("0")(model)(x), model[1](x))
    view = bypass("0", lambda x: 3 * x)(model)
    assert torch.equal(view(x), model[1](3 * x))
    assert torch.equal(slope(view, x), 3 * WEIGHT.view(2, 2).expand_as(x))


def test_detectors_keep_their_margin() -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = Apply(torch.round)

        def forward(self, x: Tensor) -> Output:
            x = self.part(x)
            return Output(x.flatten(1), x.sum((1, 2, 3)))

    x = image()
    answer = bpda("part", lambda x: 2 * x)(Detector())(x)
    assert isinstance(answer, Output)
    assert answer.reject is not None
    (gradient,) = torch.autograd.grad(answer.reject.sum(), x)
    assert torch.equal(gradient, torch.full_like(x, 2.0))


def test_the_model_is_left_as_it_was() -> None:
    def fail(x: Tensor) -> Tensor:
        raise KeyError

    model, x = nn.Sequential(Apply(torch.round), nn.BatchNorm2d(1).eval(), Weighted()), image()
    own = model[0].forward = lambda x: x.floor()  # a forward patched by someone else
    state = {name: value.clone() for name, value in model.state_dict().items()}
    before = [dict(module.__dict__) for module in model.modules()]
    slope(bpda("0")(model), x)
    slope(bpda("1")(model), x)
    for broken in (bpda("0", fail), bpda("2", fail), bypass("1", fail), bypass("", fail)):
        with pytest.raises(KeyError):
            broken(model)(x)
    assert [dict(module.__dict__) for module in model.modules()] == before
    assert model[0].forward is own
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(slope(model, x), torch.zeros_like(x))


def one_line(error: pytest.ExceptionInfo[ValueError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("view", [bpda("encoder"), bypass("encoder")])
def test_an_unknown_part_is_named_with_those_there_are(view: Callable[[nn.Module], nn.Module]) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        view(nn.Sequential(nn.Sequential(nn.Identity()), nn.Flatten()))
    assert one_line(error) == "the model has no part 'encoder'; its parts: 0, 0.0, 1"
    with pytest.raises(ValueError, match="its parts: none"):
        view(nn.Flatten())


def test_what_a_surrogate_cannot_stand_in_for_is_refused() -> None:
    x = image()
    pair = nn.Sequential(Apply(lambda x: (x, x)), Apply(lambda pair: pair[0].flatten(1)))
    with pytest.raises(ValueError) as error:  # noqa: PT011
        bpda("0")(pair)(x)
    assert one_line(error) == "part '0' gives a tuple, not a tensor: choose a part inside it"
    assert torch.equal(bpda("0")(pair)(x.detach()), x.flatten(1))  # without a gradient nothing stands in

    flat = nn.Sequential(nn.Flatten(), nn.Identity())
    with pytest.raises(ValueError) as error:  # noqa: PT011
        bpda("0")(flat)(x)
    assert "gives shape (3, 1, 2, 2), the part (3, 4)" in one_line(error)

    inner = nn.Sequential(Apply(lambda x: {"x": x}), Apply(lambda d: d["x"].flatten(1)))
    with pytest.raises(ValueError, match="part '1' is called without a tensor"):
        bpda("1")(inner)(x)


def test_substitute_takes_the_value_of_one_and_the_gradient_of_the_other() -> None:
    a, b = torch.randn(5, requires_grad=True), torch.randn(5, requires_grad=True)
    result = substitute(a.exp(), b.square())
    assert torch.equal(result, a.exp())
    first, second = torch.autograd.grad(result.sum(), (a, b), allow_unused=True)
    assert first is None
    assert torch.equal(second, 2 * b)
    result = substitute(a.exp(), b.square())
    result.data.zero_()  # the true value is a copy
    assert torch.equal(substitute(a, b), a)
