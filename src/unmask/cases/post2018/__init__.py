"""Cases of defenses that were published after 2018; start with ``CASES`` of a module."""
