"""The cases by name, and the suites that they make up."""

from unmask.cases import cascade, defense_gan, lid, madry, pixeldefend, plain, randomization, sap, thermometer
from unmask.cases.case import Attacker, Case, Lens

__all__ = ["CASES", "SUITES", "Attacker", "Case", "Lens", "find_case"]

_MODULES = (plain, madry, cascade, thermometer, sap, lid, randomization, pixeldefend, defense_gan)

CASES: dict[str, Case] = {case.name: case for module in _MODULES for case in module.CASES}

SUITES: dict[str, tuple[str, ...]] = {
    suite: tuple(name for name, case in CASES.items() if case.data == suite and case.ships)
    for suite in ("digits", "mnist", "cifar10")
}
"""The cases of a data set whose weights come with the package."""


def find_case(name: str) -> Case:
    """The case of that name; ValueError lists the names there are."""
    if name not in CASES:
        raise ValueError(f"no case {name!r}; cases: {', '.join(CASES)}")
    return CASES[name]
