"""The cases by name, and the suites that they make up."""

from unmask.cases import defense_gan, madry, plain, randomization, thermometer
from unmask.cases.case import Attacker, Case

__all__ = ["CASES", "SUITES", "Attacker", "Case", "find_case"]

CASES: dict[str, Case] = {
    case.name: case for module in (plain, madry, thermometer, randomization, defense_gan) for case in module.CASES
}

SUITES: dict[str, tuple[str, ...]] = {
    suite: tuple(name for name, case in CASES.items() if case.data == suite) for suite in ("digits", "mnist")
}


def find_case(name: str) -> Case:
    """The case of that name; ValueError lists the names there are."""
    if name not in CASES:
        raise ValueError(f"no case {name!r}; cases: {', '.join(CASES)}")
    return CASES[name]
