"""Auto-PGD: ``apgd.APGD`` is the attack; ``schedules`` and ``walk`` set its steps."""
