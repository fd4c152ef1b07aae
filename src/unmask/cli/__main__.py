"""``python -m unmask.cli``."""

from unmask.cli.exits import main

main()
