"""The worst case over the attacks, example by example: ``per_class``, ``confusion`` and ``perturbations``."""
