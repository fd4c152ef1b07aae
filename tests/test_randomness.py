from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import kstest
from torch import Tensor

from unmask.randomness import Keys, current, keys, make_keys, normal, uniform, use_keys
from unmask.randomness.normals import normals as table
from unmask.randomness.source import Source

Draw = Callable[[Tensor], Tensor]
ZERO = torch.zeros(())
WHOLE = torch.arange(100, 124)


def drawn(keys: Keys, draw: Draw, width: int = 6, *, foreign: bool = False) -> Tensor:
    """What ``draw`` gives for a batch of these keys; its argument is an all-ones batch (B, width)."""
    with use_keys(keys, uses_torch_random=foreign):
        return draw(torch.ones(len(keys.rows), width))


def uniforms(x: Tensor) -> Tensor:
    return uniform(x.shape, x)


def normals(x: Tensor) -> Tensor:
    return normal(x.shape, x)


@pytest.mark.parametrize("draw", [uniforms, normals])
def test_a_row_depends_on_its_example_alone(draw: Draw) -> None:
    whole = drawn(make_keys(7, WHOLE, "test"), draw)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn(make_keys(7, WHOLE[order], "test"), draw), whole[order])
    for size in (1, 5, 24):
        parts = [drawn(make_keys(7, part, "test"), draw) for part in WHOLE.split(size)]
        assert torch.equal(torch.cat(parts), whole)
    mask = torch.arange(24) % 3 == 0
    assert torch.equal(drawn(make_keys(7, WHOLE, "test").select(mask), draw), whole[mask])


def test_the_generator_is_splitmix64() -> None:
    """The published sequence of seed 1234567; as signed numbers where they pass 2**63."""
    state = 1234567 + torch.arange(1, 4) * keys._GOLDEN
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423 - 2**64]
    assert keys._mix(state).tolist() == published


def test_known_numbers_stay() -> None:
    """Stored results can be repeated only as long as the same keys give the same numbers."""
    keys = make_keys(0, [0], "test")
    with use_keys(keys):
        assert uniform((1, 3), ZERO.double())[0].tolist() == [
            0.4499138231887879,
            0.9190409295200715,
            0.37640753335749844,
        ]
        assert normal((1, 2), ZERO.double())[0].tolist() == pytest.approx(
            [0.7222611658022791, -1.2924275964328826], abs=1e-12
        )
    assert drawn(keys, normals, 3)[0].tolist() == pytest.approx([-0.29020607, 0.12587917, -1.94559574], abs=1e-7)


def test_dtype_changes_only_the_rounding() -> None:
    keys = make_keys(0, WHOLE, "test")
    exact = drawn(keys, lambda x: uniform(x.shape, ZERO.double()))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        rounded = drawn(keys, lambda x, d=dtype: uniform(x.shape, ZERO.to(d)))  # type: ignore[misc]
        assert rounded.dtype == dtype
        assert (rounded.double() - exact).abs().max() <= torch.finfo(dtype).eps / 2


@pytest.mark.parametrize(("draw", "law"), [(uniforms, "uniform"), (normals, "norm")])
def test_distribution(draw: Draw, law: str) -> None:
    many = drawn(make_keys(1, range(200), "test"), draw, 500)
    assert kstest(many.flatten().double().numpy(), law).pvalue > 0.01
    across = drawn(make_keys(2, range(50_000), "test"), draw, 1)  # one number an example: do the keys mix well?
    assert kstest(across.flatten().double().numpy(), law).pvalue > 0.01


