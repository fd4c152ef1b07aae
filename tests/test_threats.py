from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import brentq, minimize
from torch import Tensor

from unmask.randomness import make_keys, use_keys
from unmask.threats import L1, L2, UNITS, Linf, Threat, parse

Array = np.ndarray[Any, np.dtype[np.float64]]
Ball = Callable[..., Threat]
BALLS: list[Ball] = [Linf, L2, L1]
ORDER = {"linf": math.inf, "l2": 2, "l1": 1}


def norms(threat: Threat, x: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(x.double().flatten(1), ORDER[threat.norm], dim=1)
    return lengths


def assert_feasible(threat: Threat, point: Tensor, x: Tensor) -> None:
    radius = threat.radius(x).double()
    assert (norms(threat, point.double() - x.double()) <= radius * (1 + 1e-6) + 1e-6).all()
    assert point.min() >= 0
    assert point.max() <= 1


def reference(threat: Threat, v: Array, x: Array) -> Array:
    """The nearest feasible point, from the optimality conditions and a scalar root finder."""
    if threat.norm == "linf":
        inside: Array = np.clip(np.clip(v, x - threat.eps, x + threat.eps), 0, 1)
        return inside
    step = v - x

    def point(m: float) -> Array:
        soft = np.sign(step) * np.maximum(np.abs(step) - m * np.abs(step).max(), 0)
        moved: Array = np.clip(x + ((1 - m) * step if threat.norm == "l2" else soft), 0, 1)
        return moved

    def excess(m: float) -> float:
        return float(np.linalg.norm(point(m) - x, ORDER[threat.norm])) - threat.eps

    return point(0.0 if excess(0.0) <= 0 else brentq(excess, 0, 1, xtol=1e-15, rtol=1e-14))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Array, Array, float]:
    d = draw(st.integers(1, 12))
    x = draw(arrays(np.float64, d, elements=st.sampled_from([0.0, 1.0, 0.5]) | st.floats(0, 1)))
    v = draw(arrays(np.float64, d, elements=st.floats(-2, 3)))
    return v, x, draw(st.sampled_from([0.0, 0.01]) | st.floats(0, 4))


@pytest.mark.parametrize("ball", BALLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=60)
@given(case=cases(), seed=st.integers(0, 2**30))
def test_projection_is_feasible_idempotent_and_nearest(
    ball: Ball, dtype: torch.dtype, case: tuple[Array, Array, float], seed: int
) -> None:
    v, x, eps = case
    threat = ball(eps)
    here, centre = torch.tensor(v[None], dtype=dtype), torch.tensor(x[None], dtype=dtype)
    point = threat.project(here, centre)
    assert point.dtype == dtype
    assert_feasible(threat, point, centre)
    assert torch.equal(threat.project(point, centre), point)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-9
    np.testing.assert_allclose(point.double().numpy()[0], reference(threat, v, x), atol=tolerance)

    rng = np.random.default_rng(seed)
    others = rng.uniform(0, 1, (200, len(x)))
    lengths = np.linalg.norm(others - x, ORDER[threat.norm], axis=1, keepdims=True)
    others = x + (others - x) * np.minimum(1, eps / np.maximum(lengths, 1e-300))
    best = np.linalg.norm(point.double().numpy()[0] - v)
    assert (np.linalg.norm(others - v, axis=1) >= best - tolerance * 10).all()


