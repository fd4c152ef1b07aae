"""Sizes of an effect from which on reports speak of it."""

from __future__ import annotations

__all__ = ["FEWEST", "LEVEL", "MARGIN", "WIDEST"]

LEVEL = 0.05
"""Of paired tests."""

MARGIN = 0.05
"""Of the clean accuracy: two sound attacks may differ by a little without any masking."""

FEWEST = 10
"""Images that a conclusion takes: attacks that agree on fewer may still differ on more than a quarter of all images."""

WIDEST = 0.5
"""Width of the robust accuracy's interval beyond which it says too little."""
