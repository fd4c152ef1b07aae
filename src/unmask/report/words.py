"""Numbers and outcomes in words, the same in every form of the report."""

from __future__ import annotations

from collections.abc import Sequence

from unmask.records import Figure, ThreatSpec
from unmask.report.conclusion import Conclusion, gained
from unmask.report.table import Row
from unmask.statistics import Accuracy, Gap

__all__ = [
    "any_earlier",
    "category",
    "count",
    "duration",
    "examples",
    "headline",
    "interval",
    "others",
    "passes",
    "percent",
    "probability",
    "quoted",
    "sentence",
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


def probability(gap: Gap) -> str:
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
    figures = {"claimed": row.claimed, "published": row.published, "earlier": row.earlier}
    return {name: figure for name, figure in figures.items() if figure}


def any_earlier(rows: Sequence[Row]) -> bool:
    """Whether there is a case that others have attacked before."""
    return any(row.earlier is not None for row in rows)


def category(row: Row) -> str:
    """How often the answer stays in the true class's general category; empty where classes have none."""
    if not row.general:
        return ""
    shares = ", ".join(f"{name} {percent(a.value)} {interval(a)}" for name, a in row.general.items())
    return f"Right in the general category, though perhaps not in the class: {shares}."


def headline(rows: Sequence[Row]) -> str:
    """The point of the run in one sentence; controls do not count."""
    subjects = [row for row in rows if not row.control] or list(rows)
    decided = [row for row in subjects if row.conclusion is not Conclusion.UNFINISHED]
    falls = sum(row.conclusion is Conclusion.FALLS for row in decided)
    weakened = sum(row.conclusion is Conclusion.WEAKENED for row in decided)
    if not decided:
        return f"No verdict yet: {_of(0, len(subjects))} finished"
    if falls:
        whose = "its" if falls == 1 else "their"
        return f"{_of(falls, len(decided))} {_verb('fall', falls)}: {whose} gradient was hidden, not {whose} weakness"
    if weakened:
        lose = "loses part of its" if weakened == 1 else "lose part of their"
        return f"{_of(weakened, len(decided))} {lose} robustness once the gradient is no longer hidden"
    if all(row.conclusion is Conclusion.UNDECIDED for row in decided):
        return "No verdict: the attacks differ by no more than chance allows on so few examples"
    if all(row.gap is None for row in decided):
        return "; ".join(map(_left, decided))
    if any(row.misleads for row in decided):
        return "Its gradients mislead, and yet the plain attack does about as well as the adaptive ones"
    if any(_outdone(row) for row in decided):
        return "No hidden gradient found, though the adaptive attacks leave less than the plain one"
    return "No hidden gradient found: the plain attacks do about as well as the adaptive ones"


def others(rows: Sequence[Row]) -> str:
    """What the headline leaves out: the cases of every other conclusion, and the controls."""
    groups = {
        "Falls": [row for row in rows if row.control and row.conclusion is Conclusion.FALLS],
        "Weakened": [row for row in rows if row.conclusion is Conclusion.WEAKENED],
        "Stands": [row for row in rows if row.conclusion is Conclusion.STANDS],
        "Weak": [row for row in rows if row.conclusion is Conclusion.WEAK],
        "Too few examples to tell": [row for row in rows if row.conclusion is Conclusion.UNDECIDED],
        "Unfinished": [row for row in rows if row.conclusion is Conclusion.UNFINISHED],
    }
    return " ".join(f"{word}: {', '.join(map(_mention, group))}." for word, group in groups.items() if group)


def sentence(row: Row) -> str:
    """The verdict on one case, with the numbers that it rests on."""
    if row.conclusion is Conclusion.UNFINISHED:
        return "Unfinished: give the same command again to continue; the figures are those of the examples done so far."
    if row.plain is None or row.adaptive is None or row.gap is None:
        return f"{_left(row)}. To tell whether a gradient is hidden takes both plain and adaptive attacks."
    if row.clean is not None and not row.clean.value:
        return "No image is classified rightly as it is: there is nothing to attack."
    left = f"{percent(row.adaptive.value)} {interval(row.adaptive)}"
    against = (
        f"The plain attack leaves {percent(row.plain.value)}, the adaptive attacks {left} ({probability(row.gap)})"
    )
    match row.conclusion:
        case Conclusion.FALLS if row.kind == "detector":
            return f"{against}: the plain attack did not look at the detector, the adaptive ones do."
        case Conclusion.FALLS:
            return f"{against}: the gradient was hidden, the weakness was always there."
        case Conclusion.WEAKENED:
            return f"{against}: a hidden gradient accounts for part of the robustness, not for all of it."
        case Conclusion.UNDECIDED:
            return f"{against}: too few examples to tell this from chance; ask for more with --n."
        case Conclusion.WEAK:
            what = "Its gradients mislead, and yet" if row.misleads else "Nothing is hidden:"
            return f"{what} the plain attack leaves {percent(row.plain.value)}, all attacks together {left}."
        case _ if _outdone(row):
            return f"{against}: the adaptive attacks are the stronger ones, but nothing hides the gradient."
        case _:
            return (
                f"{left} is left under every attack here, and the plain attack is about as strong as the adaptive ones."
            )


def _outdone(row: Row) -> bool:
    """Whether stronger attacks leave less though gradients are right."""
    return row.misleads is False and gained(row.clean, row.gap)


def _of(some: int, total: int) -> str:
    if total == 1:
        return "The defense" if some else "the defense is not"
    return f"All {total} defenses" if some == total else f"{some} of {total} defenses"


def _verb(verb: str, number: int) -> str:
    return verb + "s" if number == 1 else verb


def _mention(row: Row) -> str:
    return f"{row.case} (control)" if row.control else row.case


def _left(row: Row) -> str:
    left = row.adaptive or row.plain
    if left is None or row.clean is None:
        return f"Nothing attacked {row.case}"
    return f"{percent(left.value)} of {percent(row.clean.value)} clean accuracy is left under {left.attack}"
