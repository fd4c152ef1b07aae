"""Runs: what is to be done, doing it, keeping it, and checking it again."""