@pytest.mark.parametrize("ball", [L2, L1])
def test_projection_agrees_with_a_general_solver(ball: Ball) -> None:
    rng = np.random.default_rng(0)
    threat = ball(0.7)
    for _ in range(5):
        x = rng.choice([0.0, 1.0, 0.3, 0.6], 4)
        v = x + rng.normal(0, 1, 4)

        def slack(y: Array, x: Array = x) -> float:  # y = positive and negative part of the change
            change = y[:4] - y[4:]
            return float(0.7 - y.sum() if threat.norm == "l1" else 0.49 - change @ change)

        def cost(y: Array, x: Array = x, v: Array = v) -> float:
            return float(np.sum((x + y[:4] - y[4:] - v) ** 2))

        found = minimize(
            cost,
            np.full(8, 0.01),
            bounds=[*((0, 1 - c) for c in x), *((0, c) for c in x)],
            constraints={"type": "ineq", "fun": slack},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        point = threat.project(torch.tensor(v[None]), torch.tensor(x[None]))[0].numpy()
        np.testing.assert_allclose(point, x + found.x[:4] - found.x[4:], atol=1e-4)


@pytest.mark.parametrize("threat", [L2(3.0), L1(16.0)])
def test_far_points_reach_the_sphere_exactly(threat: Threat) -> None:
    rng = np.random.default_rng(1)
    x = torch.tensor(rng.uniform(-1, 2, (400, 784)).clip(0, 1))
    for step in (16 * rng.standard_normal(x.shape), rng.standard_cauchy(x.shape) ** 3):
        distance = threat.distance(threat.project(x + torch.tensor(step), x), x)
        assert (distance / threat.eps).tolist() == pytest.approx([1] * 400, rel=1e-9)


@pytest.mark.parametrize("threat", [L2(0.4), L1(60.0)])
def test_rounding_errors_of_many_elements_do_not_add_up(threat: Threat) -> None:
    x = torch.linspace(0.05, 0.85, 12).view(-1, 1, 1, 1).expand(12, 3, 150, 150)
    point = threat.project(x + 0.1, x)
    assert_feasible(threat, point, x)
    assert (threat.distance(point, x) > threat.eps * (1 - 1e-4)).all()


@pytest.mark.parametrize("ball", BALLS)
def test_a_point_just_outside_is_brought_in(ball: Ball) -> None:
    x = torch.full((1, 4), 0.5)
    threat = ball(0.2)
    beyond = x + threat.ascent(torch.ones(1, 4)) * 0.2 * (1 + 2e-5)
    assert threat.distance(beyond, x) > 0.2 * (1 + 1e-5)
    assert_feasible(threat, threat.project(beyond, x), x)


@pytest.mark.parametrize("ball", [L2, L1])
@pytest.mark.parametrize(
    ("dtype", "stays", "moves"),
    [(torch.float32, 2**-22, 2**-20), (torch.float64, 5e-13, 2e-12)],
    ids=["single", "double"],
)
def test_only_what_is_further_out_than_rounding_is_moved(
    ball: Ball, dtype: torch.dtype, stays: float, moves: float
) -> None:
    x = torch.zeros(2, 1, dtype=dtype)
    far = 0.5 * (1 + torch.tensor([[stays], [moves]], dtype=dtype))
    assert ball(0.5).project(far, x).tolist() == [[far[0].item()], [0.5]]


def test_rows_are_projected_independently() -> None:
    x = torch.rand(6, 2, 3, 3)
    v = x + torch.tensor([0.0, 0.001, 0.3, 5.0, -2.0, 0.02]).view(-1, 1, 1, 1) * torch.randn_like(x)
    v[1] = v[1].clamp(0, 1)
    for ball in BALLS:
        threat = ball(0.3)
        together = threat.project(v, x)
        alone = torch.cat([threat.project(v[i : i + 1], x[i : i + 1]) for i in range(6)])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-7)
        assert torch.equal(together[:2], v[:2])  # inside: not touched


def test_units_by_hand() -> None:
    x = torch.full((1, 3, 4, 5), 0.5)  # d = 60, H * W = 20, norms 0.5, sqrt(15), 30
    expected = {
        "raw": (0.1, 0.1, 0.1),
        "rms": (0.1, 0.1 * math.sqrt(60), 6.0),
        "rms_pixel": (0.1, 0.1 * math.sqrt(20), 2.0),
        "relative": (0.05, 0.1 * math.sqrt(15), 3.0),
        "per_dim": (6.0, 6.0, 6.0),
    }
    assert set(expected) == set(UNITS)
    for unit, radii in expected.items():
        for ball, radius in zip(BALLS, radii, strict=True):
            threat = ball(0.1, unit)
            assert threat.radius(x).dtype == torch.float32
            assert threat.radius(x).tolist() == pytest.approx([radius], rel=1e-6)
            moved = torch.zeros(1, 60).double()
            moved[0, 0] = radius  # one element, so every norm is the radius
            assert threat.distance(x + moved.view_as(x), x).tolist() == pytest.approx([0.1], rel=1e-6)


def test_published_units_agree() -> None:
    x = torch.rand(1, 3, 299, 299)
    assert L2(0.05, "rms_pixel").radius(x).item() == pytest.approx(0.05 * 299)  # 14.95
    assert L2(0.005, "per_dim").radius(torch.rand(1, 1, 28, 28)).item() == pytest.approx(3.92)


