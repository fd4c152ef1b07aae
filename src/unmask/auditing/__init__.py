"""Point it at a model: evidence of masked gradients, the attack that follows from it, the accuracy that is left."""
