"""Numbers in words, the same in every form of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unmask.records import Figure, ThreatSpec
from unmask.statistics import Accuracy, PairedTest

if TYPE_CHECKING:
    from unmask.report.table import Row

__all__ = [
    "any_replicated",
    "at",
    "category",
    "count",
    "duration",
    "examples",
    "interval",
    "passes",
    "percent",
    "place",
    "probability",
    "quoted",
    "stated",
    "threat",
]

NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1"}


def percent(share: float | None) -> str:
    """A share in [0, 1].

    >>> percent(0.985), percent(None)
    ('98.5 %', '—')
    """
    return "—" if share is None else f"{100 * share:.1f} %"


def interval(a: Accuracy) -> str:
    """The 95 % interval, in percent: ``[97.1, 99.3]``."""
    return f"[{100 * a.low:.1f}, {100 * a.high:.1f}]"


def place(finding: Mapping[str, Any]) -> str:
    """Where a finding is: the module, where it is one, and the line."""
    return f"{finding['module']}: {finding['where']}" if finding["module"] else str(finding["where"])


def duration(seconds: float) -> str:
    """Seconds, minutes or hours.

    >>> duration(9.04), duration(75), duration(7200)
    ('9.0 s', '1.2 min', '2.0 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def count(number: float) -> str:
    """A number of passes, to three digits.

    >>> count(40), count(12_345), count(2_500_000)
    ('40', '12.3k', '2.5M')
    """
    if number < 1000:
        return f"{number:.3g}"
    return f"{number / 1000:.3g}k" if number < 999_500 else f"{number / 1e6:.3g}M"


def passes(row: Row) -> str:
    """Images that went forward and backward in the attacks of a case, as ``1.2M / 600k``."""
    return f"{count(sum(a.forwards for a in row.attacks))} / {count(sum(a.backwards for a in row.attacks))}"


def threat(spec: ThreatSpec) -> str:
    """The ball, with the unit of its size.

    >>> threat(ThreatSpec("linf", 8 / 255)), threat(ThreatSpec("l2", 0.05, "rms"))
    ('L∞ 8/255 raw', 'L2 0.05 rms')
    """
    level = round(spec.eps * 255)
    eight_bit = spec.unit == "raw" and spec.eps == level / 255 and len(f"{spec.eps:g}") > 5
    size = f"{level}/255" if eight_bit else f"{spec.eps:g}"
    return f"{NORMS.get(spec.norm, spec.norm)} {size} {spec.unit}"


def at(specs: Sequence[ThreatSpec]) -> str:
    """What to add to the name of an attack on other balls than the case's; empty for none.

    >>> at([ThreatSpec("linf", 0.0)]), at([])
    (' at L∞ 0 raw', '')
    """
    return f" at {', '.join(map(threat, specs))}" if specs else ""


def probability(gap: PairedTest) -> str:
    """The p-value of a paired test: ``p = 0.031``."""
    return f"p = {gap.p:.2g}" if gap.p >= 1e-12 else "p < 1e-12"


def examples(rows: Sequence[Row]) -> str:
    """How many examples the figures rest on: ``200 examples a case``."""
    sizes = sorted({row.clean.n for row in rows if row.clean}) or [0]
    return f"{sizes[0]}{f' to {sizes[-1]}' if len(sizes) > 1 else ''} examples a case"


def quoted(figure: Figure | None) -> str:
    """A figure that others stated, in percent.

    >>> quoted(Figure(0.79, "Buckman et al., ICLR 2018", "https://openreview.net/forum?id=S18Su--CW")), quoted(None)
    ('79.0 %', '—')
    """
    return percent(figure.value if figure else None)


def stated(row: Row) -> dict[str, Figure]:
    """The figures that others stated for the case, by what they are."""
    figures = {"claimed": row.claimed, "published": row.published, "replicated": row.replicated}
    return {name: figure for name, figure in figures.items() if figure}


def any_replicated(rows: Sequence[Row]) -> bool:
    """Whether there is a case that others have attacked before."""
    return any(row.replicated is not None for row in rows)


def category(row: Row) -> str:
    """How often the answer stays in the true class's general category; empty where classes have none."""
    if not row.superclass_accuracy:
        return ""
    shares = ", ".join(f"{name} {percent(a.value)} {interval(a)}" for name, a in row.superclass_accuracy.items())
    return f"Accuracy of the general category (the class may be wrong): {shares}."