def test_relative_is_per_example_and_defined_for_black() -> None:
    x = torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]])
    threat = L2(0.1, "relative")
    assert threat.radius(x).tolist() == pytest.approx([0.1, 0.05, 0.0])
    assert threat.radius(x).dtype == x.dtype
    assert threat.distance(x, x).tolist() == [0, 0, 0]
    assert threat.distance(x + 0.1, x)[2] == math.inf
    assert torch.equal(threat.project(x + 0.1, x)[2], x[2])


def test_pixels_are_the_last_two_dimensions() -> None:
    assert L1(1, "rms_pixel").radius(torch.rand(2, 4, 5)).tolist() == [20, 20]
    with pytest.raises(ValueError, match=r"rms_pixel needs images .* got shape \(2, 5\): use rms$"):
        L2(1, "rms_pixel").radius(torch.rand(2, 5))


@pytest.mark.parametrize("ball", BALLS)
def test_bad_numbers_and_units_are_refused(ball: Ball) -> None:
    for eps in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"^eps must be a finite number >= 0, got"):
            ball(eps)
    with pytest.raises(TypeError):
        ball(0.1, "raw", "l2")  # the norm is the class
    with pytest.raises(ValueError, match=r"^unknown unit 'px': use one of raw, rms, rms_pixel, relative, per_dim$"):
        ball(0.1, "px")


def test_parse_replace_and_dictionary() -> None:
    assert [parse(name, 0.3, "raw") for name in ("Linf", "L2", "l1")] == [Linf(0.3), L2(0.3), L1(0.3)]
    with pytest.raises(ValueError, match=r"^unknown norm 'l3': use one of linf, l2, l1$"):
        parse("l3", 0.3, "raw")
    assert parse("l1", 0.3) == L1(0.3, "raw")
    assert [repr(ball(0.3)) for ball in BALLS] == [f"{name}(eps=0.3, unit='raw')" for name in ("Linf", "L2", "L1")]
    threat = parse("l2", 0.3, "rms")
    assert replace(threat, eps=0.0) == L2(0.0, "rms")
    assert asdict(threat) == {"norm": "l2", "eps": 0.3, "unit": "rms"}
    with pytest.raises(ValueError, match="eps must be"):
        replace(threat, eps=-1)


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.1), L1(0.1)])
def test_start_is_uniform_in_the_ball(threat: Threat) -> None:
    x = torch.full((6000, 3), 0.5)
    with use_keys(make_keys(0, range(6000), "start")):
        change = threat.start(x) - x
    share = (norms(threat, change) / 0.1) ** 3  # the volume inside each point: uniform in [0, 1]
    assert share.max() <= 1 + 1e-5
    for q in (0.1, 0.5, 0.9):
        assert (share < q).double().mean().item() == pytest.approx(q, abs=0.02)
    octant = (change > 0).long() @ torch.tensor([1, 2, 4])
    assert torch.bincount(octant, minlength=8).tolist() == pytest.approx([750] * 8, abs=120)
    # By symmetry the mean absolute change is the same along every axis.
    assert change.abs().mean(0).tolist() == pytest.approx([change.abs().mean().item()] * 3, rel=0.05)


@pytest.mark.parametrize("threat", [Linf(0.6), L2(3.0), L1(9.0), L2(0.5, "relative")])
def test_start_is_feasible_and_independent_of_the_batch(threat: Threat) -> None:
    x = (torch.rand(8, 3, 5, 5) * 3 - 1).clamp(0, 1)
    with use_keys(make_keys(1, range(8), "start")):
        whole = threat.start(x)
    with use_keys(make_keys(1, [5, 6, 7], "start")):
        part = threat.start(x[5:])
    torch.testing.assert_close(whole[5:], part, rtol=0, atol=1e-6)
    assert (whole[0] != whole[1]).any()
    assert_feasible(threat, whole, x)


