"""Defenses published after 2018, as modules: each docstring names the paper; cases/post2018 attacks them."""