def test_rows_calls_purposes_and_seeds_are_independent() -> None:
    size = 20_000
    keys = make_keys(0, [0, 1, 2], "test")

    def calls(x: Tensor) -> Tensor:
        return torch.cat([uniforms(x), uniforms(x)])

    rows = [
        drawn(keys, calls, size),
        *(drawn(keys.fold_in(salt), uniforms, size) for salt in (0, 1, "start")),
        drawn(keys.repeat(2), uniforms, size),
        drawn(keys.repeat(1, first=7), uniforms, size),
        drawn(make_keys(1, [0, 1, 2], "test"), uniforms, size),
        drawn(make_keys(0, [0, 1, 2], "other"), uniforms, size),
        drawn(keys, lambda x: uniform((2, size), ZERO)),  # shared by the batch
    ]
    table = torch.cat(rows).double()
    correlation = torch.corrcoef(table) - torch.eye(len(table), dtype=torch.float64)
    assert correlation.abs().max() < 5 / size**0.5
    shifted = torch.corrcoef(torch.cat([table[:, 1:], table[:, :-1]]))[: len(table), len(table) :]
    assert shifted.abs().max() < 5 / size**0.5


def test_copies_are_the_same_in_one_go_or_in_parts() -> None:
    keys = make_keys(0, [3, 4], "test")
    whole = drawn(keys.repeat(4), uniforms).view(4, 2, 6)
    parts = torch.cat([drawn(keys.repeat(1), uniforms), drawn(keys.repeat(3, first=1), uniforms)])
    assert torch.equal(parts.view(4, 2, 6), whole)
    alone = drawn(make_keys(0, [4], "test").repeat(4), uniforms)
    assert torch.equal(alone, whole[:, 1])
    assert len(whole.flatten().unique()) == whole.numel()


def test_copies_of_a_batch_in_a_foreign_draw_are_its_rows() -> None:
    def smooth(x: Tensor) -> Tensor:
        return torch.randn_like(x.repeat(3, 1)).view(3, len(x), -1)

    whole = drawn(make_keys(0, range(8), "test"), smooth, foreign=True)
    half = drawn(make_keys(0, range(4, 8), "test"), smooth, foreign=True)
    assert torch.equal(whole[:, 4:], half)


@pytest.mark.parametrize("bits", [0, 2**53 - 1])
def test_extreme_bits_stay_in_range(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Source, "bits", lambda self, size, device: torch.full(tuple(size), bits))
    keys = make_keys(0, [0], "test")
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        like = ZERO.to(dtype)
        with use_keys(keys):
            assert 0 <= uniform((1, 1), like).item() < 1
            assert normal((1, 1), like).isfinite().all()
        with use_keys(keys, uses_torch_random=True):
            assert 0 <= torch.rand(1, 1, dtype=dtype).item() < 1
            assert 0 <= torch.empty(1, 1, dtype=dtype).uniform_().item() < 1


def test_normal_numbers_are_the_inverse_distribution_function() -> None:
    random = torch.randint(-(2**31), 2**31, (100_000,), generator=torch.Generator().manual_seed(0))
    ends = torch.tensor([-(2**31), 2**31 - 1, 1, -1, 2, -2, 2**30, 1023, 1024, 1025, -(2**30) + 1])
    bits = torch.cat((random, ends, random >> 20))
    bits = bits[bits != 0].int()
    exact = -torch.special.ndtri(bits.double().abs() * 2.0**-32) * bits.sign()
    got = table(bits)
    assert got.dtype == torch.float32
    assert (got - exact).abs().max() < 5e-7
    assert table(bits[:1]).shape == (1,)
    assert 6.2 < table(torch.zeros(1, dtype=torch.int32)).item() < 6.5
    assert table(torch.zeros(3, 0, dtype=torch.int32)).shape == (3, 0)


def test_what_goes_before_an_odd_number_of_normal_numbers_is_the_same() -> None:
    keys = make_keys(0, WHOLE, "test")
    assert torch.equal(drawn(keys, normals, 5), drawn(keys, normals, 6)[:, :5])


