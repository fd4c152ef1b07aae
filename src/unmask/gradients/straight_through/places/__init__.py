"""Surrogates where numbers become places and places become numbers: argmax, sorts, tables, one-hot codes, counts.

Every operation that reads a table at computed places goes through ``reads``, every one that writes at such places
through ``spreading``; both find the places by their ``addresses``. ``order`` has the operations whose results are
places. The rules have the form of those in ``floats``.
"""

from unmask.gradients.straight_through.floats import Rule
from unmask.gradients.straight_through.places.addresses import Spot, spots
from unmask.gradients.straight_through.places.order import ORDER_RULES, extreme
from unmask.gradients.straight_through.places.reads import READ_RULES
from unmask.gradients.straight_through.places.spreading import SPREAD_RULES, moves, spread

__all__ = ["PLACE_RULES", "Spot", "extreme", "moves", "spots", "spread"]

PLACE_RULES: dict[str, Rule] = ORDER_RULES | READ_RULES | SPREAD_RULES
"""The rule of each operation, by its name without leading or trailing underscores."""
