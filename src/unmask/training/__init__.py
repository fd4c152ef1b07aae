"""Training that is repeatable and continues after an interruption."""