def test_torch_draws_nothing_for_a_number_that_is_replaced() -> None:
    """What is left of torch's own sequence shows it; and no stack is written down for each block."""
    seen: list[Tensor] = []

    def draw(x: Tensor) -> Tensor:
        torch.randn_like(x), torch.rand(len(x), 3), torch.randn(len(x), 3, generator=torch.default_generator)
        seen.append(torch.get_rng_state())
        return x

    drawn(make_keys(0, range(4), "test"), draw, foreign=True)
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(make_keys(0, range(4), "test").shared)
    assert torch.equal(torch.get_rng_state(), seen[0])
    torch.set_rng_state(state)


FOREIGN: dict[str, tuple[Draw, str | None]] = {  # continuous ones with the law that they must follow
    "rand": (lambda x: torch.rand(len(x), x.shape[1]), "uniform"),
    "rand_like": (torch.rand_like, "uniform"),
    "uniform_": (lambda x: (torch.empty_like(x).uniform_(-3, 5) + 3) / 8, "uniform"),
    "randn": (lambda x: torch.randn(*x.shape), "norm"),
    "randn_like": (torch.randn_like, "norm"),
    "normal_": (lambda x: (torch.empty_like(x).normal_(2, 3) - 2) / 3, "norm"),
    "normal sizes": (lambda x: (torch.normal(2.0, 3.0, x.shape) - 2) / 3, "norm"),
    "normal means": (lambda x: (torch.normal(2 * x, 3.0) - 2) / 3, "norm"),
    "normal deviations": (lambda x: (torch.normal(2.0, 3 * x) - 2) / 3, "norm"),
    "normal both": (lambda x: (torch.normal(2 * x, 3 * x) - 2) / 3, "norm"),
    "exponential_": (lambda x: 2 * torch.empty_like(x).exponential_(2.0), "expon"),
    "randint": (lambda x: torch.randint(3, 7, x.shape), None),
    "randint_like": (lambda x: torch.randint_like(x, 5), None),
    "random_": (lambda x: torch.empty_like(x).random_(2, 6), None),
    "bernoulli": (lambda x: torch.bernoulli(0.3 * x), None),
    "bernoulli p": (lambda x: torch.bernoulli(x, 0.3), None),
    "bernoulli_": (lambda x: torch.empty_like(x).bernoulli_(0.3), None),
    "bernoulli_ tensor": (lambda x: torch.empty_like(x).bernoulli_(0.3 * x), None),
    "dropout": (lambda x: F.dropout(x, 0.3), None),
    "native dropout": (lambda x: torch.native_dropout(x, 0.3, True)[0], None),  # what GPUs run
    "dropout2d": (lambda x: F.dropout2d(x.view(len(x), -1, 1, 2), 0.3), None),
    "multinomial": (lambda x: torch.multinomial(x, 2), None),
    "multinomial again": (lambda x: torch.multinomial(x, 4, replacement=True), None),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_draws_depend_on_the_example_alone(name: str) -> None:
    draw, _ = FOREIGN[name]

    def twice(x: Tensor) -> Tensor:
        return torch.stack([draw(x), draw(x)], 1)

    keys = make_keys(3, WHOLE, "test")
    whole = drawn(keys, twice, 40, foreign=True)
    parts = [drawn(make_keys(3, part, "test"), twice, 40, foreign=True) for part in WHOLE.split([1, 7, 16])]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(whole[:, 0], whole[:, 1])
    assert len(whole.flatten(1).unique(dim=0)) == len(whole)


@pytest.mark.parametrize("name", [name for name, (_, law) in FOREIGN.items() if law])
def test_foreign_draws_follow_their_law(name: str) -> None:
    draw, law = FOREIGN[name]
    many = drawn(make_keys(0, range(100), "test"), draw, 200, foreign=True)
    assert many.dtype == torch.float32
    assert kstest(many.flatten().double().numpy(), law).pvalue > 0.01


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("randint", {3: 0.25, 4: 0.25, 5: 0.25, 6: 0.25}),
        ("randint_like", dict.fromkeys(range(5), 0.2)),
        ("random_", dict.fromkeys(range(2, 6), 0.25)),
        ("bernoulli", {0: 0.7, 1: 0.3}),
        ("bernoulli p", {0: 0.7, 1: 0.3}),
        ("bernoulli_", {0: 0.7, 1: 0.3}),
        ("bernoulli_ tensor", {0: 0.7, 1: 0.3}),
        ("dropout", {0: 0.3, 1 / 0.7: 0.7}),
        ("native dropout", {0: 0.3, 1 / 0.7: 0.7}),
        ("dropout2d", {0: 0.3, 1 / 0.7: 0.7}),
    ],
)
def test_foreign_draws_have_their_shares(name: str, shares: dict[float, float]) -> None:
    many = drawn(make_keys(0, range(200), "test"), FOREIGN[name][0], 200, foreign=True).double()
    for value, share in shares.items():
        found = (many - value).abs() < 1e-6
        assert found.double().mean().item() == pytest.approx(share, abs=0.015)  # > 4 standard errors
        many[found] = torch.nan
    assert many.isnan().all()


