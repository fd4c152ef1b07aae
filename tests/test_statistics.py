"""Intervals and paired tests against scipy.stats and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, special, stats

from unmask.statistics import Accuracy, PairedTest, StopRule, accuracy, difference, paired_test, sample_size


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 200), (200, 200), (1, 50), (37, 100), (985, 1000)])
@pytest.mark.parametrize("level", [0.95, 0.99])
def test_interval_is_clopper_pearson(k: int, n: int, level: float) -> None:
    known = stats.binomtest(k, n).proportion_ci(level, method="exact")
    found = accuracy([1] * k + [0] * (n - k), level=level)
    assert (found.value, found.n) == (k / n, n)
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-9)


def test_interval_at_the_ends_has_a_closed_form() -> None:
    assert accuracy([0] * 100).high == pytest.approx(1 - 0.025 ** (1 / 100))
    assert accuracy([1] * 100).low == pytest.approx(0.025 ** (1 / 100))
    assert (accuracy([0] * 100).low, accuracy([1] * 100).high) == (0.0, 1.0)


def test_shares_lie_between_the_neighbouring_counts() -> None:
    below, between, above = (accuracy([share] * 4 + [0.0] * 6) for share in (0.75, 0.875, 1.0))
    assert between.value == pytest.approx(0.35)
    assert below.low < between.low < above.low
    assert below.high < between.high < above.high


def test_names_the_attack() -> None:
    assert accuracy([1], "bpda").attack == "bpda"
    assert accuracy([1]).attack is None


@pytest.mark.parametrize(("falls", "rises", "ties"), [(5, 0, 3), (8, 3, 10), (3, 8, 0), (60, 40, 900)])
def test_gap_is_the_exact_sign_test(falls: int, rises: int, ties: int) -> None:
    before = [1] * falls + [0] * rises + [1] * ties
    after = [0] * falls + [1] * rises + [1] * ties
    found = paired_test(before, after)
    assert found.value == pytest.approx((falls - rises) / len(before))
    assert found.p == pytest.approx(stats.binomtest(falls, falls + rises, alternative="greater").pvalue)


def test_gap_of_shares_counts_signs_and_means_sizes() -> None:
    assert paired_test([0.5, 0.75, 1.0, 0.25], [0.25, 0.5, 0.75, 0.5]) == PairedTest(value=0.125, p=5 / 16, n=4)


def test_without_a_fall_there_is_no_evidence() -> None:
    assert paired_test([0, 1], [0, 1]) == PairedTest(0.0, 1.0, 2)
    assert paired_test([0, 0], [1, 1]) == PairedTest(-1.0, 1.0, 2)


def test_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(ValueError, match="use n >= 1"):
        accuracy([])
    with pytest.raises(ValueError, match="2 and 1 examples cannot be paired"):
        paired_test([1, 0], [1])
    with pytest.raises(ValueError, match="0 and 0 examples cannot be paired"):
        paired_test([], [])


@pytest.mark.parametrize(("k", "n"), [(0, 128), (7, 300), (299, 300), (0.25, 1), (5.5, 90)])
def test_confidence_sequence_ends_where_the_mixture_is_twenty_times_as_likely(k: float, n: int) -> None:
    shares = [k / n] * n
    found = accuracy(shares, anytime=True)
    drawn = stats.betabinom(n, 0.5, 0.5) if k == int(k) else None
    for end in (found.low, found.high):
        if 0 < end < 1 and drawn is not None:
            assert drawn.pmf(k) / stats.binom(n, end).pmf(k) == pytest.approx(20, rel=1e-5)
    plain = accuracy(shares)
    assert found.low <= plain.low <= k / n <= plain.high <= found.high


def run_until(right: np.ndarray, mean: float, anytime: bool) -> bool:
    """Whether somebody who looks after every sixteenth example ever sees an interval that misses the mean."""
    found = (accuracy(right[:n].tolist(), anytime=anytime) for n in range(16, len(right) + 1, 16))
    return any(not one.low <= mean <= one.high for one in found)


@pytest.mark.parametrize("mean", [0.02, 0.3])
def test_a_confidence_sequence_holds_at_all_times_and_clopper_pearson_does_not(mean: float) -> None:
    generator = np.random.default_rng(0)
    paths = (generator.random((300, 800)) < mean).astype(float)
    assert np.mean([run_until(path, mean, True) for path in paths]) <= 0.05
    assert np.mean([run_until(path, mean, False) for path in paths]) > 0.08


def test_a_confidence_sequence_holds_for_shares() -> None:
    paths = np.random.default_rng(1).binomial(4, 0.4, (200, 400)) / 4
    assert np.mean([run_until(path, 0.4, True) for path in paths]) <= 0.05


def test_a_p_value_at_any_time_is_seldom_small_without_a_difference() -> None:
    signs = np.random.default_rng(2).integers(0, 2, (400, 300))
    small = [
        any(paired_test(row[:n].tolist(), (1 - row[:n]).tolist(), anytime=True).p < 0.05 for n in range(5, 300, 5))
        for row in signs
    ]
    assert np.mean(small) <= 0.05
    assert paired_test([1] * 20, [0] * 20, anytime=True).p < 1e-4


def test_difference_is_mcnemars_test_and_its_interval_follows_the_sign() -> None:
    first = [1] * 60 + [0] * 40 + [1] * 900
    second = [0] * 60 + [1] * 40 + [1] * 900
    found = difference(first, second)
    assert found.p == pytest.approx(stats.binomtest(60, 100).pvalue)
    assert found.value == pytest.approx(0.02)
    assert found.low < 0 < found.high
    turned = difference(second, first)
    assert (turned.low, turned.high, turned.p) == pytest.approx((-found.high, -found.low, found.p))
    assert difference([1, 0], [1, 0]).p == 1.0
    assert difference([1] * 30, [0] * 30).low > 0.6


@pytest.mark.parametrize("anytime", [False, True])
@pytest.mark.parametrize("chances", [(0.02, 0.02), (0.3, 0.1), (0.0, 0.05)])
def test_interval_of_a_difference_covers(chances: tuple[float, float], anytime: bool) -> None:
    generator = np.random.default_rng(3)
    up, down = chances
    held = 0
    for _ in range(400):
        fate = generator.random(150)
        first, second = (fate < up).astype(float), ((fate >= up) & (fate < up + down)).astype(float)
        if anytime:  # the run is stopped at a moment that somebody likes
            stop = max(range(10, 151, 10), key=lambda n: first[:n].mean() - second[:n].mean())
            first, second = first[:stop], second[:stop]
        found = difference(first.tolist(), second.tolist(), anytime=anytime)
        held += found.low <= up - down <= found.high
        assert anytime or found.p < 0.05 or found.low <= 0 <= found.high
    assert held >= 0.95 * 400


@pytest.mark.parametrize(("value", "width"), [(0.05, 0.02), (0.0, 0.01), (0.5, 0.1), (1.0, 0.3)])
@pytest.mark.parametrize("anytime", [False, True])
def test_size_is_the_smallest_that_suffices(value: float, width: float, anytime: bool) -> None:
    n = sample_size(value, width, anytime=anytime)
    for count, enough in ((n, True), (n - 1, False)):
        found = accuracy([value] * count, anytime=anytime)
        assert (found.high - found.low <= width) == enough
    with pytest.raises(ValueError, match="give shares"):
        sample_size(value, 0.0)


def test_stop_rules() -> None:
    found = Accuracy(0.1, 0.05, 0.2, 100)
    for text, met in [("upper<0.3", True), ("upper<.2", False), ("lower > 0.04", True), ("width<0.1501", True)]:
        assert StopRule.parse(text).met(found) == met
    for text in ("upper>0.1", "upper", "width<2", "upper<0", "value<0.1", "upper<1.1.1", ""):
        with pytest.raises(ValueError, match="Give upper<SHARE"):
            StopRule.parse(text)


@pytest.mark.parametrize("n", [1, 30, 500])
@pytest.mark.parametrize("level", [0.95, 0.99])
def test_a_confidence_sequence_without_a_success_has_a_closed_form(n: int, level: float) -> None:
    """(1 - p)^n is 1 - level times the chance of no success at a mean drawn from Beta(1/2, 1/2)."""
    drawn = special.beta(0.5, n + 0.5) / special.beta(0.5, 0.5)
    high = 1 - ((1 - level) * drawn) ** (1 / n)
    none, all_ = (accuracy([value] * n, level=level, anytime=True) for value in (0.0, 1.0))
    assert (none.low, all_.high) == (0.0, 1.0)
    assert (none.high, all_.low) == pytest.approx((high, 1 - high), abs=1e-9)


def test_a_confidence_sequence_reaches_the_end_of_the_range_where_a_share_is_next_to_none() -> None:
    assert accuracy([1e-9] * 2, anytime=True).low == 0.0
    assert accuracy([1 - 1e-9] * 2, anytime=True).high == 1.0
    assert 0 < accuracy([0.5] * 2, anytime=True).low < 0.5 < accuracy([0.5] * 2, anytime=True).high < 1


def ratio(falls: int, rises: int) -> float:
    """Likelihood of odds drawn from Beta(1/2, 1/2) above one half, over that of a fair coin, by quadrature."""

    def likelihood(angle: float) -> float:  # the mean sin^2 has that law where the angle is uniform
        return float(math.sin(angle) ** (2 * falls) * math.cos(angle) ** (2 * rises) * 2 ** (falls + rises))

    whole, _ = integrate.quad(likelihood, math.pi / 4, math.pi / 2, epsabs=0, epsrel=1e-10)
    return float(whole) / (math.pi / 4)


@pytest.mark.parametrize(("falls", "rises"), [(3, 0), (0, 3), (6, 1), (12, 5), (5, 12), (40, 20)])
def test_p_at_any_time_is_one_over_a_likelihood_ratio(falls: int, rises: int) -> None:
    before, after = [1] * falls + [0] * rises + [1] * 7, [0] * falls + [1] * rises + [1] * 7
    assert paired_test(before, after, anytime=True).p == pytest.approx(min(1, 1 / ratio(falls, rises)), rel=1e-6)
    two = 1 / ratio(max(falls, rises), min(falls, rises))
    assert difference(before, after, anytime=True).p == pytest.approx(min(1, 2 * two), rel=1e-6)


def test_p_at_any_time_is_one_without_a_difference_and_for_many_against_few() -> None:
    assert paired_test([1, 0], [1, 0], anytime=True).p == pytest.approx(1.0)  # of no example at all the ratio is 1
    assert paired_test([0] * 2000, [1] * 2000, anytime=True).p == 1.0  # the integral above one half underflows
    assert difference([1, 0], [1, 0], anytime=True).p == 1.0
    assert difference([1, 0], [0, 1], anytime=True).p == 1.0
    assert difference([1, 0], [0, 1]).p == 1.0


@pytest.mark.parametrize(("up", "down", "ties"), [(30, 5, 65), (5, 30, 65), (8, 6, 10), (40, 0, 0), (0, 1, 3)])
@pytest.mark.parametrize("level", [0.95, 0.9])
def test_interval_of_a_difference_is_put_together_from_those_of_its_size_and_its_sign(
    up: int, down: int, ties: int, level: float
) -> None:
    """Four fifths of the error go to the part in favour, one fifth to how much differs."""
    n = up + down + ties
    found = difference([1] * up + [0] * down + [1] * ties, [0] * up + [1] * down + [1] * ties, level)
    sign = stats.binomtest(up, up + down).proportion_ci(1 - 0.8 * (1 - level), method="exact")
    moved = stats.binomtest(up + down, n).proportion_ci(1 - 0.2 * (1 - level), method="exact")
    low, high = 2 * sign.low - 1, 2 * sign.high - 1
    assert (found.low, found.high) == pytest.approx(
        (low * (moved.high if low < 0 else moved.low), high * (moved.high if high > 0 else moved.low)), abs=1e-9
    )
    assert found.value == pytest.approx((up - down) / n)
    assert found.n == n


def test_differences_of_shares_count_by_their_sizes_in_the_interval_and_by_their_signs_in_p() -> None:
    first, second = [0.5, 1.0, 0.25, 0.5], [0.25, 0.5, 0.5, 0.5]
    found = difference(first, second)
    up, down = 0.75, 0.25
    theta = special.betaincinv([up, up + 1], [down + 1, down], [0.02, 0.98])
    psi = special.betaincinv(up + down + 1, 4 - up - down, 0.995)
    assert (found.low, found.high) == pytest.approx(((2 * theta[0] - 1) * psi, (2 * theta[1] - 1) * psi))
    assert found.p == 1.0  # two against one
    assert found.value == 0.125


def test_equal_shares_differ_by_no_more_than_what_could_have_been_missed() -> None:
    found = difference([0.5] * 50, [0.5] * 50)
    high = 1 - 0.005 ** (1 / 50)
    assert (found.low, found.high) == pytest.approx((-high, high))


@pytest.mark.parametrize(("value", "width"), [(-0.01, 0.1), (1.01, 0.1), (0.5, 0.00009), (0.5, 1.0), (0.5, -0.1)])
def test_sizes_of_what_is_no_share_are_refused(value: float, width: float) -> None:
    with pytest.raises(ValueError, match="give shares"):
        sample_size(value, width)


def test_size_without_a_success_has_a_closed_form() -> None:
    """The interval ends at 1 - (error / 2)^(1 / n)."""
    for width, level in ((1e-4, 0.95), (0.01, 0.95), (0.01, 0.99), (0.974, 0.95), (0.976, 0.95)):
        assert sample_size(0.0, width, level) == math.ceil(math.log((1 - level) / 2) / math.log1p(-width))
    assert sample_size(1.0, 0.01) == sample_size(0.0, 0.01)


@pytest.mark.parametrize("text", ["upper<0.3", "lower>0.04", "width<0.15"])
def test_a_stop_rule_reads_what_it_writes(text: str) -> None:
    assert str(StopRule.parse(text)) == text
    assert str(StopRule.parse(f" {text[:5]} {text[5]}  {text[6:]} ")) == text


@pytest.mark.parametrize(
    ("text", "value"), [("upper<1e-3", 1e-3), ("lower>0.999", 0.999), ("width<5e-2", 0.05), ("upper<.5", 0.5)]
)
def test_a_stop_rule_takes_numbers_between_0_and_1(text: str, value: float) -> None:
    assert StopRule.parse(text).bound == value


@pytest.mark.parametrize(
    "text", ["upper<1", "upper<1.0", "lower>0", "width<0.0", "lower<0.5", "Upper<0.5", "upper<-0.5"]
)
def test_a_stop_rule_takes_no_others(text: str) -> None:
    with pytest.raises(ValueError, match="stop when"):
        StopRule.parse(text)


def test_a_stop_rule_is_not_met_at_its_bound() -> None:
    found = Accuracy(0.25, 0.125, 0.5, 100)
    for text, met in [
        ("upper<0.5", False),
        ("upper<0.5001", True),
        ("lower>0.125", False),
        ("lower>0.1249", True),
        ("width<0.375", False),
        ("width<0.3751", True),
    ]:
        assert StopRule.parse(text).met(found) == met
