"""What the adversary may do: move an input within a ball around it, inside the box [0, 1].

``Linf``, ``L2`` and ``L1`` are the balls; ``projections`` projects onto the intersection of a ball and the box.
"""

from unmask.threats.balls import L1, L2, UNITS, Linf, Threat, check_threat, parse

__all__ = ["L1", "L2", "UNITS", "Linf", "Threat", "check_threat", "parse"]
