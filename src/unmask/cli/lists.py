"""What there is, by topic: a name and a line about it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["TOPICS"]


def _cases() -> dict[str, str]:
    from unmask.cases import CASES

    return {
        c.name: f"{c.defense}, {', '.join(c.obfuscation)}; "
        f"{c.threat.norm} {c.threat.eps:g} {c.threat.unit}; {c.citation}"
        + ("" if c.has_weights else "; its weights do not ship")
        for c in CASES.values()
    }


def _defenses() -> dict[str, str]:
    from unmask.cases import CASES

    return {c.defense: c.citation for c in CASES.values() if c.defense != "none"}


def _attacks() -> dict[str, str]:
    from unmask.evaluation.attack_registry import ATTACKS

    return {name: setting.description for name, setting in ATTACKS.items()}


def _datasets() -> dict[str, str]:
    from unmask.data import FORMS, describe, names

    own = {form.syntax: f"your own: {form.about}; for example --data {form.example}" for form in FORMS}
    return {name: describe(name) for name in names()} | own


def _models() -> dict[str, str]:
    """What may be given as a target: the user's own first."""
    from unmask.evaluation.models.sources.registry import SOURCES

    own = {
        "path/to/file.py:factory": "your own: a function without arguments that returns an nn.Module, an estimator of "
        "scikit-learn, or a function of arrays",
        "package.module:factory": "the same, by import",
    }
    others = {source.usage: source.about for source in SOURCES.values()}
    return own | others | {f"case:{name}": about for name, about in _cases().items()}


TOPICS: dict[str, Callable[[], dict[str, str]]] = {
    "cases": _cases,
    "defenses": _defenses,
    "attacks": _attacks,
    "datasets": _datasets,
    "models": _models,
}