@settings(max_examples=60)
@given(grad=arrays(np.float64, (2, 7), elements=st.floats(-5, 5)))
def test_ascent_reaches_the_dual_norm(grad: Array) -> None:
    """<g, d> <= dual norm of g for every d of unit norm (Hölder), with equality for the steepest."""
    g = torch.tensor(grad)
    directions: list[tuple[Threat, Tensor, float]] = [
        (Linf(1), Linf(1).ascent(g), 1),
        (L2(1), L2(1).ascent(g), 2),
        (L1(1), L1(1).ascent(g), math.inf),
    ]
    for threat, direction, dual in directions:
        assert (norms(threat, direction) <= 1 + 1e-9).all()
        gain = (g * direction).sum(1)
        torch.testing.assert_close(gain, torch.linalg.vector_norm(g, dual, dim=1), rtol=1e-9, atol=1e-12)


def test_l1_ascent_spreads_equal_mass_over_the_largest() -> None:
    g = torch.linspace(0, 1, 400).view(1, 4, 10, 10)
    g.view(-1)[-1] = -2.0
    direction = L1(1).ascent(g).flatten()
    assert direction[-4:].tolist() == [0.25, 0.25, 0.25, -0.25]
    assert direction[:-4].count_nonzero() == 0
    few = torch.zeros(1, 400)
    few[0, 7] = 3.0
    assert L1(1).ascent(few)[0, 7] == 1  # unit norm also where fewer than the share are non-zero


@pytest.mark.parametrize(
    ("changed", "parts"),
    [(0, [1 / 10] * 10), (1, [1]), (3, [1 / 2] * 2), (4, [3 / 8] * 2 + [1 / 4]), (60, [1 / 10] * 10)],
)
def test_l1_ascent_narrows_to_two_thirds_of_the_elements_that_were_changed(changed: int, parts: list[float]) -> None:
    """Of 1000 elements one in a hundred, at most. Those at an edge of the box do not count as changed."""
    g = torch.linspace(-2, -1, 1000, dtype=torch.float64)[None]
    x = torch.full((1, 1000), 0.5, dtype=torch.float64)
    at = x.clone()
    at[0, 500 : 500 + changed] -= 0.1
    at[0, 900:910], at[0, 910:920] = 5e-7, 1 - 5e-7
    direction = L1(1).ascent(g, at, x)[0]
    assert direction[: len(parts)].tolist() == pytest.approx([-part for part in parts])
    assert direction[len(parts) :].count_nonzero() == 0
    at[0, 990:996] = torch.tensor([2e-6, 1 - 2e-6]).repeat(3)  # six more, next to the edges
    assert L1(1).ascent(g, at, x).count_nonzero() == min(10, math.ceil((changed + 6) / 1.5))
    at[0, 3:] = 1.0  # three are left inside the box, but without the image nobody knows what was changed
    assert L1(1).ascent(g, at).count_nonzero() == 10


def test_l1_ascent_skips_elements_within_a_millionth_of_the_edge_that_the_step_would_leave() -> None:
    at = torch.tensor([[1 - 5e-7, 1 - 2e-6, 5e-7, 2e-6]], dtype=torch.float64)
    one = torch.ones(1)
    for slopes, moved in (
        ([9.0, 8.0, 2.0, 1.0], [1, 1, 0, 0]),  # the first is at the edge: it is moved, but does not count
        ([2.0, 9.0, 8.0, 1.0], [0, 1, 0, 0]),
        ([-9.0, -8.0, -2.0, -1.0], [-1, 0, 0, 0]),
        ([-1.0, -2.0, -9.0, -8.0], [0, 0, -1, -1]),
        ([-1.0, -2.0, -8.0, -9.0], [0, 0, 0, -1]),
    ):
        assert L1(1).ascent(torch.tensor([slopes], dtype=torch.float64), at, at, one)[0].tolist() == moved


@pytest.mark.parametrize("threat", [Linf(1), L2(1), L1(1)])
def test_ascent_of_extreme_gradients(threat: Threat) -> None:
    g = torch.randn(1, 3, 6, 6)
    for scale in (1e-30, 1e30):
        torch.testing.assert_close(threat.ascent(g * scale), threat.ascent(g))
    assert torch.equal(threat.ascent(torch.zeros_like(g)), torch.zeros_like(g))
    g[0, 0, 0, 0], g[0, 0, 0, 1] = math.inf, math.nan
    direction = threat.ascent(g)
    assert direction[0, 0, 0, 0] == 1
    assert direction[0, 0, 0, 1] == 0
    assert direction.isfinite().all()
