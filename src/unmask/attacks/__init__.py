"""Attacks: ``gradient_attack.GradientAttack`` is the loop of most, ``aliases`` holds their usual names."""
