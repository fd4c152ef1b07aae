"""Intervals and paired tests against scipy.stats and closed forms."""

from __future__ import annotations

import pytest
from scipy import stats

from unmask.statistics import Gap, accuracy, gap


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
    found = gap(before, after)
    assert found.value == pytest.approx((falls - rises) / len(before))
    assert found.p == pytest.approx(stats.binomtest(falls, falls + rises, alternative="greater").pvalue)


def test_gap_of_shares_counts_signs_and_means_sizes() -> None:
    assert gap([0.5, 0.75, 1.0, 0.25], [0.25, 0.5, 0.75, 0.5]) == Gap(value=0.125, p=5 / 16, n=4)


def test_without_a_fall_there_is_no_evidence() -> None:
    assert gap([0, 1], [0, 1]) == Gap(0.0, 1.0, 2)
    assert gap([0, 0], [1, 1]) == Gap(-1.0, 1.0, 2)


def test_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(ValueError, match="ask for n >= 1"):
        accuracy([])
    with pytest.raises(ValueError, match="2 and 1 examples cannot be paired"):
        gap([1, 0], [1])
    with pytest.raises(ValueError, match="0 and 0 examples cannot be paired"):
        gap([], [])
