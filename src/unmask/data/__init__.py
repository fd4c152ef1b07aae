"""Labelled images: what they are, where they are kept and how they are loaded."""

from __future__ import annotations

from unmask.data.catalog import default_home, describe, load, names
from unmask.data.categories import categories
from unmask.data.dataset import DataError, Dataset

__all__ = ["DataError", "Dataset", "categories", "default_home", "describe", "load", "names"]