def test_dropout2d_drops_whole_channels() -> None:
    image = drawn(make_keys(0, range(8), "test"), lambda x: F.dropout2d(x.view(len(x), 4, 3, 3)), 36, foreign=True)
    assert torch.equal(image.amin((2, 3)), image.amax((2, 3)))
    assert set(image.flatten().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("replacement", [False, True])
def test_multinomial_follows_its_weights(replacement: bool) -> None:
    weights = torch.tensor([1.0, 0.0, 3.0, 6.0])

    def draw(x: Tensor) -> Tensor:
        return torch.multinomial(weights.expand(len(x), 4), 2, replacement)

    picks = drawn(make_keys(0, range(20_000), "test"), draw, foreign=True)
    first = picks[:, 0].bincount(minlength=4) / len(picks)
    assert first.tolist() == pytest.approx([0.1, 0.0, 0.3, 0.6], abs=0.015)
    again = (picks[:, 0] == picks[:, 1]).double().mean().item()
    assert again == pytest.approx(0.1**2 + 0.3**2 + 0.6**2 if replacement else 0.0, abs=0.015)


def test_a_permutation_is_one_order_for_the_batch() -> None:
    keys = make_keys(0, range(8), "test")
    orders = [drawn(keys.fold_in(i), lambda _: torch.randperm(16), foreign=True) for i in range(400)]
    assert all(order.sort().values.tolist() == list(range(16)) for order in orders)
    places = torch.stack(orders).double().mean(0)  # uniform on 0 .. 15: deviation 4.61
    assert (places - 7.5).abs().max() < 4.5 * 4.61 / 20
    for size in (3, 6, 16):  # 16 elements might be mistaken for rows of any of these batches
        part = drawn(make_keys(0, range(size), "test").fold_in(0), lambda _: torch.randperm(16), foreign=True)
        assert torch.equal(part, orders[0])


@pytest.mark.parametrize("draw", [lambda x: torch.rand(5, 3), lambda x: torch.rand(()), lambda x: torch.randn(1, 4)])
def test_a_draw_of_another_shape_is_shared(draw: Draw) -> None:
    whole = drawn(make_keys(0, range(24), "test"), draw, foreign=True)
    for part in torch.arange(24).split([2, 3, 19]):
        assert torch.equal(drawn(make_keys(0, part, "test"), draw, foreign=True), whole)
    assert not torch.equal(drawn(make_keys(1, range(24), "test"), draw, foreign=True), whole)


def test_other_generators_are_seeded_inside_and_restored_after() -> None:
    def draw() -> tuple[float, ...]:
        return random.random(), np.random.rand(), torch.empty(()).cauchy_().item()

    def inside(keys: Keys) -> tuple[float, ...]:
        with use_keys(keys, uses_torch_random=True):
            return draw()

    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = [draw(), draw()]
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    got = [draw()]
    first = inside(make_keys(0, range(24), "test"))
    assert first == inside(make_keys(0, range(9), "test"))
    assert all(a != b for a, b in zip(first, inside(make_keys(1, range(24), "test")), strict=True))
    with use_keys(make_keys(0, range(24), "test"), uses_torch_random=True):
        torch.rand(24, 3), F.dropout(torch.ones(24, 3)), torch.randperm(9)
    got.append(draw())
    assert got == expected


def _by_its_seed(like: Tensor) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return torch.randn(like.shape)


def _by_its_generator(like: Tensor) -> Tensor:
    return torch.rand(like.shape, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("fixed", [_by_its_seed, _by_its_generator])
def test_what_a_model_draws_by_a_seed_of_its_own_is_not_random(fixed: Callable[[Tensor], Tensor]) -> None:
    alone, like = fixed(torch.zeros(2, 3)), torch.zeros(2, 3)
    for draw in (1, 2):
        with use_keys(make_keys(draw, range(2), "a draw"), uses_torch_random=True):
            before, found, after = torch.rand(2, 3), fixed(like), torch.rand(2, 3)
        assert torch.equal(found, alone)
        assert not torch.equal(before, after)


def test_a_generator_that_is_kept_is_random() -> None:
    kept = torch.Generator().manual_seed(7)
    torch.rand(1, generator=kept)
    draws = []
    for draw in (1, 2, 1):
        with use_keys(make_keys(draw, range(2), "a draw"), uses_torch_random=True):
            draws.append(torch.rand(2, 3, generator=kept))
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])


