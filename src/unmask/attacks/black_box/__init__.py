"""Attacks without gradients of the model: ``Square``, ``HopSkipJump``, random search, transfer."""
