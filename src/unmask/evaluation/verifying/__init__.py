"""Checks of a finished run: ``verify.verify`` does all of them."""