def test_without_keys_the_global_generator_is_used() -> None:
    torch.manual_seed(3)
    expected = [torch.rand(2, 3), torch.randn(2, 3)]
    torch.manual_seed(3)
    with use_keys(None, uses_torch_random=True):
        assert current() is None
        assert torch.equal(uniform((2, 3), ZERO), expected[0])
        assert torch.equal(normal((2, 3), ZERO), expected[1])


def test_an_inner_block_leaves_the_outer_as_it_was() -> None:
    outer, inner = make_keys(0, [0, 1], "outer"), make_keys(0, [5, 6, 7], "inner")

    def nested(x: Tensor) -> Tensor:
        first = uniforms(x)
        with use_keys(inner):
            assert torch.equal(uniforms(x[:1].expand(3, -1)), drawn(inner, uniforms))
        return torch.stack([first, uniforms(x)])

    assert torch.equal(drawn(outer, nested), drawn(outer, lambda x: torch.stack([uniforms(x), uniforms(x)])))


def test_current_goes_on_with_fresh_streams() -> None:
    def draw(x: Tensor) -> Tensor:
        streams = [current(), current()]
        return torch.stack([uniforms(x), *(drawn(s, uniforms) for s in streams if s)], 1)

    whole = drawn(make_keys(0, WHOLE, "test"), draw)
    assert whole.shape == (24, 3, 6)
    assert len(whole.flatten().unique()) == whole.numel()
    assert torch.equal(drawn(make_keys(0, WHOLE[5:9], "test"), draw), whole[5:9])


@pytest.mark.parametrize("foreign", [False, True])
def test_an_exception_ends_the_block(foreign: bool) -> None:
    before = random.getstate(), torch.get_rng_state()
    with pytest.raises(KeyError), use_keys(make_keys(0, [0], "test"), uses_torch_random=foreign):
        raise KeyError
    assert current() is None
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    torch.manual_seed(0)
    free = torch.rand(1, 3)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1, 3), free)


def test_gradients_pass_a_keyed_dropout() -> None:
    x = torch.ones(8, 5, requires_grad=True)
    with use_keys(make_keys(0, range(8), "test"), uses_torch_random=True):
        y = F.dropout(2 * x, 0.5)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach() * 1.0)  # d(2 m x)/dx = 2 m, with x = 1
    assert set(x.grad.flatten().tolist()) == {0.0, 4.0}
