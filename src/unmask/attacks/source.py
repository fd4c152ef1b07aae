"""Attacks as the Python code that makes them, so that a report shows what a run did and a reader can do it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from unmask.attacks.aliases import pgd
from unmask.attacks.gradient_attack import GradientAttack
from unmask.attacks.optimizers import Steepest
from unmask.attacks.problem import Attack
from unmask.gradients.bpda import View

__all__ = ["source"]

_ALWAYS = ("steps", "loss", "queries", "samples")
"""What a reader wants to know of an attack, also where it is the default."""


def source(attack: Attack, views: Mapping[View, str]) -> str:
    """The expression that makes ``attack`` again, in public names of ``unmask``; ``views`` are variables.

    Raises ValueError for an attack that holds a function without a public name, such as a view that is no variable.

    >>> from unmask.attacks.auto_pgd.apgd import APGD
    >>> from unmask.attacks.combined.ensemble import Ensemble
    >>> print(source(Ensemble((APGD(20), pgd(40, rel_step_size=0.1))), {}))
    unmask.Ensemble((
        unmask.APGD(steps=20, loss=unmask.cross_entropy),
        unmask.pgd(40, unmask.cross_entropy, rel_step_size=0.1),
    ))
    """
    return _code(attack, views)


def _code(value: Any, views: Mapping[View, str]) -> str:
    if isinstance(value, tuple):
        items = [_code(one, views).replace("\n", "\n    ") for one in value]
        return "".join(["(\n", *(f"    {item},\n" for item in items), ")"])
    if is_dataclass(value) and not isinstance(value, type):
        return _short_pgd(value, views) or _call(value, views)
    if not callable(value):
        return repr(value)
    if value in views:
        return views[value]
    name = getattr(value, "__qualname__", "<")
    if "<" in name:
        raise ValueError(f"no code makes {value!r} again: give a function that has a name")
    return f"unmask.{name}"


def _call(made: Any, views: Mapping[View, str]) -> str:
    """Fields without a default by position, others by name where they are not the default; those that change nothing,
    and are not compared, are left out.
    """
    arguments = [
        code if one.default is MISSING and one.default_factory is MISSING else f"{one.name}={code}"
        for one in fields(made)
        if one.init and one.compare and (one.name in _ALWAYS or getattr(made, one.name) != _default(one))
        for code in [_code(getattr(made, one.name), views)]
    ]
    return f"unmask.{type(made).__name__}({', '.join(arguments)})"


def _default(one: Field[Any]) -> Any:
    return one.default if one.default_factory is MISSING else one.default_factory()


def _short_pgd(attack: Any, views: Mapping[View, str]) -> str:
    """PGD by its own name; empty for what is no PGD."""
    if not (isinstance(attack, GradientAttack) and isinstance(attack.optimizer, Steepest)):
        return ""
    size, restarts, stop = attack.optimizer.rel_step_size, attack.restarts, attack.early_stop
    again = pgd(attack.steps, attack.loss, attack.estimator, rel_step_size=size, restarts=restarts, early_stop=stop)
    if again != attack:
        return ""
    arguments = [repr(attack.steps), _code(attack.loss, views)]
    arguments += [] if attack.estimator == GradientAttack.estimator else [_code(attack.estimator, views)]
    arguments += [f"rel_step_size={size!r}", *([f"restarts={restarts}"] if restarts != 1 else [])]
    return f"unmask.pgd({', '.join(arguments + ([] if stop else ['early_stop=False']))})"
