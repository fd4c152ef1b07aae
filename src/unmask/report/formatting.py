"""Numbers in words, the same in every form of the report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from unmask.records import Figure, ThreatSpec
from unmask.statistics import Accuracy, PairedTest

if TYPE_CHECKING:
    from unmask.report.table import Row

__all__ = [
    "at",
    "category",
    "count",
    "date",
    "duration",
    "eps",
    "examples",
    "interval",
    "passes",
    "percent",
    "place",
    "probability",
    "quoted",
    "short_figure",
    "short_name",
    "short_percent",
    "sources",
    "stated",
    "steps",
    "threat",
]

NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1"}


def percent(share: float | None) -> str:
    """A share in [0, 1].

    >>> percent(0.985), percent(None)
    ('98.5 %', '—')
    """
    return "—" if share is None else f"{100 * share:.1f} %"


def short_percent(share: float) -> str:
    """A share in [0, 1], without a decimal that is zero.

    >>> short_percent(0.985), short_percent(0.0)
    ('98.5 %', '0 %')
    """
    return f"{_short(share)} %"


def short_figure(a: Accuracy) -> str:
    """An accuracy with its interval, without decimals that are zero: ``0 % [0, 3.6]``."""
    return f"{short_percent(a.value)} [{_short(a.low)}, {_short(a.high)}]"


def _short(share: float) -> str:
    return f"{100 * share:.1f}".removesuffix(".0")


def short_name(name: str) -> str:
    """The name of a model; of one in a file without the folders.

    >>> short_name("models/net.onnx"), short_name("/home/me/net.py:build"), short_name("timm:org/net")
    ('net.onnx', 'net.py:build', 'timm:org/net')
    """
    return re.sub(r"^[^:]*[/\\](?=[^/\\:]+\.\w+(:|$))", "", name)


def date(text: object) -> str:
    """A date as people write it; what is no date stays as it is.

    >>> date("2026-11-29T15:05:09+01:00"), date("some day")
    ('29 November 2026, 14:05 UTC', 'some day')
    """
    try:
        at = datetime.fromisoformat(str(text))
        at = at.astimezone(UTC) if at.tzinfo else at
        return f"{at.day} {at:%B %Y, %H:%M}{' UTC' if at.tzinfo else ''}"
    except (ValueError, OverflowError):
        return str(text)


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


def steps(seconds: Mapping[str, float]) -> str:
    """What each step took, the longest first.

    >>> steps({"check the model": 0.04, "probe its gradients": 90})
    'probe its gradients 1.5 min, check the model 0.0 s'
    """
    longest = sorted(seconds.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {duration(spent)}" for name, spent in longest)


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


def eps(size: float, unit: str = "raw") -> str:
    """The size of a ball: in levels of 255 where it is a whole number of them, to 1e-9, and no short decimal.

    >>> eps(8 / 255), eps(0.2), eps(0.3), eps(8 / 255, "rms")
    ('8/255', '0.2', '0.3', '0.0313725')
    """
    level = round(size * 255)
    levels = level and unit == "raw" and abs(size - level / 255) < 1e-9 and len(f"{size:g}") > 5
    return f"{level}/255" if levels else f"{size:g}"


def threat(spec: ThreatSpec) -> str:
    """The ball, with the unit of its size.

    >>> threat(ThreatSpec("linf", 8 / 255)), threat(ThreatSpec("l2", 0.05, "rms"))
    ('L∞ 8/255 raw', 'L2 0.05 rms')
    """
    return f"{NORMS.get(spec.norm, spec.norm)} {eps(spec.eps, spec.unit)} {spec.unit}"


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
    span = f"{sizes[0]}{f' to {sizes[-1]}' if len(sizes) > 1 else ''}"
    return f"{span} examples" + (" a case" if len(rows) > 1 else "")


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


def sources(rows: Sequence[Row]) -> list[str]:
    """Which kinds of figures others stated for any of the cases: "claimed", "published", "replicated"."""
    return [name for name in ("claimed", "published", "replicated") if any(name in stated(row) for row in rows)]


def category(row: Row) -> str:
    """How often the answer stays in the true class's general category; empty where classes have none."""
    if not row.superclass_accuracy:
        return ""
    shares = ", ".join(f"{name} {percent(a.value)} {interval(a)}" for name, a in row.superclass_accuracy.items())
    return f"Accuracy of the general category (the class may be wrong): {shares}."
