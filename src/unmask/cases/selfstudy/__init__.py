"""Cases of the self-study course's defenses; start with ``CASES`` of a module."""
