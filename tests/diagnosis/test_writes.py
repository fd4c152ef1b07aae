"""Code that writes into tensors, and other code that stands between a gradient and what it belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.diagnosis.faults import GradientFault
from unmask.diagnosis.probe import probe_gradients
from unmask.randomness import make_keys

X = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Inline(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function, self.last = function, nn.Flatten()

    def forward(self, x: Tensor) -> Any:
        made = self.function(x)
        return self.last(made) if isinstance(made, Tensor) else made


def guilty(function: Callable[[Tensor], Any] | nn.Module) -> list[GradientFault]:
    model = function if isinstance(function, nn.Module) else Inline(function)
    keys = make_keys(0, range(len(X)), "test")
    return probe_gradients(model.eval(), X, torch.zeros(len(X), dtype=torch.long), 0.1, keys, draws=1).faults


def rows_by_views(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, :, ::2] *= 0.5
    x[:, :, 1::2] += 0.1
    x[..., 0].mul_(3).clamp_(min=0.2)
    return x


def masked(x: Tensor) -> Tensor:
    x = x + 0.0
    x.masked_fill_(torch.ones(8, 8).tril() == 0, 0.5)
    x[..., 0, 0] = 1.0
    return x


@pytest.mark.parametrize(
    "sound",
    [
        nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Conv2d(3, 3, 3), nn.ReLU6(True), nn.Flatten()),
        lambda x: F.relu(x - 0.5, True),
        lambda x: F.leaky_relu(2 * x - 1, 0.1, True),
        rows_by_views,
        masked,
        torch.func.vmap(lambda x: x.tanh()),
    ],
)
def test_writing_in_place_is_no_fault(sound: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    assert guilty(sound) == []


def rounded_by_views(x: Tensor) -> Tensor:
    x = x.clone()
    x[..., ::2].mul_(9).round_().div_(9)
    x[..., 1::2].mul_(9).round_().div_(9)
    return 2 * x


def half_of_it(x: Tensor) -> Tensor:
    x = x.clone()
    x[..., ::2] = torch.round(x[..., ::2] * 9) / 9
    return x


@pytest.mark.parametrize(("function", "calls"), [(rounded_by_views, 2), (half_of_it, 1)])
def test_what_is_written_through_views_is_in_the_tensor(function: Callable[[Tensor], Tensor], calls: int) -> None:
    assert [fault.event.name for fault in guilty(function)] == ["round"] * calls


def test_slopes_that_add_up_to_nothing_are_found_where_they_do() -> None:
    (fault,) = guilty(lambda x: x - torch.fmod(x, 1 / 9) + 1)
    assert (fault.event.name, fault.missing, fault.right_nearby) == ("sub", False, False)


def test_places_alone_are_a_missing_gradient_whatever_comes_with_them() -> None:
    table = torch.linspace(0, 1, 8)
    (fault,) = guilty(lambda x: table[x.topk(3).indices])
    assert (fault.event.name, fault.missing) == ("topk", True)


def test_a_mask_that_seldom_changes_is_a_step_and_not_steep() -> None:
    def winners(x: Tensor) -> Tensor:
        return x * (x >= x.flatten(1).topk(9).values[:, -1].view(-1, 1, 1, 1))

    assert not any(fault.right_nearby for fault in guilty(winners))


def test_answers_of_the_authors_own_class_are_looked_at() -> None:
    @dataclass
    class Refusing:
        logits: Tensor
        reject: Tensor

    (fault,) = guilty(lambda x: Refusing(x.flatten(1), x.mean((1, 2, 3)) > X.mean()))
    assert (fault.event.name, fault.missing) == ("gt", True)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantised_tensors_of_torchs_own() -> None:
    (fault,) = guilty(lambda x: torch.quantize_per_tensor(x, 1 / 9, 0, torch.quint8).dequantize())
    assert (fault.event.name, fault.missing) == ("quantize_per_tensor", True)


def test_inside_of_vmap_the_operation_is_named() -> None:
    (fault,) = guilty(torch.func.vmap(lambda x: torch.round(9 * x) / 9))
    assert (fault.event.name, fault.missing) == ("round", False)


def test_probes_are_images() -> None:
    def seen(x: Tensor) -> Tensor:
        assert x.min() >= 0
        assert x.max() <= 1
        return x

    assert guilty(seen) == []


class Flipping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.net(x)
        return answer


@pytest.mark.parametrize("factor", [-1.0, 0.0])
def test_hooks_on_a_part_are_blamed_on_that_part(factor: float) -> None:
    def changed(part: nn.Module, given: Any, made: Any) -> Any:
        return tuple(factor * gradient for gradient in given)

    model = Flipping()
    model.net[0].register_full_backward_hook(changed)
    model.requires_grad_(False)
    (fault,) = guilty(model)
    assert (fault.event.name, fault.event.part) == ("Conv2d", "net.0")
    assert list(fault.fidelity.values()) == pytest.approx([factor] * 4, abs=0.1)


def test_hooks_on_a_tensor_are_blamed_where_they_were_put_there() -> None:
    def flipped(x: Tensor) -> Tensor:
        x = 2 * x
        if x.requires_grad:
            x.register_hook(lambda g: -g)
        return x.sin()

    (fault,) = guilty(flipped)
    assert fault.event.name == "register_hook"
    assert "lambda g: -g" in fault.event.code


class FlippedOutside(Flipping):
    def forward(self, x: Tensor) -> Tensor:
        hidden = self.net[:2](x)
        if hidden.requires_grad:
            hidden.register_hook(torch.zeros_like)
        answer: Tensor = self.net[2:](hidden)
        return answer


def test_a_hook_on_what_a_part_made_is_not_blamed_on_that_part() -> None:
    model = FlippedOutside()
    model.requires_grad_(False)
    (fault,) = guilty(model)
    assert (fault.event.name, fault.event.part) == ("register_hook", "")


def test_rounding_is_blamed_itself_whoever_looks_at_its_gradient() -> None:
    def watched(x: Tensor) -> Tensor:
        x = torch.round(8 * x)
        if x.requires_grad:
            x.register_hook(lambda g: None)
        return x.sin()

    assert {fault.event.name for fault in guilty(watched)} == {"round"}


class Purified(Flipping):
    def __init__(self) -> None:
        super().__init__()
        self.purify = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.purify(x)
        return super().forward(x)


def test_disabled_gradients_are_blamed_on_the_part_that_disabled_them() -> None:
    model = Purified()
    model.requires_grad_(False)
    (fault,) = guilty(model)
    assert (fault.event.part, fault.event.code) == ("", "x = self.purify(x)")
