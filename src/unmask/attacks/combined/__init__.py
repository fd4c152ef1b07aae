"""Attacks made of other attacks: ``ensemble.Ensemble`` takes the worst case of several."""
