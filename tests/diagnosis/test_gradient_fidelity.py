from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unmask.diagnosis.faults import GradientFault, cancelled, faults
from unmask.diagnosis.gradient_fidelity import GradientFidelity, from_images, gradient_fidelities, known
from unmask.randomness import make_keys

X = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Inline(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def found(function: Callable[[Tensor], Tensor], name: str) -> GradientFidelity:
    keys = make_keys(0, range(len(X)), "test")
    parts = gradient_fidelities(Inline(function), X, 0.1, (0.01, 0.2), keys)
    return next(one for one in parts if one.event.name == name and not one.event.module)


@pytest.mark.parametrize("scale", [1e-4, 1.0, -3.0])
def test_a_linear_operation_is_explained_whatever_its_scale(scale: float) -> None:
    assert list(found(lambda x: x * scale, "mul").fidelity.values()) == pytest.approx([1, 1], rel=1e-3)


def test_a_wrong_factor_shows_as_that_factor() -> None:
    class Third(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x * 1.0

        @staticmethod
        def backward(ctx: object, g: Tensor) -> Tensor:
            return g / 3

    assert list(found(lambda x: Third.apply(x), "Third").fidelity.values()) == pytest.approx([1 / 3, 1 / 3], rel=1e-3)


def test_a_backward_pass_that_draws_explains_what_two_of_them_have_in_common() -> None:
    class Noisy(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x * 1.0

        @staticmethod
        def backward(ctx: object, g: Tensor) -> Tensor:
            return g + 5 * g.std() * torch.randn_like(g)

    assert max(map(abs, found(lambda x: Noisy.apply(x), "Noisy").fidelity.values())) < 0.4
    assert list(found(lambda x: Noisy.apply(x) * 2, "mul").fidelity.values()) == pytest.approx([1, 1], rel=1e-3)


def test_what_is_given_more_than_once_counts_as_often() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True).requires_grad_(False)

    def attended(x: Tensor) -> Tensor:
        rows: Tensor = x[:, 0]
        return attention(rows, rows, rows)[0]  # type: ignore[no-any-return]

    assert found(lambda x: torch.cat((x, x)), "cat").fidelity[0.01] == pytest.approx(1, rel=1e-3)
    assert found(lambda x: x * x, "mul").fidelity[0.01] == pytest.approx(1, abs=0.1)
    assert found(attended, "multi_head_attention_forward").fidelity[0.01] == pytest.approx(1, abs=0.1)


def test_a_view_of_the_images_that_is_taken_without_gradients_has_none() -> None:
    def mean(x: Tensor) -> Tensor:
        with torch.no_grad():
            return x.flatten(1) * 2

    one = found(mean, "flatten")
    assert one.event.outputs[0].edge is None
    assert one.event.inputs[0].edge is not None


def test_rounding_is_not_explained_at_all() -> None:
    assert list(found(lambda x: (5 * x).round(), "round").fidelity.values()) == [0, 0]


def test_each_input_counts_by_its_own_slope_also_where_one_comes_from_the_other() -> None:
    """x * x': product rule; the slope of the second path must not be counted in the first."""
    one = found(lambda x: torch.add(2 * x, x), "add")
    assert list(one.fidelity.values()) == pytest.approx([1, 1], rel=1e-3)


def test_a_steep_step_is_explained_nearby_and_bounded_not_at_all() -> None:
    one = found(lambda x: torch.sigmoid(1e4 * (x - 0.5)), "sigmoid")
    assert max(one.bounded.values()) < 0.05


def test_operations_stand_with_their_place_and_code() -> None:
    event = found(lambda x: (5 * x).round(), "round").event
    assert event.line.startswith("test_gradient_fidelity.py:")
    assert "round()" in event.code


def test_writes_in_place_do_not_reach_what_was_seen_before() -> None:
    def doubled(x: Tensor) -> Tensor:
        y = x + 0.0
        y.mul_(2)
        return y

    assert list(found(doubled, "mul").fidelity.values()) == pytest.approx([1, 1], rel=1e-3)


def test_a_generator_of_the_models_own_draws_the_same_in_all_passes() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.draw = np.random.default_rng(0)

        def forward(self, x: Tensor) -> Tensor:
            return x + torch.from_numpy(self.draw.normal(size=x.shape)).float()

    parts = gradient_fidelities(Noisy(), X, 0.1, (0.01, 0.2), make_keys(0, range(len(X)), "test"))
    (add,) = [one for one in parts if one.event.name == "add"]
    assert list(add.fidelity.values()) == pytest.approx([1, 1], rel=1e-3)
    assert faults(parts) == []


def test_what_runs_in_inference_mode_loses_the_gradient() -> None:
    class Inferred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.inference_mode():
                y = 2 * x
            return y.clone() + 1

    (fault,) = faults(gradient_fidelities(Inferred(), X, 0.1, (0.01, 0.2), make_keys(0, range(len(X)), "test")))
    assert (fault.event.name, fault.missing) == ("mul", True)


@pytest.mark.parametrize(("columns", "guilty"), [(5, {"detach"}), (7, set())])
def test_an_image_with_a_detached_rest_is_sound_only_if_gradients_explain_three_quarters(
    columns: int, guilty: set[str]
) -> None:
    """Noise is alike in all of the eight columns: gradients of five explain 0.62 of it, those of seven 0.87."""

    def partly(x: Tensor) -> Tensor:
        return torch.cat((2 * x[..., :columns], 2 * x[..., columns:].detach()), -1)

    assert found(partly, "cat").fidelity[0.2] == pytest.approx(columns / 8, abs=0.05)
    parts = gradient_fidelities(Inline(partly), X, 0.1, (0.01, 0.2), make_keys(0, range(len(X)), "test"))
    assert {fault.event.name for fault in faults(parts)} == guilty


def faulty(function: Callable[[Tensor], Tensor]) -> list[str]:
    keys = make_keys(0, range(len(X)), "test")
    return [one.event.name for one in faults(gradient_fidelities(Inline(function), X, 0.1, RADII, keys))]


def test_a_comparison_behind_a_rounding_is_a_fault_of_its_own() -> None:
    def signs(x: Tensor) -> Tensor:
        return torch.where((6 * x).floor() / 6 > 0.4, 1.0, -1.0).flatten(1) @ torch.ones(64, 3)

    assert faulty(signs) == ["floor", "gt"]


def test_complex_numbers_carry_changes_too() -> None:
    def through_frequencies(x: Tensor, levels: float) -> Tensor:
        f = torch.fft.rfft2(x)
        f = torch.complex((levels * f.real).round() / levels if levels else f.real, f.imag)
        back: Tensor = torch.fft.irfft2(f, s=(8, 8))
        return back

    assert faulty(lambda x: through_frequencies(x, 0)) == []
    assert faulty(lambda x: through_frequencies(x, 0.5)) == ["round"]
    exact = found(lambda x: torch.fft.irfft2(torch.fft.rfft2(x), s=(8, 8)), "fft_irfft2")
    assert list(exact.fidelity.values()) == pytest.approx([1, 1], rel=1e-3)


RADII = (1e-5, 1e-3, 0.02, 0.2)


def chaotic(x: Tensor) -> Tensor:
    z = 0.98 * x + 0.01
    for _ in range(14):
        z = 3.99 * z * (1 - z)
    return x + z


def lost(function: Callable[[Tensor], Tensor]) -> list[GradientFault]:
    keys = make_keys(0, range(len(X)), "test")
    parts = gradient_fidelities(Inline(function), X, 0.1, RADII, keys)
    assert faults(parts) == []
    return cancelled(parts, lambda: from_images(Inline(function), X, 0.1, RADII, keys))


def test_a_chaotic_chain_goes_astray_though_each_step_is_right() -> None:
    (fault,) = lost(chaotic)
    assert (fault.event.name, fault.event.code) == ("mul", "z = 3.99 * z * (1 - z)")
    assert not known(fault.fidelity)


def test_a_long_chain_that_is_straight_goes_nowhere_astray() -> None:
    def long(x: Tensor) -> Tensor:
        for _ in range(30):
            x = 0.5 + 0.8 * (x - 0.5)
        return x

    assert lost(long) == []


def test_a_model_that_is_made_for_the_box_alone_is_probed_inside() -> None:
    """The root of a negative number is NaN."""
    images = torch.zeros(4, 1, 6, 6)
    parts = gradient_fidelities(Inline(torch.sqrt), images, 0.1, (0.001, 0.01), make_keys(0, range(4), "test"))
    (root,) = [one for one in parts if one.event.name == "sqrt" and not one.event.module]
    assert bool(root.event.outputs[0].value.isfinite().all())
    assert next(iter(root.fidelity.values())) == pytest.approx(1, abs=0.2)


def projected(keep: bool) -> Callable[[Tensor], Tensor]:
    """Descent to what lies nearest to the image; its steps are differentiated where their graph is kept."""

    def project(x: Tensor) -> Tensor:
        with torch.enable_grad():
            z = torch.zeros_like(x).requires_grad_()
            for _ in range(5):
                (slope,) = torch.autograd.grad((z - x).square().sum(), z, create_graph=keep)
                z = z - 0.2 * slope
        return z

    return project


@pytest.mark.parametrize("keep", [True, False])
def test_gradients_of_the_models_own_are_faults_only_where_their_graph_ends(keep: bool) -> None:
    names = [
        fault.event.name
        for fault in faults(
            gradient_fidelities(Inline(projected(keep)), X, 0.1, RADII, make_keys(0, range(len(X)), "test"))
        )
    ]
    assert set(names) == (set() if keep else {"grad"})
