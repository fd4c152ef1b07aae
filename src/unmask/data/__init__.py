"""Labelled images: what they are, where they are kept and how they are loaded."""

from __future__ import annotations

from unmask.data.catalog import default_home, describe, load, names
from unmask.data.categories import categories
from unmask.data.dataset import DataError, Dataset, TooFewExamples
from unmask.data.forms.resolve import FORMS
from unmask.data.in_memory import InMemory, from_memory

__all__ = [
    "FORMS",
    "DataError",
    "Dataset",
    "InMemory",
    "TooFewExamples",
    "categories",
    "default_home",
    "describe",
    "from_memory",
    "load",
    "names",
]
