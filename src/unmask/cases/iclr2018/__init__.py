"""The defenses of Athalye et al. (ICML 2018), one file each; ``CASES`` in each file lists its cases."""
