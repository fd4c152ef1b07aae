"""Replacements of a missing gradient: fitted to a part or to a model, or measured by differences."""
