"""BaRT: a barrage of random transformations in random order."""
